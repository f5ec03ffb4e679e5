"""Pocket's examples cut down to the sentences that retrieval would show."""

from __future__ import annotations

import random
from dataclasses import replace

from finetune.pocket.excerpts import MOST_OTHERS, excerpted
from finetune.pocket.instruct import Example, Turn

TIMER = "The timer starts the charge at the hour you set."
PASSAGE = f"Charging takes nine hours at home. {TIMER} Keep the cable off the ground while it rains."
EXAMPLE = Example(
    question="When does the timer start the charge?",
    passages=(PASSAGE, "Wash the car by hand. Dry the charge port with a soft cloth."),
    answer=TIMER,
    kind="keywords",
    source="a manual",
    copied=(TIMER,),
    follow_ups=(Turn("How long does it take?", "Nine hours.", ()),),
)


def test_the_sentence_that_answers_stands_whole_among_others() -> None:
    """It is one of the sources in every draw, at any place; the others are other sentences, few, each once."""
    places = set()
    for seed in range(200):
        cut = excerpted(EXAMPLE, random.Random(seed))
        assert cut.passages.count(TIMER) == 1
        assert 1 <= len(set(cut.passages)) == len(cut.passages) <= MOST_OTHERS + 1
        assert all(source in " ".join(EXAMPLE.passages) for source in cut.passages)
        assert (cut.answer, cut.follow_ups) == (TIMER, ())
        places.add(cut.passages.index(TIMER))
    assert places == set(range(MOST_OTHERS + 1))


def test_what_is_to_be_declined_is_cut_down_alike() -> None:
    """A refusal's sources are no longer than an answer's, so that length tells nothing; nothing becomes empty."""
    declined = replace(EXAMPLE, answer="The documents do not say.", copied=())
    for seed in range(50):
        cut = excerpted(declined, random.Random(seed))
        assert 1 <= len(cut.passages) <= MOST_OTHERS + 1
        assert all(source in " ".join(EXAMPLE.passages) for source in cut.passages)
        assert cut.answer == declined.answer


def test_examples_without_sources_stay_as_they_are() -> None:
    """Closed-book examples have nothing to cut."""
    closed_book = Example("Q?", (), "A.", "closed", "s", ("A.",))
    assert excerpted(closed_book, random.Random(0)) is closed_book
