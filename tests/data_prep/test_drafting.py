"""Drafting: what is asked, kept, tried again and located; and the rules that work without a model."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.draft_replies import drafts_of_reply, parse_reply
from data_prep.draft_rules import draft_by_rules
from data_prep.drafting import GIVE_UP_AFTER, DraftConfig, draft_questions, estimate_drafting
from data_prep.drafts import read_drafts, write_drafts
from data_prep.errors import DataError, QuestionError
from data_prep.grounding import ground_drafts
from data_prep.sections import sections
from tests.small_corpus import DOCUMENTS


class Model:
    """A Haystack chat generator with replies of our own: quotes the section's first sentence; `faults` go first."""

    def __init__(self, faults: dict[int, Any] | None = None, always: str | None = None) -> None:
        self.faults, self.always = dict(faults or {}), always
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def run(self, messages: list[Any]) -> dict[str, Any]:
        from haystack.dataclasses import ChatMessage

        section = next(message.text for message in messages if message.is_from("user"))
        with self._lock:
            self.asked.append(section)
            fault = self.faults.pop(len(self.asked), None)
        if isinstance(fault, BaseException):
            raise fault
        text = self.always or fault or reply_about(section)
        meta = {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}
        return {"replies": [ChatMessage.from_assistant(text, meta=meta)]}


def reply_about(request: str) -> str:
    """Reply as a good model would: the section's first sentence is the fact."""
    heading = request.split("Section: ")[1].split("\n")[0]
    body = request.split("==========")[1]
    sentence = next(line for line in body.splitlines() if line.strip() and not line.startswith("#"))
    fact = {
        "questions": [f"What does the lamp manual say of {heading}?", f"Which rule holds for {heading} of the lamp?"],
        "paraphrase": f"Tell me about {heading}.",
        "answer": sentence,
        "quote": sentence,
    }
    return (
        "Here it is:\n```json\n" + json.dumps({"facts": [fact], "unanswerable": [f"Who designed {heading}?"]}) + "\n```"
    )


def test_each_section_is_asked_once_and_its_evidence_is_located(tmp_path: Path) -> None:
    """A second run asks nothing and gives the same drafts, as does the first after reading them back."""
    model, journal = Model(), tmp_path / "drafting.sqlite"
    run = draft_questions(DOCUMENTS, model, journal, DraftConfig(), model="m")
    assert run.asked == run.sections == len(model.asked) > 4
    facts = [draft for draft in run.drafts if draft.answerable]
    assert len(facts) == run.sections
    for draft in facts:
        (span,) = draft.evidence
        assert DOCUMENTS[span.document][span.start : span.end] == draft.quote
    assert sum(draft.category == "near-miss" for draft in run.drafts) == run.sections
    again = draft_questions(DOCUMENTS, model, journal, DraftConfig(), model="m")
    assert (again.asked, again.known, again.drafts) == (0, run.sections, run.drafts)
    write_drafts(tmp_path / "drafts.jsonl", run.drafts)
    assert read_drafts(tmp_path / "drafts.jsonl") == run.drafts


def test_a_failing_and_a_malformed_reply_are_tried_again(tmp_path: Path) -> None:
    """An error and a reply that is no JSON cost one more request each; nothing is lost."""
    model = Model({1: ConnectionError("reset"), 3: "I'd rather not.", 5: '{"facts": [{"questions": []}]}'})
    run = draft_questions(DOCUMENTS, model, tmp_path / "j.sqlite", DraftConfig(in_flight=1), model="m")
    assert run.failed == {}
    assert len(model.asked) == run.sections + 3
    assert sum(draft.answerable for draft in run.drafts) == run.sections
    assert run.prompt_tokens == 100 * (run.sections + 2)


def test_a_section_that_keeps_failing_is_told_and_asked_by_the_next_run(tmp_path: Path) -> None:
    """It is listed with its reason; the next run asks it alone."""
    model = Model(dict.fromkeys((1, 2, 3), "no"))
    config, journal = DraftConfig(in_flight=1, attempts=3), tmp_path / "j.sqlite"
    run = draft_questions(DOCUMENTS, model, journal, config, model="m")
    assert list(run.failed.values()) == ["no JSON object in the reply"]
    again = draft_questions(DOCUMENTS, model, journal, config, model="m")
    assert (again.asked, again.failed) == (1, {})
    assert sum(draft.answerable for draft in again.drafts) == run.sections


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """What came before the interruption, in flight included, is not asked again."""
    model, journal = Model({4: KeyboardInterrupt()}), tmp_path / "j.sqlite"
    with pytest.raises(KeyboardInterrupt):
        draft_questions(DOCUMENTS, model, journal, DraftConfig(in_flight=1), model="m")
    assert len(model.asked) == 4
    again = draft_questions(DOCUMENTS, model, journal, DraftConfig(in_flight=1), model="m")
    assert again.known == 3
    assert len(model.asked) == 4 + again.sections - 3


