"""Tune an embedder on a corpus's train questions: each with the passage of its evidence, and mined hard negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from comparison_app.device_lock import only_training
from comparison_app.errors import ComparisonError
from comparison_app.indexes import open_retriever, rag_config
from comparison_app.training import training_questions
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus
from data_prep.questions import Evidence, Question

if TYPE_CHECKING:
    from haystack import Document

    from finetune.embedder import EmbedderPair, EmbedderRecipe, EmbedderRecord
    from finetune.encoder_watching import OnStep

_LOOKED_AT = 20
"""Retrieved chunks among which hard negatives are looked for."""


def train_embedder_on_corpus(
    recipe: EmbedderRecipe,
    corpus: Corpus,
    workspace: Workspace,
    name: str,
    *,
    subset: str | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> EmbedderRecord:
    """Tune an embedder called `name` in the workspace's `models/`; use it with `embedder = "…/models/NAME"`."""
    from finetune.embedder import train_embedder
    from finetune.models import default_device
    from rag.config import BUNDLED_EMBEDDER
    from rag.embedding import bundled_folder

    source = bundled_folder() if recipe.model == BUNDLED_EMBEDDER else recipe.model
    with only_training(workspace, default_device(), name):
        pairs = embedder_pairs(recipe, corpus, workspace, training_questions(corpus, subset))
        output = workspace.path / "models" / name
        return train_embedder(recipe, pairs, output, source=source, resume=resume, on_step=on_step)


def embedder_pairs(
    recipe: EmbedderRecipe, corpus: Corpus, workspace: Workspace, questions: Sequence[Question]
) -> list[EmbedderPair]:
    """Return the pairs of the answerable `questions` whose evidence has a span.

    The positive is the chunk that holds most of the evidence; negatives are the best-ranked chunks of hybrid retrieval
    that hold none of it. Texts are those that the index embeds. Raises `ComparisonError` where nothing is left.
    """
    from finetune.embedder import EmbedderPair
    from rag.prompts import indexed_text

    config = rag_config()
    retriever = open_retriever(workspace, corpus, config)
    asked = [question for question in questions if question.answerable and question.evidence]
    found = retriever.retrieve_many([q.question for q in asked], [q.about for q in asked], top_k=_LOOKED_AT)
    chunks: dict[str, list[Document]] = {}
    pairs = []
    for question, ranked in zip(asked, found, strict=True):
        evidence = question.evidence[0]
        around = chunks.setdefault(evidence.document, retriever.store.chunks_of(evidence.document))
        positive = max(around, key=lambda chunk: _shared(chunk, evidence), default=None)
        negatives = [chunk for chunk in ranked if not any(_shared(chunk, item) for item in question.evidence)]
        if positive is None or not _shared(positive, evidence) or len(negatives) < recipe.negatives:
            continue
        texts = tuple(indexed_text(chunk, config.heading_context) for chunk in negatives[: max(1, recipe.negatives)])
        pairs.append(
            EmbedderPair(question.id, question.question, indexed_text(positive, config.heading_context), texts)
        )
    if not pairs:
        raise ComparisonError(f"corpus {corpus.name} has no train question with evidence in its documents")
    return pairs


def _shared(chunk: Document, evidence: Evidence) -> int:
    """Return how many characters of the evidence lie in a chunk; all of a chunk counts where evidence has no span."""
    if chunk.meta["document"] != evidence.document:
        return 0
    if evidence.start is None or evidence.end is None:
        return len(chunk.content or "")
    return max(0, min(int(chunk.meta["end"]), evidence.end) - max(int(chunk.meta["start"]), evidence.start))
