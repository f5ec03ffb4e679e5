"""`versus questions draft|review|split|check|export`: from documents to question files, with and without a model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from comparison_app.cli import main
from comparison_app.commands.questions_review import review_in_terminal
from data_prep.drafts import read_drafts
from data_prep.facts import read_facts
from data_prep.review import review_counts
from tests.comparison_app.chat_server import chat_server
from tests.comparison_app.command import VERSUS
from tests.data_prep.test_drafting import reply_about


def _json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    assert main(["questions", *map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_from_a_model_to_question_files(small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plan, draft, review, split, check, export: each step takes up what the one before left."""
    (small_corpus / "questions" / "facts.jsonl").unlink()
    with chat_server(reply_about, failures=1) as (url, seen):
        model = ["--model", "tiny", "--endpoint", url, "--input-price", "1", "--output-price", "2"]
        plan = _json(capsys, "draft", small_corpus, *model, "--plan")
        assert seen == []
        assert plan["to_ask"] == plan["sections"] > 4
        assert plan["cost"] > 0
        drafted = _json(capsys, "draft", small_corpus, *model, "--no-embedder")
        assert len(seen) == plan["sections"] + 1
        again = _json(capsys, "draft", small_corpus, *model, "--no-embedder")
        assert len(seen) == plan["sections"] + 1
    assert again["drafting"]["asked"] == 0
    assert drafted["drafting"]["cost"] > 0
    grounding = drafted["grounding"]
    assert grounding == again["grounding"]
    assert grounding["kept"] + sum(grounding["reasons"].values()) == grounding["drafts"] == 2 * plan["sections"]
    kept = read_drafts(small_corpus / "questions" / "drafts.jsonl")
    report = json.loads((small_corpus / "questions" / "grounding.json").read_text())
    assert len(kept) == grounding["kept"]
    assert all(draft["dropped"] for draft in report["dropped"])
    reviewed = _json(capsys, "review", small_corpus, "--reject", kept[0].id, "--accept-rest")
    assert reviewed["decisions"] == {"accepted": len(kept) - 1, "edited": 0, "rejected": 1, "open": 0}
    assert reviewed["facts"] == len(read_facts(small_corpus / "questions" / "facts.jsonl")) == len(kept) - 1
    split = _json(capsys, "split", small_corpus, "--unseen-documents", "cleaning", "--trained", "0.6")
    assert {"trained", "unanswerable"} <= set(split["slices"]["train"])
    assert split["leakage"]["test"]["leaks"] == {"exact": 0, "near": 0, "same-fact": 0, "same-evidence": 0}
    rows = _json(capsys, "export", small_corpus, "--into", tmp_path / "out", "--format", "axolotl")["rows"]
    assert rows["train.jsonl"] == sum(split["slices"]["train"].values())


def test_without_a_model_the_lesser_way_is_called_so(small_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rules draft; what they make is let in at once where that is asked for; the words say what it is worth."""
    (small_corpus / "questions" / "facts.jsonl").unlink()
    assert main(["questions", "draft", str(small_corpus), "--no-embedder", "--accept"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the lesser way" in out
    facts = read_facts(small_corpus / "questions" / "facts.jsonl")
    assert any(fact.answers for fact in facts)
    assert any(not fact.answers for fact in facts)


def test_the_terminal_takes_accept_edit_reject_skip_and_quit(
    small_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each answer is on disk before the next draft is shown; a wrong edit is told and asked again."""
    from rich.console import Console

    assert main(["questions", "draft", str(small_corpus), "--no-embedder"]) == 0
    capsys.readouterr()
    answers = iter(["x", "a", "e", "Which lamp?", "", "", "nowhere to be found in it", "r", "s", "q"])
    out = Console(record=True, width=100)
    assert review_in_terminal(small_corpus, lambda _: next(answers), out) == 2
    assert review_counts(small_corpus)["accepted"] == 1
    assert review_counts(small_corpus)["rejected"] == 1
    shown = out.export_text()
    assert "stands nowhere in document" in shown
    assert "found by exact" in shown
    answers = iter(["e", "Which lamp is it? | What lamp?", "", ""])
    assert review_in_terminal(small_corpus, lambda _: next(answers, "q"), Console(record=True)) == 1
    assert review_counts(small_corpus)["edited"] == 1
    assert list(answers) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["draft", "--endpoint", "http://127.0.0.1:9/v1"], "--model"),
        (["draft", "--documents", "nothing"], "no document nothing"),
        (["draft", "--model", "m", "--endpoint", "http://127.0.0.1:9/v1", "--api-key-env", "NO_SUCH_KEY"], "NO_SUCH"),
        (["review"], "versus questions draft"),
        (["split", "--subsets", "many"], "--subsets"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    small_corpus: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """Exit code 1, and the line names the mend."""
    assert main(["questions", arguments[0], str(small_corpus), *arguments[1:]]) == 1
    assert words in capsys.readouterr().err


def test_imported_questions_are_held_against_their_documents(
    small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evidence becomes a span; what the document does not carry is left out with its reason."""
    monkeypatch.setattr("comparison_app.question_models.grounding_embedder", lambda: None)
    rows = [
        {"question": "How long must the lamp charge?", "answer": "For 4 hours before first use.", "doc": "battery"},
        {"question": "How many levels has the lamp?", "answer": "It has 7 brightness levels.", "doc": "brightness"},
        {"question": "What does this feature do?", "answer": "It gives a red light of 5 lm.", "doc": "brightness"},
        {"question": "Who won the chess final?", "answer": None, "answerable": False},
    ]
    file = tmp_path / "qa.train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = _json(capsys, "import", file, "--into", small_corpus, "--ground")["grounding"]
    assert report["reasons"] == {"number-missing": 1, "not-alone": 1}
    left = [json.loads(line) for line in (small_corpus / "questions" / "train.jsonl").read_text().splitlines()]
    assert [row["question"] for row in left] == [rows[0]["question"], rows[3]["question"]]
    assert left[0]["evidence"][0]["start"] is not None
    assert _json(capsys, "check", small_corpus)["leakage"]["test"]["meant"]["exact"] == 1


@pytest.mark.slow
def test_a_killed_draft_goes_on_and_asks_nothing_twice(small_corpus: Path) -> None:
    """SIGKILL in the middle: only what was under way is asked again, and every section is drafted in the end."""
    for number in range(30):
        text = f"# Part {number}\n\nPart {number} of the lamp must be cleaned every {number + 2} weeks with a cloth.\n"
        (small_corpus / "documents" / f"part{number}.md").write_text(text)
    in_flight, killed, asked = 2, threading.Event(), list[str]()

    def reply(request: str) -> str:
        asked.append(request)
        if len(asked) > 12:  # the rest is answered after the kill alone, however busy the machine is
            killed.wait(120)
        return reply_about(request)

    with chat_server(reply) as (url, _):
        command = [*VERSUS, "questions", "draft", str(small_corpus), "--model", "m", "--endpoint", url, "--json"]
        command += ["--no-embedder", "--in-flight", str(in_flight)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + 200
        while len(asked) < 12 + in_flight and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len(asked)
        killed.set()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        drafting = json.loads(done.stdout)["drafting"]
    assert 12 <= before < drafting["sections"]
    assert drafting["failed"] == {}
    assert drafting["known"] + drafting["asked"] == drafting["sections"]
    assert len(set(asked)) == drafting["sections"]
    assert len(asked) - len(set(asked)) <= in_flight
