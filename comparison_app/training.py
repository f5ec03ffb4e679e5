"""Train an adapter on a corpus's questions: the subset, the passages for training with context, where it goes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from comparison_app.errors import ComparisonError
from comparison_app.indexes import open_retriever, rag_config
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus
from data_prep.questions import Evidence, Question

if TYPE_CHECKING:
    from haystack import Document

    from finetune.config import Recipe
    from finetune.run_record import RunRecord
    from finetune.training import TrainingStep

Passages = Callable[[Question], list[str]]


def train_on_corpus(
    recipe: Recipe,
    corpus: Corpus,
    workspace: Workspace,
    name: str,
    *,
    subset: str | None = None,
    resume: bool = False,
    on_step: Callable[[TrainingStep], None] | None = None,
) -> RunRecord:
    """Train an adapter called `name` on the corpus's train questions (or a subset's) and return its run record."""
    from finetune.training import train_adapter

    questions = training_questions(corpus, subset)
    passages = passages_for(recipe, corpus, workspace) if recipe.data.context else None
    return train_adapter(
        recipe,
        questions,
        workspace.adapters / name,
        dev=corpus.questions("dev") if recipe.tracking.eval_every else (),
        on_step=on_step,
        resume=resume,
        passages=passages,
    )


def training_questions(corpus: Corpus, subset: str | None = None) -> list[Question]:
    """Return the train questions, or those of a nested subset's facts."""
    questions = corpus.questions("train")
    if subset is not None:
        facts = corpus.subset(subset)
        questions = [question for question in questions if question.fact in facts]
    if not questions:
        raise ComparisonError(
            f"corpus {corpus.name} has no train questions; bring some with "
            f"`versus questions import FILE --into {corpus.name}`"
        )
    return questions


def passages_for(recipe: Recipe, corpus: Corpus, workspace: Workspace) -> Passages:
    """Return the function that gives a question its passages: the gold one among what retrieval finds for it.

    This is the data of RAFT (Zhang et al. 2024, arXiv 2403.10131): the gold passage stands where retrieval ranks it
    (at a seeded place if it is not found), beside `distractors` others, and is withheld from a share of the questions.
    """
    from rag.prompts import passage_text

    retriever = open_retriever(workspace, corpus, rag_config())
    questions = corpus.questions("train") + corpus.questions("dev")
    found = retriever.retrieve_many(
        [question.question for question in questions], [question.about for question in questions], top_k=20
    )
    ranked = {question.id: chunks for question, chunks in zip(questions, found, strict=True)}
    chunks = retriever.store.filter_documents()

    def passages(question: Question) -> list[str]:
        rng = random.Random(f"{recipe.optimisation.seed} {question.id}")
        gold = _gold(question, ranked[question.id], chunks)
        others = [chunk for chunk in ranked[question.id] if not _holds_evidence(chunk, question)]
        distractors = others[: recipe.data.distractors]
        if gold is None or rng.random() < recipe.data.without_gold:
            chosen = others[: recipe.data.distractors + 1]
        else:
            place = _rank(gold, ranked[question.id], others)
            place = rng.randint(0, len(distractors)) if place is None else min(place, len(distractors))
            chosen = [*distractors[:place], gold, *distractors[place:]]
        return [passage_text(chunk) for chunk in chosen]

    return passages


def data_key(recipe: Recipe, questions: Sequence[Question], fingerprint: str) -> str:
    """Return a hash of all that decides how an adapter comes out: recipe, questions, base model."""
    digest = hashlib.sha256(f"{fingerprint}\n{recipe.as_dict()!r}\n".encode())
    for question in questions:
        digest.update(f"{question!r}\n".encode())
    return digest.hexdigest()


def _gold(question: Question, ranked: Sequence[Document], chunks: Sequence[Document]) -> Document | None:
    """Return the best-ranked chunk that holds the evidence, any such chunk if retrieval missed it, else None."""
    found = next((chunk for chunk in ranked if _holds_evidence(chunk, question)), None)
    if found is None and question.evidence:
        found = next((chunk for chunk in chunks if _holds_evidence(chunk, question)), None)
    return found


def _holds_evidence(chunk: Document, question: Question) -> bool:
    """Tell whether a chunk overlaps any evidence span of a question."""
    return any(
        chunk.meta["document"] == item.document and _overlaps(chunk.meta["start"], chunk.meta["end"], item)
        for item in question.evidence
    )


def _overlaps(start: int, end: int, evidence: Evidence) -> bool:
    """Tell whether the characters `start:end` meet the evidence; evidence without a span is the whole document."""
    return evidence.start is None or evidence.end is None or (start < evidence.end and evidence.start < end)


def _rank(gold: Document, ranked: Sequence[Document], others: Sequence[Document]) -> int | None:
    """Return how many of `others` stand before `gold` in `ranked`; None if it is not there."""
    ids = [chunk.id for chunk in ranked]
    if gold.id not in ids:
        return None
    before = set(ids[: ids.index(gold.id)])
    return sum(chunk.id in before for chunk in others)
