"""A vocabulary is trained, swapped into models, and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from finetune.errors import FinetuneError
from finetune.tokenizer import SPECIAL_TOKENS, fertility, train_tokenizer
from finetune.vocabulary_swap import swap_tokenizer
from tests.finetune.tiny_models import tiny_decoder, tiny_llama

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MANUAL = [
    "Press and hold the button for 10 seconds until the light turns blue.",
    "The battery lasts 450 hours; charge it before 2027. Überprüfen Sie die Batterie.",
    "Open the charging port, connect the cable and press the button again.",
] * 20


@pytest.fixture(scope="module")
def old() -> PreTrainedTokenizerBase:
    """A small vocabulary to swap out."""
    return train_tokenizer(MANUAL, vocabulary=280)


@pytest.fixture(scope="module")
def new() -> PreTrainedTokenizerBase:
    """A larger one to swap in."""
    return train_tokenizer(MANUAL, vocabulary=340)


def test_text_comes_back_unchanged(new: PreTrainedTokenizerBase) -> None:
    """Cased bytes lose nothing, whatever the script."""
    text = "  The X-450's button — „Überprüfen“ 漢字 🙂\n\n  12.5 mm"
    assert new.decode(new(text)["input_ids"]) == text


def test_every_digit_is_a_token(new: PreTrainedTokenizerBase) -> None:
    """Numbers are copied digit by digit."""
    digits = [new.decode([token]).strip() for token in new("for 450 hours")["input_ids"]]
    assert [token for token in digits if token.isdigit()] == ["4", "5", "0"]


def test_special_tokens_are_single(new: PreTrainedTokenizerBase) -> None:
    """Each special token is one id, and padding and end are known by role."""
    assert [len(new(token)["input_ids"]) for token in SPECIAL_TOKENS] == [1] * len(SPECIAL_TOKENS)
    assert (new.pad_token, new.eos_token) == ("<|pad|>", "<|end|>")


def test_the_chat_template_marks_the_reply(new: PreTrainedTokenizerBase) -> None:
    """Only the assistant's words and their end are marked for the loss; the frame costs one token a side."""
    messages = [{"role": "user", "content": "How long?"}, {"role": "assistant", "content": "450 hours."}]
    made = new.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [t for t, mark in zip(made["input_ids"], made["assistant_masks"], strict=True) if mark]
    assert new.decode(marked) == " 450 hours.<|end|>"
    prompt = new.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>How long?<|end|><|assistant|>"


@pytest.mark.parametrize(
    "make",
    [tiny_decoder, lambda v: tiny_llama(v, tied=True), lambda v: tiny_llama(v, tied=False)],
    ids=["decoder, tied", "llama, tied", "llama, untied"],
)
def test_a_swapped_row_is_the_mean_of_its_pieces(
    make, old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase
) -> None:
    """Input and output embeddings of a new token are the means of the old rows of its pieces."""
    import torch

    model = make(len(old))
    inputs = model.get_input_embeddings().weight.detach().clone()
    outputs = model.get_output_embeddings().weight.detach().clone()
    swap_tokenizer(model, old, new)
    token = next(t for t in new(" button")["input_ids"] if len(old(new.decode([t]))["input_ids"]) > 1)
    pieces = torch.tensor(old(new.decode([token]))["input_ids"])
    torch.testing.assert_close(model.get_input_embeddings().weight[token], inputs[pieces].mean(0))
    torch.testing.assert_close(model.get_output_embeddings().weight[token], outputs[pieces].mean(0))
    assert model.config.vocab_size == len(new)
    assert (model.config.pad_token_id, model.config.eos_token_id) == (new.pad_token_id, new.eos_token_id)


def test_special_tokens_keep_their_rows(old: PreTrainedTokenizerBase) -> None:
    """Those of the same text keep theirs; others take over their role's; one with neither stands in the middle."""
    import torch

    model = tiny_decoder(len(old))
    rows = model.get_input_embeddings().weight.detach().clone()
    other = train_tokenizer(MANUAL, vocabulary=300)
    other.add_special_tokens({"eos_token": "</s>", "mask_token": "<mask>"})
    swap_tokenizer(model, old, other)
    new = model.get_input_embeddings().weight

    def row(text: str) -> torch.Tensor:
        return new[other.convert_tokens_to_ids(text)]

    torch.testing.assert_close(row("<|user|>"), rows[old.convert_tokens_to_ids("<|user|>")])
    torch.testing.assert_close(row("</s>"), rows[old.eos_token_id])
    torch.testing.assert_close(row("<mask>"), rows.mean(0))


def test_a_swapped_model_computes_and_stays_tied(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> None:
    """Logits have the new width, and tied embeddings stay one tensor."""
    import torch

    model = swap_tokenizer(tiny_decoder(len(old)), old, new)
    logits = model(input_ids=torch.tensor([new("Press the button")["input_ids"]])).logits
    assert logits.shape[-1] == len(new)
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_fertility_counts_words_and_characters(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> None:
    """A larger vocabulary holds more text a token; the counts are of the sample."""
    few, many = fertility(old, MANUAL[:3]), fertility(new, MANUAL[:3])
    assert few.words == many.words == sum(len(text.split()) for text in MANUAL[:3])
    assert few.characters == sum(len(text) for text in MANUAL[:3])
    assert many.words_per_token > few.words_per_token
    assert many.characters_per_token > few.characters_per_token


def test_too_small_a_vocabulary_is_refused() -> None:
    """The error says how many tokens bytes and special tokens need."""
    with pytest.raises(FinetuneError, match="at least 261"):
        train_tokenizer(MANUAL, vocabulary=200)


def test_no_text_is_an_error() -> None:
    """An empty sample trains nothing and has no fertility."""
    with pytest.raises(FinetuneError, match="empty"):
        train_tokenizer([], vocabulary=300)


def test_fertility_of_nothing_is_an_error(new: PreTrainedTokenizerBase) -> None:
    """There is no figure for an empty sample."""
    with pytest.raises(FinetuneError, match="not empty"):
        fertility(new, [""])
