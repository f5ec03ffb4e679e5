"""Wordings made without a model."""

from __future__ import annotations

import random

from data_prep.questions import Question
from finetune.rewording import neighbours, reword, with_rewordings

CABLE = Question("c1", "Where do I keep the charging cable?", ("In the front compartment.",), fact="cable")
CABLE_TOO = Question("c2", "Which place is meant for the cord?", ("In the front compartment.",), fact="cable")
UNKNOWN = Question("u1", "Who painted the charging cable?")


def test_neighbours_are_words_of_like_meaning() -> None:
    """MiniLM's embeddings know synonyms; a word they do not hold has no neighbours."""
    assert {"handbook", "guide"} & {word for word, _ in neighbours("manual")}
    assert "hood" in {word for word, _ in neighbours("bonnet")}
    assert neighbours("qwxyz") == ()
    cosines = [cosine for _, cosine in neighbours("cable")]
    assert cosines == sorted(cosines, reverse=True)


def test_answerable_questions_are_reworded_and_unanswerable_ones_are_not() -> None:
    """Each question keeps its id and answer; the refusal is only trained on what was really asked."""
    found = with_rewordings([CABLE, CABLE_TOO, UNKNOWN], 6, seed=1)
    by_id = {key: [question.question for question in found if question.id == key] for key in ("c1", "c2", "u1")}
    assert [len(by_id[key]) for key in ("c1", "c2", "u1")] == [8, 8, 2]
    assert by_id["c1"].count(CABLE.question) >= 2
    assert set(by_id["u1"]) == {UNKNOWN.question}
    assert {question.answers for question in found if question.id == "c1"} == {CABLE.answers}
    assert len(set(by_id["c1"])) >= 5


def test_words_of_the_fact_are_mixed_in_and_never_another_facts() -> None:
    """Words mixed in come from the fact's own wordings and answer."""
    other = Question("o1", "What colour is the bonnet?", ("Vermilion.",), fact="colour")
    found = with_rewordings([CABLE, other], 60, seed=2)
    worded = " ".join(question.question for question in found if question.id == "c1")
    assert "compartment" in worded
    assert "vermilion" not in worded.lower()


def test_rewordings_are_the_seeds() -> None:
    """One seed gives one set of rewordings, another gives another."""
    assert with_rewordings([CABLE], 9, seed=1) == with_rewordings([CABLE], 9, seed=1)
    assert with_rewordings([CABLE], 9, seed=1) != with_rewordings([CABLE], 9, seed=2)


def test_a_rewording_is_never_empty() -> None:
    """However many words are left out, something is asked."""
    chance = random.Random(0)
    assert all(reword("Why?", [], chance) for _ in range(200))
