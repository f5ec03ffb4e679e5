"""The swap of a vocabulary, checked by hand computation on models of several kinds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from finetune.errors import FinetuneError, ModelError
from finetune.models import load_base, load_tokenizer
from finetune.run_record import read_run_record
from finetune.swapped_model import swap_model
from finetune.tokenizer import by_language, fertility_table, open_tokenizer, train_tokenizer
from finetune.vocabulary_swap import swap_tokenizer
from tests.finetune.tiny_models import tiny_decoder, tiny_llama

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENGLISH = ["Press the button and hold the button until the light turns blue."] * 20
RUSSIAN = ["Нажмите кнопку и удерживайте кнопку, пока не загорится синий индикатор."] * 20


@pytest.fixture(scope="module")
def english() -> PreTrainedTokenizerBase:
    """The old vocabulary."""
    return train_tokenizer(ENGLISH, vocabulary=300)


@pytest.fixture(scope="module")
def russian() -> PreTrainedTokenizerBase:
    """The new one."""
    return train_tokenizer(RUSSIAN, vocabulary=320)


def bert(vocabulary: int, kind: str) -> Any:
    """Return a tiny encoder, with or without its masked head."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=vocabulary, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    return getattr(transformers, kind)(config).eval()


@pytest.mark.parametrize(
    "make",
    [
        tiny_decoder,
        lambda v: tiny_llama(v, tied=True),
        lambda v: tiny_llama(v, tied=False),
        lambda v: bert(v, "BertModel"),
        lambda v: bert(v, "BertForMaskedLM"),
    ],
    ids=["decoder, tied", "llama, tied", "llama, untied", "encoder", "masked encoder, tied"],
)
def test_every_row_is_the_mean_of_its_pieces_by_hand(
    make: Any, english: PreTrainedTokenizerBase, russian: PreTrainedTokenizerBase
) -> None:
    """Sums and divisions in plain Python over the bytes of the pieces give every number of both matrices."""
    model = make(len(english))
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    before = [None if layer is None else layer.weight.tolist() for layer in layers]
    swap_tokenizer(model, english, russian)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    old_vocabulary, checked = english.get_vocab(), 0
    for token in range(len(russian)):
        name = russian.convert_ids_to_tokens(token)
        if token in russian.all_special_ids:
            ids = [english.convert_tokens_to_ids(name)]
        elif "\N{REPLACEMENT CHARACTER}" in russian.decode([token]):
            ids = [old_vocabulary[letter] for letter in name]
        else:
            ids = english(russian.decode([token]), add_special_tokens=False)["input_ids"]
        for layer, rows in zip(layers, before, strict=True):
            if layer is not None and rows is not None:
                expected = [sum(rows[i][column] for i in ids) / len(ids) for column in range(len(rows[0]))]
                assert layer.weight[token].tolist() == pytest.approx(expected, abs=1e-6)
                checked += 1
    assert checked >= len(russian)
    assert model.config.vocab_size == len(russian)


