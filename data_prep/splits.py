"""Slices: how each question relates to what a model was trained on, recomputed and never taken on trust."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

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
    answerable = [question for question in trained if question.answerable]
    wordings = {wording_key(question.question) for question in answerable}
    facts = {question.fact for question in answerable if question.fact is not None}
    pages = {document for question in answerable for document in question.documents}
    new = set(new_documents)
    return {question.id: _slice(question, wordings, facts, pages, new) for question in questions}


def _slice(question: Question, wordings: set[str], facts: set[str | None], pages: set[str], new: set[str]) -> str:
    documents = set(question.documents)
    replaces = documents <= pages and question.slice != "new-document"
    if not question.answerable:
        return "unanswerable"
    if wording_key(question.question) in wordings and (question.fact is None or question.fact in facts):
        return "trained"
    if question.fact in facts:
        return "paraphrase"
    if documents & new and not replaces:
        return "new-document"
    return "trained-page" if documents & pages else "unseen-page"


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
