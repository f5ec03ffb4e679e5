"""When an index declines: calibrated once, kept beside it, made anew where what is kept is old or damaged, and told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comparison_app import abstention
from comparison_app.abstention import calibration_of, described
from comparison_app.indexes import index_path, open_retriever
from comparison_app.workspace import Workspace
from data_prep.corpus import load_corpus
from rag.abstention import AbstentionCalibration
from rag.config import RagConfig
from tests.comparison_app.command import versus

CONFIG = RagConfig()


@pytest.fixture
def corpus(small_corpus: Path) -> Path:
    """The small corpus whose dev questions are those of its training: both kinds, answerable and not."""
    questions = small_corpus / "questions"
    (questions / "dev.jsonl").write_text((questions / "train.jsonl").read_text())
    return small_corpus


def _found(corpus: Path, workspace: Path) -> AbstentionCalibration:
    opened = load_corpus(corpus)
    found = calibration_of(CONFIG, open_retriever(Workspace(workspace), opened, CONFIG), opened)
    assert found is not None
    return found


def _kept(corpus: Path, workspace: Path) -> Path:
    return index_path(Workspace(workspace), load_corpus(corpus), CONFIG).parent / "abstention.json"


def _with_threshold(path: Path, threshold: float) -> str:
    """Return the file as another calibration would have written it."""
    held = json.loads(path.read_text())
    for key, entry in held.items():
        entry["found"]["threshold"] = threshold
        entry["check"] = abstention._check(key, entry["found"])
    return json.dumps(held)


def test_a_calibration_is_kept_until_it_is_damaged(corpus: Path, tmp_path: Path) -> None:
    """What stands in the file is believed; with one byte flipped, cut off or gone it is calibrated and written anew."""
    first = _found(corpus, tmp_path)
    path = _kept(corpus, tmp_path)
    whole = path.read_bytes()
    path.write_text(_with_threshold(path, 0.125))
    assert _found(corpus, tmp_path).threshold == 0.125
    digit = whole.index(b'"threshold": 0.') + len(b'"threshold": 0.')
    flipped = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in (9, digit)]
    older = json.dumps({key: entry["found"] for key, entry in json.loads(whole).items()}).encode()
    for damaged in (*flipped, b"[]", whole[: len(whole) // 2], b"\xff", older):
        path.write_bytes(damaged)
        assert _found(corpus, tmp_path) == first
        assert path.read_bytes().rstrip().endswith(b"}")
        assert json.loads(path.read_bytes()).items() >= json.loads(whole).items()


def test_a_calibration_by_other_signals_is_made_anew(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older version found with other signals or weights, or of other dev questions, is not used."""
    first = _found(corpus, tmp_path)
    path = _kept(corpus, tmp_path)
    path.write_text(_with_threshold(path, 0.125))
    with monkeypatch.context() as older:
        older.setattr(abstention, "_MADE_BY", (("cosine", "coverage"), None))
        assert _found(corpus, tmp_path) == first
    assert _found(corpus, tmp_path).threshold == 0.125
    dev = corpus / "questions" / "dev.jsonl"
    dev.write_text(dev.read_text() + "\n")
    assert _found(corpus, tmp_path) == first


def test_where_nothing_can_be_written_it_is_calibrated_all_the_same(corpus: Path, tmp_path: Path) -> None:
    """A full disk or a folder that may only be read (here: a folder in the file's place) costs time and no answer."""
    first = _found(corpus, tmp_path)
    path = _kept(corpus, tmp_path)
    path.unlink()
    (path / "in-the-way").mkdir(parents=True)
    assert _found(corpus, tmp_path) == first


@pytest.mark.slow
def test_index_says_when_it_will_decline(corpus: Path, tmp_path: Path) -> None:
    """`versus index` prints where the line was drawn and what that costs; --json holds it with its ROC and weights.

    Documents in a language that the embedder was not trained for are warned of.
    """
    done = versus("index", corpus, "--workspace", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    found = AbstentionCalibration.from_dict(json.loads(done.stdout)["abstention"])
    assert found == _found(corpus, tmp_path)
    assert found.roc[0] == (1.0, 1.0)
    assert found.roc[-1] == (0.0, 0.0)
    (corpus / "documents" / "guarantee.md").write_text("# Гарантия\n\n" + "Гарантия на лампу действует три года. " * 9)
    told = versus("index", corpus, "--workspace", tmp_path)
    assert " ".join(told.stdout.split()).endswith(described(_found(corpus, tmp_path)))
    assert "1 are not in a language that the embedder" in " ".join(told.stderr.split())