def test_random_embeddings_are_as_wide_as_the_old_ones(
    english: PreTrainedTokenizerBase, russian: PreTrainedTokenizerBase
) -> None:
    """Special tokens keep their rows; the seed decides the others; their spread is that of the old."""
    import torch

    models = [tiny_llama(len(english)) for _ in range(3)]
    old = models[0].get_input_embeddings().weight.detach().clone()
    for model, seed in zip(models, (1, 1, 2), strict=True):
        swap_tokenizer(model, english, russian, initialisation="random", seed=seed)
    first, same, other = (model.get_input_embeddings().weight.detach() for model in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert float(first.std()) == pytest.approx(float(old.std()), rel=0.05)
    torch.testing.assert_close(first[russian.eos_token_id], old[english.eos_token_id])
    outputs = models[0].get_output_embeddings().weight
    assert not torch.equal(first, outputs)
    with pytest.raises(FinetuneError, match="allowed: mean, random"):
        swap_tokenizer(models[0], english, russian, initialisation="zero")


def test_a_vocabulary_that_puts_a_space_before_every_text_is_asked_for_the_middle_of_words() -> None:
    """SentencePiece's word starts carry a mark: ` red` is found with it, `red` inside a word without."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "▁", "▁red", "red", "<0x0A>", "a", "\n"]
    backend = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    old = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<s>", pad_token="<s>")
    new = train_tokenizer([" red tired red bored"] * 50, vocabulary=270)
    model = tiny_llama(len(old))
    rows = model.get_input_embeddings().weight.detach().clone()
    swap_tokenizer(model, old, new)
    weight, vocabulary = model.get_input_embeddings().weight, new.get_vocab()
    assert weight[vocabulary["Ġred"]].tolist() == pytest.approx(rows[2].tolist())
    assert weight[vocabulary["red"]].tolist() == pytest.approx(rows[3].tolist())


def test_tokenizers_that_cannot_be_swapped_are_refused(
    english: PreTrainedTokenizerBase, russian: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """One without pad token, one that is not the model's own; one of another place is opened with its end as pad."""
    import copy

    unpadded = copy.deepcopy(russian)
    unpadded.pad_token = None
    with pytest.raises(ModelError, match="no pad token"):
        swap_tokenizer(tiny_llama(len(english)), english, unpadded)
    with pytest.raises(ModelError, match="not this model's own"):
        swap_tokenizer(tiny_llama(100), english, russian)
    unpadded.save_pretrained(tmp_path / "unpadded")
    assert open_tokenizer(str(tmp_path / "unpadded")).pad_token == "<|end|>"
    unpadded.eos_token = None
    unpadded.save_pretrained(tmp_path / "neither")
    with pytest.raises(ModelError, match="neither pad nor end token"):
        open_tokenizer(str(tmp_path / "neither"))


def test_a_swapped_model_is_written_whole_with_its_record(
    llama: Path, russian: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """It loads as any model does, and its record says what it was made from."""
    russian.save_pretrained(tmp_path / "russian")
    record = swap_model(str(llama), str(tmp_path / "russian"), tmp_path / "made")
    assert read_run_record(tmp_path / "made") == record
    assert record.figures["new_vocabulary"] == len(russian)
    model = load_base(str(tmp_path / "made"), dtype="float32", device="cpu")
    assert model.get_input_embeddings().weight.shape[0] == len(load_tokenizer(str(tmp_path / "made")))


def test_an_encoder_becomes_a_decoder_or_stays_one(
    english: PreTrainedTokenizerBase, russian: PreTrainedTokenizerBase, llama: Path, tmp_path: Path
) -> None:
    """With `as_decoder` BERT comes out as the class that pocket has; without, as it was; Llama is no encoder."""
    import json

    bert(len(english), "BertModel").save_pretrained(tmp_path / "bert")
    english.save_pretrained(tmp_path / "bert")
    russian.save_pretrained(tmp_path / "russian")
    for as_decoder, expected in ((True, "BertGenerationDecoder"), (False, "BertModel")):
        swap_model(str(tmp_path / "bert"), str(tmp_path / "russian"), tmp_path / "made", as_decoder=as_decoder)
        assert json.loads((tmp_path / "made" / "config.json").read_text())["architectures"] == [expected]
    with pytest.raises(ModelError, match="only a BERT encoder"):
        swap_model(str(llama), str(tmp_path / "russian"), tmp_path / "other", as_decoder=True)
    assert not (tmp_path / "other").exists()


def test_a_decoder_takes_the_layers_that_are_named(
    english: PreTrainedTokenizerBase, russian: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Left out or taken twice, each layer has the encoder's weights; other numbers, and no decoder, are refused."""
    encoder = bert(len(english), "BertModel")
    encoder.save_pretrained(tmp_path / "bert")
    english.save_pretrained(tmp_path / "bert")
    russian.save_pretrained(tmp_path / "russian")
    swap = partial(swap_model, str(tmp_path / "bert"), str(tmp_path / "russian"))
    for layers in ((1,), (0, 1, 1)):
        record = swap(tmp_path / "made", as_decoder=True, layers=layers)
        assert record.recipe["layers"] == list(layers)
        made = load_base(str(tmp_path / "made"), dtype="float32", device="cpu")
        assert made.config.encoder_layers == list(layers)
        for place, layer in enumerate(layers):
            ours = made.base_model.encoder.layer[place].output.dense.weight
            assert ours.equal(encoder.encoder.layer[layer].output.dense.weight)
    for wrong in ((0, 2), (1, 0), (-1, 0)):
        with pytest.raises(ModelError, match=r"has layers 0 to 1: take of these, in rising order"):
            swap(tmp_path / "other", as_decoder=True, layers=wrong)
    with pytest.raises(ModelError, match="add --as-decoder"):
        swap(tmp_path / "other", layers=(0,))


def test_fertility_is_given_language_by_language(
    english: PreTrainedTokenizerBase, russian: PreTrainedTokenizerBase
) -> None:
    """Texts without a name are sorted by the language that they are in; each tokenizer does best on its own."""
    samples = by_language([(None, ENGLISH[0]), (None, RUSSIAN[0]), ("ru", RUSSIAN[1])], characters=100)
    assert {language: len(texts) for language, texts in samples.items()} == {"en": 1, "ru": 2}
    assert sum(map(len, samples["ru"])) == 100
    table = fertility_table({"english": english, "russian": russian}, samples)
    assert table["en"]["english"].words_per_token > table["en"]["russian"].words_per_token
    assert table["ru"]["russian"].characters_per_token > table["ru"]["english"].characters_per_token
