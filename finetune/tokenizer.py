"""Train a byte-level BPE vocabulary, swap it into a model, and measure how many words a token holds.

The swap gives each new token the mean of the old embeddings of the pieces that the old tokenizer cuts its text into
(`v_new(t) = mean(v_old(pieces of t))`), so that the model starts from what it knew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAD = "<|pad|>"
END = "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL_TOKENS = (PAD, END, *ROLES)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- ' ' + message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""One token for a role, one for the end of a message: three tokens for a question. A reply begins with a space, so that
its first word is the same token as in the middle of a text, from which it may be copied."""


@dataclass(frozen=True)
class Fertility:
    """How much text a token holds, over one sample."""

    words: int
    characters: int
    tokens: int

    @property
    def words_per_token(self) -> float:
        """White-space separated words per token; higher is better."""
        return self.words / self.tokens

    @property
    def characters_per_token(self) -> float:
        """Characters per token; higher is better."""
        return self.characters / self.tokens


def train_tokenizer(texts: Iterable[str], *, vocabulary: int = 8192, positions: int = 512) -> PreTrainedTokenizerBase:
    """Train a cased byte-level BPE of `vocabulary` tokens on `texts`, with Versus's chat template.

    Every digit is a token of its own, so that a number is copied digit by digit and never guessed whole.
    Raises FinetuneError if `texts` is empty or the vocabulary is too small for the 256 bytes and special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    smallest = 256 + len(SPECIAL_TOKENS)
    if vocabulary < smallest:
        raise FinetuneError(f"a byte-level vocabulary needs at least {smallest} tokens; vocabulary is {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    counted = _Counted(texts)
    tokenizer.train_from_iterator(counted, trainer)
    if counted.seen == 0:
        raise FinetuneError("no text to train a tokenizer on: the sample is empty")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        model_max_length=positions,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


class _Counted:
    """Iterate `texts` and remember how many came."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.seen = 0

    def __iter__(self) -> Any:
        for text in self._texts:
            self.seen += 1
            yield text


def swap_tokenizer(
    model: PreTrainedModel,
    old_tokenizer: PreTrainedTokenizerBase,
    new_tokenizer: PreTrainedTokenizerBase,
) -> PreTrainedModel:
    """Give `model`, in place, the vocabulary of `new_tokenizer`, and return it.

    Input embeddings of shape (old, hidden) become (new, hidden): each row is the mean of the old rows of the token's
    pieces; a token that has none (a special token, a lone byte) gets the mean of all old rows. Output embeddings that
    are not tied to them are treated alike, and so is the output bias. Special tokens' ids are set in the configuration.
    """
    import torch

    pieces = [_old_pieces(token, old_tokenizer, new_tokenizer) for token in range(len(new_tokenizer))]
    inputs = model.get_input_embeddings().weight.data
    outputs_layer = model.get_output_embeddings()
    untied = outputs_layer is not None and outputs_layer.weight.data_ptr() != inputs.data_ptr()
    new_inputs = mean_rows(inputs, pieces)
    new_outputs = mean_rows(outputs_layer.weight.data, pieces) if untied else None
    bias = getattr(outputs_layer, "bias", None)
    new_bias = None if bias is None else mean_rows(bias.data[:, None], pieces)[:, 0]

    model.resize_token_embeddings(len(pieces), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(new_inputs)
        outputs_layer = model.get_output_embeddings()
        if new_outputs is not None:
            outputs_layer.weight.copy_(new_outputs)
        if new_bias is not None and outputs_layer.bias is not None:
            outputs_layer.bias.copy_(new_bias)
    _set_special_ids(model, new_tokenizer)
    return model


def mean_rows(rows: torch.Tensor, pieces: list[list[int]]) -> torch.Tensor:
    """Return, of shape (len(pieces), width), the mean of `rows` (old, width) picked by each list of ids.

    An empty list gives the mean of all rows.
    """
    import torch

    average = rows.float().mean(dim=0)
    means = [rows[torch.tensor(ids)].float().mean(dim=0) if ids else average for ids in pieces]
    return torch.stack(means).to(rows.dtype)


def _old_pieces(
    token: int, old_tokenizer: PreTrainedTokenizerBase, new_tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """Return the old ids of the text of one new token; none for special tokens and broken bytes."""
    if token in new_tokenizer.all_special_ids:
        return []
    text = new_tokenizer.decode([token])
    if "\N{REPLACEMENT CHARACTER}" in text:
        return []
    ids: list[int] = old_tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _set_special_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the new tokenizer's pad, begin and end ids into the model's configurations."""
    for config in (model.config, getattr(model, "generation_config", None)):
        if config is not None:
            config.pad_token_id = tokenizer.pad_token_id
            config.bos_token_id = tokenizer.bos_token_id
            config.eos_token_id = tokenizer.eos_token_id


def fertility(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Fertility:
    """Measure words and characters per token of `tokenizer` on `texts`. Raises FinetuneError if there are none."""
    words = characters = tokens = 0
    for text in texts:
        words += len(text.split())
        characters += len(text)
        tokens += len(tokenizer(text, add_special_tokens=False)["input_ids"])
    if tokens == 0:
        raise FinetuneError("fertility needs a text that is not empty")
    return Fertility(words=words, characters=characters, tokens=tokens)
