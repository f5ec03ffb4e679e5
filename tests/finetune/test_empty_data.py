"""Nothing to learn from is one clear error for every kind of recipe, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.questions import Question
from finetune.classifier import train_classifier
from finetune.classifier_data import load_classifier_recipe, read_labelled
from finetune.config import load_recipe, recipe_from_mapping
from finetune.continual import continue_pretraining
from finetune.continual_recipe import continual_recipe
from finetune.embedder import load_embedder_recipe, train_embedder
from finetune.errors import FinetuneError
from finetune.preference_data import read_preferences
from finetune.preferences import train_preferences
from finetune.tokenizer import train_tokenizer_folder
from finetune.training import train_adapter


def _adapter(model: Path, empty: Path, output: Path) -> None:
    train_adapter(recipe_from_mapping({"model": {"name": str(model)}}, name="x", source="x"), [], output)


def _with_context(model: Path, empty: Path, output: Path) -> None:
    tables = {"model": {"name": str(model)}, "data": {"context": True}}
    train_adapter(
        recipe_from_mapping(tables, name="x", source="x"), [], output, passages=lambda _: pytest.fail("asked")
    )


def _only_unanswerable_left_out(model: Path, empty: Path, output: Path) -> None:
    tables = {"model": {"name": str(model)}, "data": {"unanswerable": 0.0}}
    train_adapter(recipe_from_mapping(tables, name="x", source="x"), [Question("q", "Who?")], output)


def _preferences(model: Path, empty: Path, output: Path) -> None:
    train_preferences(load_recipe("pocket-dpo"), [], output)


def _preferences_file(model: Path, empty: Path, output: Path) -> None:
    read_preferences(empty)


def _pretraining(model: Path, empty: Path, output: Path) -> None:
    tables = {"model": {"name": str(model)}, "text": {"files": [str(empty)]}, "pretraining": {"row_length": 64}}
    continue_pretraining(continual_recipe(tables, name="x", source="x"), output)


def _vocabulary(model: Path, empty: Path, output: Path) -> None:
    train_tokenizer_folder([empty], output)


def _classifier(model: Path, empty: Path, output: Path) -> None:
    train_classifier(load_classifier_recipe("classifier-full"), [], output)


def _classifier_file(model: Path, empty: Path, output: Path) -> None:
    read_labelled(empty)


def _embedder(model: Path, empty: Path, output: Path) -> None:
    train_embedder(load_embedder_recipe("embedder"), [], output)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (_adapter, "no questions"),
        (_with_context, "no questions"),
        (_only_unanswerable_left_out, "no questions"),
        (_preferences, "0 preferences"),
        (_preferences_file, "empty.jsonl: it holds no preference"),
        (_pretraining, "empty.jsonl: no text to train on"),
        (_vocabulary, "the sample is empty"),
        (_classifier, "at least 2 labels; the data have 0"),
        (_classifier_file, "empty.jsonl: it holds no texts"),
        (_embedder, "at least 2 pairs of question and passage, not 0"),
    ],
)
def test_an_empty_data_set_is_refused(
    pocket_like: Path, tmp_path: Path, train: Callable[[Path, Path, Path], None], said: str
) -> None:
    """Adapters, with context or from preferences, pretraining, vocabularies, classifiers and embedders."""
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(FinetuneError, match=said):
        train(pocket_like, empty, tmp_path / "made" / "x")
    assert not (tmp_path / "made" / "x").exists()