def test_a_server_that_always_fails_is_given_up(tmp_path: Path) -> None:
    """Not every section of a long corpus is asked of a server that is down; the message names its reason."""
    documents = {f"d{number}": f"# Page {number}\n\n" + "word " * 20 for number in range(3 * GIVE_UP_AFTER)}
    model = Model(always="no")
    with pytest.raises(DataError, match="no JSON object in the reply"):
        draft_questions(documents, model, tmp_path / "j.sqlite", DraftConfig(in_flight=1, attempts=1), model="m")
    assert len(model.asked) == GIVE_UP_AFTER


def test_the_cost_is_told_before_and_after_and_a_limit_is_kept(tmp_path: Path) -> None:
    """After some replies the estimate is made from their tokens; drafting stops once it has spent the limit."""
    config = DraftConfig(in_flight=1, input_price=10.0, output_price=100.0, max_cost=0.005)
    journal = tmp_path / "j.sqlite"
    before = estimate_drafting(DOCUMENTS, journal, config, model="m")
    assert before.to_ask == before.sections > 0
    assert before.cost > 0
    assert not before.measured
    run = draft_questions(DOCUMENTS, Model(), journal, config, model="m")
    assert (run.asked, run.unasked) == (3, run.sections - 3)
    assert run.cost == pytest.approx(3 * (100 * 10 + 10 * 100) / 1e6)
    after = estimate_drafting(DOCUMENTS, journal, config, model="m")
    assert (after.measured, after.to_ask, after.prompt_tokens) == (True, run.unasked, 100 * run.unasked)


def test_a_changed_document_or_another_model_is_asked_anew(tmp_path: Path) -> None:
    """Replies belong to the text and the model that they came from."""
    model, journal = Model(), tmp_path / "j.sqlite"
    run = draft_questions(DOCUMENTS, model, journal, DraftConfig(), model="m")
    changed = {**DOCUMENTS, "warranty": DOCUMENTS["warranty"].replace("3 years", "4 years")}
    assert draft_questions(changed, model, journal, DraftConfig(), model="m").asked == 1
    assert draft_questions(DOCUMENTS, model, journal, DraftConfig(), model="other").asked == run.sections


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "no JSON object"),
        ("{broken", "broken JSON"),
        ('{"facts": {}}', "must be lists"),
        ('{"facts": [{"questions": ["q"], "answer": "", "quote": "x"}]}', "no fact has"),
        ('{"unanswerable": []}', "must be lists"),
    ],
)
def test_a_reply_that_is_not_what_was_asked_for_says_why(reply: str, reason: str) -> None:
    """The reason goes back to the model and into the report."""
    with pytest.raises(ValueError, match=reason):
        parse_reply(reply)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["facts", "questions", "answer", "quote", "paraphrase", "unanswerable"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | _JSON.map(json.dumps) | st.sampled_from(["{" + '"a":[' * 50_000, "```json\n{}```"]))
def test_no_reply_can_stop_the_drafting(reply: str) -> None:
    """Whatever a model writes is drafts, or a `ValueError` with a reason; nothing else comes out."""
    section = sections("battery", DOCUMENTS["battery"])[0]
    try:
        read = parse_reply(reply)
    except ValueError as error:
        assert str(error)
    else:
        for draft in drafts_of_reply(read, section, DOCUMENTS["battery"], wordings=2, origin="m"):
            assert draft.wordings


def test_drafts_that_cannot_be_read_name_file_and_line(tmp_path: Path) -> None:
    """A broken line is an error, and so is a file that is not there."""
    path = tmp_path / "questions" / "drafts.jsonl"
    with pytest.raises(QuestionError, match="versus questions draft"):
        read_drafts(path)
    path.parent.mkdir()
    path.write_text('{"id": "a", "document": "d", "wordings": []}\n')
    with pytest.raises(QuestionError, match=r"drafts\.jsonl, line 1: a draft needs a wording"):
        read_drafts(path)


def test_rules_ask_for_definitions_rows_and_headings() -> None:
    """Without a model: each draft's span is its answer's place, and grounding finds nothing wrong with most."""
    text = (
        "# Lamp X\n\nThe dimmer ring is a turning switch around the neck of the lamp.\n\n"
        "## How to charge the lamp\n\nPut it on its plate and wait until the light goes out.\n\n"
        "| Level | Output |\n|---|---|\n| Low beam | 40 lm |\n| High beam | 800 lm |\n"
    )
    drafts = draft_by_rules({"x": text})
    asked = {draft.wordings[0]: draft.answers for draft in drafts}
    assert asked["What is dimmer ring?"] == ("The dimmer ring is a turning switch around the neck of the lamp.",)
    assert asked["How do I charge the lamp (Lamp X)?"] == ("Put it on its plate and wait until the light goes out.",)
    assert asked["What does Lamp X give as “output” for “High beam”?"] == ("800 lm",)
    assert any(draft.category == "off-topic" and not draft.answerable for draft in drafts)
    kept, report = ground_drafts(drafts, {"x": text})
    assert len(kept) == len(drafts), report.reasons
