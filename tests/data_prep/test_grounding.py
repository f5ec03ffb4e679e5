"""Grounding: what stays, and the reason of everything that does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from data_prep.drafts import Draft
from data_prep.errors import DataError
from data_prep.grounding import GroundingConfig, ground_drafts
from data_prep.questions import Evidence
from data_prep.standing_alone import why_not_alone
from data_prep.support import Claim, best_window, numbers, support_shares
from tests.small_corpus import DOCUMENTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _draft(name: str, question: str, answer: str, quote: str, document: str = "battery", **more: object) -> Draft:
    start = DOCUMENTS[document].find(quote) if quote else -1
    evidence = (Evidence(document, start, start + len(quote)),) if start >= 0 else ()
    draft = Draft(name, document, (question,), answers=(answer,) if answer else (), quote=quote, evidence=evidence)
    return replace(draft, **more)  # type: ignore[arg-type]


CHARGE = "Charge the lamp for 4 hours before its first use."
GOOD = _draft("good", "How long must the lamp charge before its first use?", "Charge the lamp for 4 hours.", CHARGE)
NEAR_MISS = Draft("near", "battery", ("Can the lamp charge a phone?",), category="near-miss")


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        (_draft("a", "How long does the lamp last?", "Ten years.", "It lasts for ten years."), "no-evidence"),
        (replace(GOOD, id="b", evidence=(Evidence("battery", 0, 99_999),)), "no-evidence"),
        (replace(GOOD, id="c", evidence=(Evidence("elsewhere", 0, 5),)), "no-evidence"),
        (_draft("d", "What colour has the lamp?", "The document does not say.", CHARGE), "declines"),
        (_draft("e", "How long does this feature take?", "It takes 4 hours.", CHARGE), "not-alone"),
        (_draft("f", "How long must the new lamp charge?", "Charge it for 6 hours.", CHARGE), "number-missing"),
        (_draft("g", "Where is the lamp made?", "A family firm in Norway builds it.", CHARGE), "not-supported"),
        (replace(GOOD, id="h"), "duplicate"),
        (replace(GOOD, id="i", wordings=("Before its first use, how long must the lamp charge?",)), "near-duplicate"),
        (
            replace(NEAR_MISS, id="j", wordings=("how long MUST the lamp charge before first use",)),
            "answered-elsewhere",
        ),
    ],
)
def test_each_fault_is_dropped_under_its_reason(draft: Draft, reason: str) -> None:
    """One sound draft and one with a fault: the sound one stays, the other is counted under what is wrong."""
    kept, report = ground_drafts([GOOD, draft], DOCUMENTS)
    assert [item.id for item in kept] == ["good"]
    assert report.reasons == {reason: 1}
    assert [item.id for item in report.dropped] == [draft.id]
    assert (report.drafts, report.kept) == (2, 1)


def test_the_same_words_with_other_answers_are_ambiguous() -> None:
    """Neither of two pages' "What should be done?" can be answered without knowing the page."""
    one = _draft("one", "What must be done first?", "Charge the lamp for 4 hours.", CHARGE)
    wipe = "Wipe the shade with a damp cloth."
    two = _draft("two", "What must be done first?", "Wipe the shade.", wipe, "cleaning")
    kept, report = ground_drafts([one, GOOD, two], DOCUMENTS)
    assert [item.id for item in kept] == ["good"]
    assert report.reasons == {"ambiguous": 2}


def test_a_wording_that_points_at_the_text_goes_and_the_fact_stays() -> None:
    """Single wordings are taken out and counted; the paraphrase takes the place of the last."""
    draft = replace(GOOD, wordings=("What does the section say?",), paraphrases=("How long to fill the new lamp?",))
    (kept,), report = ground_drafts([draft], DOCUMENTS)
    assert kept.wordings == ("How long to fill the new lamp?",)
    assert kept.paraphrases == ()
    assert report.wordings_dropped == 1


def test_an_unanswerable_near_miss_stays() -> None:
    """It needs no evidence."""
    kept, _ = ground_drafts([GOOD, NEAR_MISS], DOCUMENTS)
    assert [item.id for item in kept] == ["good", "near"]


