"""Candidates in a new order: by a cross-encoder, or by the best sentence of each under the embedder.

A cross-encoder reads query and passage together (Nogueira and Cho 2019, arXiv 1901.04085): slower than fusion, so it
sees the candidates only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from rag.config import RagConfig
from rag.embedding import quiet_adviser
from rag.errors import RagError
from rag.prompts import heading_line, passage_text
from rag.remembering import remembered_vectors

if TYPE_CHECKING:
    from haystack import Document

    from rag.embedding import Embedder

SENTENCES = "sentences"
"""The reranker that needs no model but the embedder."""


class Reranker(Protocol):
    """What scores passages for a query; higher is better."""

    def scores(self, query: str, chunks: Sequence[Document]) -> list[float]:
        """Return one score per chunk."""
        ...


def reranker_for(config: RagConfig, embedder: Embedder) -> Reranker | None:
    """Return the reranker that `config` names, or None."""
    if config.reranker is None:
        return None
    return SentenceReranker(embedder) if config.reranker == SENTENCES else CrossEncoderReranker(config.reranker)


def rerank(query: str, chunks: Sequence[Document], reranker: Reranker) -> list[Document]:
    """Return `chunks` ordered by `reranker`, whose score becomes theirs and stands in `meta["scores"]["rerank"]`."""
    if not chunks or not query.strip():
        return list(chunks)
    values = reranker.scores(query, chunks)
    order = sorted(range(len(chunks)), key=lambda index: (-values[index], index))
    return [_scored(chunks[index], values[index]) for index in order]


def _scored(chunk: Document, value: float) -> Document:
    scores = {**chunk.meta.get("scores", {}), "rerank": value}
    return replace(chunk, score=value, meta={**chunk.meta, "scores": scores})


class CrossEncoderReranker:
    """A cross-encoder of sentence-transformers, by local folder or Hugging Face id; loaded by its first use.

    Scores are the model's, through its own activation (the logistic function for models with one output). Raises
    `RagError` where the model cannot be loaded or has more than one output.
    """

    def __init__(self, model: str, *, batch_size: int = 16, max_length: int = 512) -> None:
        self.model = model
        self.batch_size = batch_size
        self.max_length = max_length
        self._loaded: Any = None
        self._lock = threading.Lock()

    def scores(self, query: str, chunks: Sequence[Document]) -> list[float]:
        """See `Reranker.scores`."""
        pairs = [(query[:2000], passage_text(chunk)) for chunk in chunks]
        with self._lock:
            model = self._opened()
            found = model.predict(pairs, batch_size=self.batch_size, show_progress_bar=False)
        return [float(value) for value in found]

    def _opened(self) -> Any:
        if self._loaded is None:
            os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
            self._loaded = _cross_encoder(self.model, self.max_length)
        return self._loaded


def _cross_encoder(model: str, max_length: int) -> Any:
    quiet_adviser()
    from sentence_transformers import CrossEncoder

    try:
        loaded = CrossEncoder(model, max_length=max_length)
    except (OSError, ValueError) as error:
        raise RagError(
            f"reranker {model!r} cannot be loaded ({str(error).splitlines()[0]}); name a local folder, a cross-encoder "
            f"that can be downloaded, or {SENTENCES!r}"
        ) from error
    if loaded.num_labels != 1:
        raise RagError(f"reranker {model!r} has {loaded.num_labels} outputs; a cross-encoder for ranking has one")
    return loaded


class SentenceReranker:
    """Scores a chunk by its best sentence, without another model.

    The score is the mean of the chunk's fused score and the highest cosine between the query and a sentence, list item
    or table row of the chunk, its headings before it.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def scores(self, query: str, chunks: Sequence[Document]) -> list[float]:
        """See `Reranker.scores`."""
        texts = [_sentences(chunk) for chunk in chunks]
        flat = [text for found in texts for text in found]
        if not flat:
            return [(chunk.score or 0.0) / 2 for chunk in chunks]
        asked = self.embedder.embed_queries([query])[0]
        cosines = iter((remembered_vectors(self.embedder).of(flat, self.embedder) @ asked).tolist())
        best = [max((next(cosines) for _ in found), default=0.0) for found in texts]
        return [(value + (chunk.score or 0.0)) / 2 for value, chunk in zip(best, chunks, strict=True)]


def _sentences(chunk: Document) -> list[str]:
    from rag.extractive import quotes_of

    heading = heading_line(chunk)
    return [f"{heading}\n{quote.text}" for quote in quotes_of(chunk, 0)]
