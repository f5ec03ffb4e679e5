"""Export: files that trl takes, and that keep to what LLaMA-Factory and Axolotl document; those two are not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.conversations import REFUSALS, is_refusal, refusal
from data_prep.corpus import load_corpus
from data_prep.errors import DataError
from data_prep.exporting import ExportConfig, export_questions


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _alternate(messages: list[dict[str, str]]) -> bool:
    """LLaMA-Factory's rule: after one optional system message, user and assistant take turns and assistant is last."""
    roles = [message["role"] for message in messages if message["role"] != "system"]
    system_first = all(message["role"] != "system" for message in messages[1:])
    return system_first and roles == ["user", "assistant"] * (len(roles) // 2) and len(roles) >= 2


def test_trl_gets_prompt_and_completion(small_corpus: Path, tmp_path: Path) -> None:
    """One user message and one assistant message."""
    corpus = load_corpus(small_corpus)
    written = export_questions(corpus, tmp_path, ExportConfig(format="trl"))
    assert written == {"train.jsonl": len(corpus.questions("train")), "dev.jsonl": len(corpus.questions("dev"))}
    assert not (tmp_path / "test.jsonl").exists()
    for row, question in zip(_rows(tmp_path / "train.jsonl"), corpus.questions("train"), strict=True):
        assert row == {
            "prompt": [{"role": "user", "content": question.question}],
            "completion": [{"role": "assistant", "content": (question.answers or (refusal("en"),))[0]}],
        }


@pytest.mark.slow
@pytest.mark.parametrize("passages", [0, 2])
def test_trl_itself_takes_what_is_written_for_it(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passages: int
) -> None:
    """Loaded by `datasets` as a user would, each row is conversational to trl, and none of them is extra."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from datasets import load_dataset
    from trl.data_utils import is_conversational

    written = export_questions(load_corpus(small_corpus), tmp_path / "out", ExportConfig(passages=passages))
    files = {name.removesuffix(".jsonl"): str(tmp_path / "out" / name) for name in written}
    loaded = load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {f"{split}.jsonl": rows.num_rows for split, rows in loaded.items()} == written
    for rows in loaded.values():
        assert set(rows.column_names) == {"prompt", "completion"}
        assert all(is_conversational(row) for row in rows)


def test_llama_factory_gets_messages_and_their_description(small_corpus: Path, tmp_path: Path) -> None:
    """The description names each file that was written, and every row keeps the rule of taking turns."""
    corpus = load_corpus(small_corpus)
    written = export_questions(corpus, tmp_path, ExportConfig(format="llama-factory", passages=2))
    described = json.loads((tmp_path / "dataset_info.json").read_text())
    assert {entry["file_name"] for entry in described.values()} == set(written)
    for entry in described.values():
        assert entry["formatting"] == "sharegpt"
        assert entry["columns"] == {"messages": "messages"}
        tags = entry["tags"]
        for row in _rows(tmp_path / entry["file_name"]):
            assert all({tags["role_tag"], tags["content_tag"]} == set(message) for message in row["messages"])
            assert _alternate(row["messages"])


def test_axolotl_gets_messages_and_a_part_of_its_configuration(small_corpus: Path, tmp_path: Path) -> None:
    """The data sets are of type chat_template, and their messages are where the configuration says."""
    import yaml

    written = export_questions(load_corpus(small_corpus), tmp_path, ExportConfig(format="axolotl"))
    settings = yaml.safe_load((tmp_path / "axolotl.yaml").read_text())
    entries = [*settings["datasets"], *settings["test_datasets"]]
    assert [entry["path"] for entry in entries] == list(written)
    for entry in entries:
        assert entry["type"] == "chat_template"
        for row in _rows(tmp_path / entry["path"]):
            assert _alternate(row[entry["field_messages"]])


def test_passages_hold_the_evidence_among_distractors_the_same_each_time(small_corpus: Path, tmp_path: Path) -> None:
    """An answerable question's evidence stands in its prompt, an unanswerable one gets distractors alone."""
    corpus = load_corpus(small_corpus)
    config = ExportConfig(passages=3)
    export_questions(corpus, tmp_path / "one", config)
    export_questions(corpus, tmp_path / "two", config)
    assert (tmp_path / "one" / "train.jsonl").read_bytes() == (tmp_path / "two" / "train.jsonl").read_bytes()
    texts = corpus.texts(include_new=True)
    for row, question in zip(_rows(tmp_path / "one" / "train.jsonl"), corpus.questions("train"), strict=True):
        system, user = (message["content"] for message in row["prompt"])
        assert refusal("en") in system
        assert user.endswith(f"Question: {question.question}")
        assert [f"[{number}]" in user for number in (1, 2, 3, 4)] == [True, True, True, False]
        for span in question.evidence:
            assert texts[span.document][span.start : span.end] in user


def test_an_export_that_makes_no_sense_is_refused(small_corpus: Path, tmp_path: Path) -> None:
    """All faults at once; and a split without questions is told."""
    with pytest.raises(DataError, match=r"format 'csv'.*split 'all'.*passages is negative"):
        ExportConfig(format="csv", splits=("all",), passages=-1)
    for name in ("train", "dev", "test"):
        (small_corpus / "questions" / f"{name}.jsonl").unlink()
    with pytest.raises(DataError, match="no questions in train, dev"):
        export_questions(load_corpus(small_corpus), tmp_path)


@pytest.mark.parametrize("language", sorted(REFUSALS))
def test_a_refusal_is_known_as_one_in_every_language(language: str) -> None:
    """With or without its full stop, and with more after it; an answer is none."""
    assert is_refusal(refusal(language))
    assert is_refusal(refusal(language).rstrip(".").upper())
    assert is_refusal(refusal(language) + " 42")
    assert not is_refusal("42 " + refusal(language))