class _Judge:
    def __init__(self, verdict: bool | None, near_miss: bool | None) -> None:
        self._verdict, self._near_miss = verdict, near_miss

    def verdicts(self, claims: Sequence[Claim]) -> list[bool | None]:
        return [self._near_miss if claim.question == NEAR_MISS.wordings[0] else self._verdict for claim in claims]


@pytest.mark.parametrize(
    ("judge", "kept", "reasons"),
    [
        (_Judge(True, False), ["good", "near"], {}),
        (_Judge(False, False), ["near"], {"judge-says-no": 1}),
        (_Judge(None, False), ["near"], {"judge-failed": 1}),
        (_Judge(True, True), ["good"], {"answered-elsewhere": 1}),
    ],
)
def test_a_judge_has_the_last_word(judge: _Judge, kept: list[str], reasons: dict[str, int]) -> None:
    """What it denies goes, and so does what it gave no usable reply about."""
    stayed, report = ground_drafts([GOOD, NEAR_MISS], DOCUMENTS, judge=judge)
    assert [item.id for item in stayed] == kept
    assert report.reasons == reasons


def _embed_by_first_letter(texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts with the same first letter mean the same."""
    import numpy as np

    return np.eye(128, dtype=np.float32)[[ord(text[0].lower()) % 128 for text in texts]]


def test_meaning_decides_where_words_do_not_and_never_against_numbers() -> None:
    """An answer in other words is carried if its embedding says so; one with another number is not."""
    passage = "Fill the accumulator for 4 hours."
    claims = [
        Claim("How?", "Feed its cell.", passage),
        Claim("How?", "Feed its cell for 5 hours.", passage),
        Claim("How?", "Never mind.", passage),
    ]
    assert support_shares(claims) == [0.0, 0.0, 0.0]
    assert support_shares(claims, _embed_by_first_letter) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,000 km or 2,50 EUR", {"1000", "2.5"}),
        ("1. Wait three minutes\n2. Go", {"3"}),
        ("от двух до 5 °C", {"2", "5"}),
        ("10 500 rpm in 2024", {"10500", "2024"}),
    ],
)
def test_numbers_have_one_form(text: str, found: set[str]) -> None:
    """Groups, commas and words are one; the numbers of list items are none."""
    assert numbers(text) == found


def test_evidence_is_found_for_an_answer_without_a_quote() -> None:
    """The shortest stretch that carries the answer's words and numbers."""
    text = DOCUMENTS["brightness"]
    span = best_window("How long does night mode last?", "It ends by itself after 8 hours with a red light.", text)
    assert span is not None
    assert text[slice(*span)] == "It gives a red light of 5 lm and ends by itself after 8 hours."
    assert best_window("Who?", "Zebras.", text) is None


@pytest.mark.parametrize(
    ("question", "alone"),
    [
        ("What should you do when this alert is displayed?", False),
        ("How is the feature switched on?", False),
        ("What is mentioned in the text about charging?", False),
        ("Does it have a fan?", False),
        ("Что говорится в тексте о зарядке?", False),
        ("Как он включается?", False),
        ("?!", False),
        ("How long does it take to charge the lamp?", True),
        ("Is it safe to charge the lamp in the rain?", True),
        ("What does alert BMS_a066 mean, and when is the alert shown?", True),
        ("Как зарядить лампу?", True),
    ],
)
def test_a_question_must_make_sense_alone(question: str, alone: bool) -> None:
    """Pointers at the text and pronouns for something unsaid give it away; an "it" for a clause does not."""
    assert (why_not_alone(question) is None) is alone


def test_thresholds_that_make_no_sense_are_refused() -> None:
    """All of them are named at once."""
    with pytest.raises(DataError, match=r"supported_share, answered"):
        GroundingConfig(supported_share=0, answered=2)


def test_a_language_without_rules_is_told_in_the_report() -> None:
    """Whether a question stands alone is judged by rules of English and Russian; in French the report says so."""
    _, report = ground_drafts([GOOD], DOCUMENTS)
    assert report.unchecked == ()
    _, report = ground_drafts([GOOD], DOCUMENTS, config=GroundingConfig(language="fr"))
    assert "'fr'" in report.unchecked[0]
