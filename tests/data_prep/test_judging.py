"""A model as judge: its replies read, kept, and asked for once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_prep.draft_journal import DraftJournal
from data_prep.drafting import DraftConfig, draft_questions
from data_prep.judging import ModelJudge, verdict_of
from data_prep.support import Claim
from tests.data_prep.test_drafting import Model
from tests.small_corpus import DOCUMENTS

CLAIMS = [Claim("How long?", f"{hours} hours.", "Charge it for 4 hours.") for hours in (4, 5)]


class _Judge:
    """Says yes to 4 hours and no to others; the replies of `faults` come first."""

    def __init__(self, *faults: Any) -> None:
        self.faults, self.asked = list(faults), 0

    def run(self, messages: list[Any]) -> dict[str, Any]:
        from haystack.dataclasses import ChatMessage

        self.asked += 1
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        text = fault or ("Yes." if "Answer: 4 hours" in (messages[-1].text or "") else "no")
        return {"replies": [ChatMessage.from_assistant(text, meta={"usage": {"prompt_tokens": 9}})]}


def test_verdicts_are_kept(tmp_path: Path) -> None:
    """The second time nothing is asked; another judge is asked anew."""
    model, path = _Judge(), tmp_path / "j.sqlite"
    assert ModelJudge(model, "j", path, in_flight=1).verdicts(CLAIMS) == [True, False]
    assert ModelJudge(model, "j", path, in_flight=1).verdicts(CLAIMS) == [True, False]
    assert model.asked == 2
    ModelJudge(model, "other", path, in_flight=1).verdicts(CLAIMS)
    assert model.asked == 4


def test_no_usable_reply_is_no_verdict_and_is_asked_again(tmp_path: Path) -> None:
    """An error and a reply that is neither yes nor no."""
    model, path = _Judge(ConnectionError("reset"), "It depends."), tmp_path / "j.sqlite"
    judge = ModelJudge(model, "j", path, in_flight=1)
    assert judge.verdicts(CLAIMS) == [None, None]
    assert judge.verdicts(CLAIMS) == [True, False]


def test_verdicts_do_not_count_as_drafts(tmp_path: Path) -> None:
    """The estimate of what drafting costs is made from drafts alone."""
    path = tmp_path / "j.sqlite"
    ModelJudge(_Judge(), "j", path).verdicts(CLAIMS)
    with DraftJournal(path) as journal:
        assert journal.mean_tokens() is None
    draft_questions({"battery": DOCUMENTS["battery"]}, Model(), path, DraftConfig(), model="m")
    with DraftJournal(path) as journal:
        assert journal.mean_tokens() == (100.0, 10.0)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Yes", True),
        ("**yes**, it does", True),
        ("No.", False),
        ("Нет", False),
        ("да", True),
        ("Notably", None),
        ("", None),
    ],
)
def test_a_reply_is_read_by_how_it_opens(reply: str, verdict: bool | None) -> None:
    """Whole words only."""
    assert verdict_of(reply) is verdict
