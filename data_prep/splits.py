"""Slices: how each question relates to what a model was trained on, recomputed and never taken on trust."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from data_prep.errors import DataError
from data_prep.questions import Question


def wording_key(question: str) -> str:
    """Return the form under which two wordings count as the same: case and white space ignored."""
    return " ".join(question.casefold().split())


def assign_slices(
    questions: Iterable[Question], trained: Sequence[Question], new_documents: Collection[str] = ()
) -> dict[str, str]:
    """Return the slice of each question, by id, for a model trained on exactly the questions `trained`.

    In this order: without an answer, `unanswerable`; a trained wording of a trained fact, `trained`; another wording
    of one, `paraphrase`; evidence in a document that was added later, `new-document`; evidence in a document of a
    trained fact, `trained-page`; else `unseen-page`. Where a new document has the id of a trained one, an id cannot
    tell the two texts apart: there the label `new-document` is kept.
    """
    known = _Trained(
        asked={_key(question) for question in trained if question.answerable},
        facts={question.fact for question in trained if question.answerable and question.fact is not None},
        pages={page for question in trained if question.answerable for page in _pages(question)},
    )
    return {question.id: _slice(question, known, frozenset(new_documents)) for question in questions}


@dataclass(frozen=True, slots=True)
class _Trained:
    """What a model was trained on: question keys, facts, and the documents that hold the facts."""

    asked: set[tuple[str, str]]
    facts: set[str | None]
    pages: set[str]


def _key(question: Question) -> tuple[str, str]:
    """Return a question's wording and fact; where the fact has no name, its documents stand for it."""
    return wording_key(question.question), question.fact or " ".join(sorted(_pages(question)))


def _pages(question: Question) -> tuple[str, ...]:
    """Return the documents of a question: those of its evidence, else the one it is asked of."""
    return question.documents or ((question.about,) if question.about else ())


def _slice(question: Question, trained: _Trained, new_documents: frozenset[str]) -> str:
    documents = set(_pages(question))
    replaces = documents <= trained.pages and question.slice != "new-document"
    if not question.answerable:
        return "unanswerable"
    if _key(question) in trained.asked:
        return "trained"
    if question.fact in trained.facts:
        return "paraphrase"
    if documents & new_documents and not replaces:
        return "new-document"
    return "trained-page" if documents & trained.pages else "unseen-page"


def check_slices(questions: Iterable[Question], computed: Mapping[str, str], name: str) -> None:
    """Raise `DataError` if a question's label disagrees with the slice recomputed from what `name` was trained on."""
    wrong = [q for q in questions if q.slice is not None and q.slice != computed[q.id]]
    if wrong:
        first = wrong[0]
        raise DataError(
            f"{len(wrong)} questions are labelled otherwise than {name}'s run record says, first {first.id!r}: "
            f"labelled {first.slice}, recomputed {computed[first.id]}; train on the questions that the labels mean, "
            f"name the subset it was trained on in the experiment, or run `versus questions check`"
        )
