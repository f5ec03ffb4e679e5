"""Merged models."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.answering import FinetunedAnswerer, LocalModel
from finetune.errors import AdapterError
from finetune.export import merge_adapter
from finetune.run_record import read_run_record
from finetune.training import train_adapter
from tests.finetune.test_training import TRAINED, recipe
from tests.finetune.tiny import questions, save_pocket_like


@pytest.fixture(scope="module")
def adapter(pocket_like: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that knows the tiny questions."""
    folder = tmp_path_factory.mktemp("adapters") / "known"
    train_adapter(recipe(pocket_like), questions(), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_a_merged_model_has_equal_logits_and_answers_alone(
    adapter: Path, tmp_path: Path, dtype: str, limit: float
) -> None:
    """The files, loaded again without PEFT, give the logits of base and adapter, and its answers."""
    report = merge_adapter(adapter, tmp_path / "merged", dtype=dtype)
    assert report.largest_difference <= limit
    assert report.size_bytes == (tmp_path / "merged" / "model.safetensors").stat().st_size
    model = LocalModel(str(tmp_path / "merged"))
    answers = FinetunedAnswerer(model.generator()).answer([question.question for question in questions()])
    assert [answer.data for answer in answers[:3]] == TRAINED
    assert read_run_record(tmp_path / "merged").trained_ids == ("q1", "q2", "q3", "q4")


@pytest.mark.slow
def test_a_merge_into_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    """Nothing is written when the base is not the adapter's own."""
    other = save_pocket_like(tmp_path / "other", seed=2)
    with pytest.raises(AdapterError, match="another base"):
        merge_adapter(adapter, tmp_path / "merged", base=str(other))
    assert not (tmp_path / "merged").exists()
