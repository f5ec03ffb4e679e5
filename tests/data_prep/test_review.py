"""Review: decisions that last, edits that must hold, and what becomes of accepted drafts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.drafts import Draft, drafts_path, write_drafts
from data_prep.errors import DataError, QuestionError
from data_prep.facts import read_facts
from data_prep.locating import locate
from data_prep.questions import Evidence
from data_prep.review import decide, load_drafts, publish_facts, review_counts
from tests.small_corpus import DOCUMENTS

CHARGE = "Charge the lamp for 4 hours before its first use."


@pytest.fixture
def corpus(small_corpus: Path) -> Path:
    """The lamp's corpus with three drafts: two facts and a near-miss."""
    found = locate(CHARGE, DOCUMENTS["battery"])
    assert found is not None
    span = Evidence("battery", found.start, found.end)
    asked = {"a": "How long must the lamp charge?", "b": "What is needed before the first use of the lamp?"}
    drafts = [
        Draft(name, "battery", (text,), answers=("4 hours.",), quote=CHARGE, evidence=(span,), located="exact")
        for name, text in asked.items()
    ]
    near_miss = Draft("c", "battery", ("Can the lamp charge a phone?",), category="near-miss")
    write_drafts(drafts_path(small_corpus), [*drafts, near_miss])
    return small_corpus


def test_a_draft_is_shown_with_its_evidence_where_it_stands(corpus: Path) -> None:
    """Before, evidence and after are one stretch of the document; a near-miss has none."""
    first, _, near_miss = load_drafts(corpus)
    assert first.evidence == CHARGE
    assert first.before + first.evidence + first.after in DOCUMENTS["battery"]
    assert (near_miss.before, near_miss.evidence, near_miss.after) == ("", "", "")
    assert review_counts(corpus) == {"accepted": 0, "edited": 0, "rejected": 0, "open": 3}


def test_the_last_decision_counts_and_accepted_drafts_become_facts(corpus: Path) -> None:
    """Facts written by hand stay; a rejected or reopened draft leaves the file; undecided ones are let in if asked."""
    before = read_facts(corpus / "questions" / "facts.jsonl")
    decide(corpus, "a", "accept")
    decide(corpus, "b", "accept")
    decide(corpus, "b", "reject")
    assert [item.state for item in load_drafts(corpus)] == ["accepted", "rejected", None]
    assert publish_facts(corpus) == len(before) + 1
    (fact,) = (fact for fact in read_facts(corpus / "questions" / "facts.jsonl") if fact not in before)
    assert (fact.id, fact.answers) == ("a", ("4 hours.",))
    assert publish_facts(corpus, open_too=True) == len(before) + 2
    decide(corpus, "a", "reopen")
    assert publish_facts(corpus) == len(before)
    assert read_facts(corpus / "questions" / "facts.jsonl") == before


def test_an_edit_moves_the_evidence_with_the_quote(corpus: Path) -> None:
    """The edited draft is what is shown, kept and published."""
    quote = "The charging light glows amber"
    item = decide(corpus, "a", "edit", {"wordings": ["Which colour?"], "answers": ["Amber."], "quote": quote})
    assert (item.state, item.evidence) == ("edited", quote)
    assert load_drafts(corpus)[0] == item
    publish_facts(corpus)
    (fact,) = (fact for fact in read_facts(corpus / "questions" / "facts.jsonl") if fact.id == "a")
    assert fact.wordings == ("Which colour?",)
    assert DOCUMENTS["battery"][fact.evidence[0].start : fact.evidence[0].end] == quote


@pytest.mark.parametrize(
    ("name", "decision", "edited", "message"),
    [
        ("zz", "accept", None, "no draft 'zz'"),
        ("a", "maybe", None, "decision is 'maybe'"),
        ("a", "edit", None, "an edit needs"),
        ("a", "accept", {"answers": ["x"]}, "only an edit"),
        ("a", "edit", {"quote": "It floats on water."}, "stands nowhere"),
        ("a", "edit", {"id": "b"}, "id cannot be edited"),
        ("a", "edit", {"wordings": []}, "needs a wording"),
        ("c", "edit", {"answers": ["Yes."]}, "an answer needs evidence"),
    ],
)
def test_a_decision_that_cannot_be_is_refused(
    corpus: Path, name: str, decision: str, edited: dict[str, object] | None, message: str
) -> None:
    """Nothing is recorded then."""
    with pytest.raises(DataError, match=message):
        decide(corpus, name, decision, edited)
    assert not (corpus / "questions" / "decisions.jsonl").exists()


def test_a_line_cut_short_by_a_kill_counts_as_not_written(corpus: Path) -> None:
    """The decisions before it hold, and the next one does not run into it."""
    decide(corpus, "a", "accept")
    path = corpus / "questions" / "decisions.jsonl"
    with path.open("a") as file:
        file.write('{"id": "b", "deci')
    assert [item.state for item in load_drafts(corpus)] == ["accepted", None, None]
    decide(corpus, "c", "reject")
    assert [item.state for item in load_drafts(corpus)] == ["accepted", None, "rejected"]
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "c"]


def test_a_broken_decision_names_file_and_line(corpus: Path) -> None:
    """A line in the middle that is none is an error."""
    (corpus / "questions" / "decisions.jsonl").write_text('{"decision": "accept"}\n{"id": "a", "decision": "accept"}\n')
    with pytest.raises(QuestionError, match=r"decisions\.jsonl, line 1"):
        load_drafts(corpus)
