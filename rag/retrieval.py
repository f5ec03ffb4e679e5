"""Hybrid retrieval: embeddings and BM25 side by side, fused.

`HybridRetriever` is a Haystack component. Haystack is imported when the name is first asked for, so importing this
module stays light.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rag.config import RagConfig
from rag.embedding import Embedder
from rag.errors import IndexMismatch, SnapshotMoved
from rag.lexical import best_hits
from rag.store import EmbeddedStore

if TYPE_CHECKING:
    import numpy as np
    from haystack import Document
    from numpy.typing import NDArray

    from rag.lexical import Hits, LexicalIndex
    from rag.snapshot import Snapshot

    Positions = NDArray[np.int64]
    Scores = NDArray[np.float32]


_PATIENCE = 5
"""Times that opening a generation is tried again because a writer went on to the next meanwhile."""


class HybridSearch:
    """Searches one store with one embedder under one config; light to construct, safe to share between threads."""

    def __init__(self, store: EmbeddedStore, embedder: Embedder, config: RagConfig | None = None) -> None:
        self.store = store
        self.embedder = embedder
        self.config = config or RagConfig()
        self._snapshot: Snapshot | None = None
        self._matching: tuple[tuple[int, str], Positions] | None = None
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Load the embedder (where dense retrieval is on) and the index."""
        if self.config.dense_weight:
            self.embedder.warm_up()
        self._current()

    def retrieve_many(
        self,
        queries: Sequence[str],
        about: Sequence[str | None] | None = None,
        top_k: int | None = None,
        filters: dict[str, Any] | None = None,
    ) -> list[list[Document]]:
        """Return for each query its best chunks, best first; the queries are embedded together.

        A chunk's `score` is the fused score; its meta gains `scores` with `dense` (cosine), `lexical` (BM25) and
        `fused`. `about` limits a query to the chunks of one document, Haystack `filters` limit all queries to the
        chunks whose metadata match. A query without words finds nothing. Raises `IndexMismatch` where there is no
        index, or one of other settings.
        """
        import numpy as np

        if not queries:
            return []
        with self._reading() as snapshot:
            dense = self.config.dense_weight > 0
            vectors = self.embedder.embed_queries(list(queries)) if dense else np.zeros((len(queries), 0), np.float32)
            targets = about or [None] * len(queries)
            matching = self._positions_matching(snapshot, filters) if filters else None
            return [
                self._search(snapshot, query, vector, target, top_k or self.config.top_k, matching)
                for query, vector, target in zip(queries, vectors, targets, strict=True)
            ]

    def query_idf(self, query: str) -> dict[str, float]:
        """Return the inverse document frequency of each index term of `query`."""
        return self._current().lexical.idf(query)

    @contextmanager
    def _reading(self) -> Iterator[Snapshot]:
        """Give the committed generation's snapshot inside one read; begins anew where a writer has just moved on."""
        for _ in range(_PATIENCE):
            with self.store.reading():
                try:
                    snapshot = self._current(may_move=True)
                except SnapshotMoved:
                    continue
                yield snapshot
                return
        with self.store.reading():
            yield self._current()

    def _current(self, may_move: bool = False) -> Snapshot:
        """Return the snapshot of the committed generation, loading it anew where that has moved on."""
        from rag.derived import load_snapshot

        with self._lock:
            generation, known = self.store.generation, self._snapshot
            if known is None or known.generation != generation:
                self._check_settings()
                config = self.config
                self._snapshot = load_snapshot(self.store, config.lexical, config.heading_context, known, may_move)
            assert self._snapshot is not None
            return self._snapshot

    def _check_settings(self) -> None:
        path, made_by = self.store.path, self.store.setting("embedder")
        if made_by and self.config.dense_weight and made_by != self.embedder.fingerprint:
            raise IndexMismatch(
                f"{path}: made by embedder {made_by}, not {self.embedder.fingerprint}; "
                "go back to that embedder, or make the index anew with versus index --rebuild"
            )
        chunk_hash = self.store.setting("chunk_hash")
        if chunk_hash and chunk_hash != self.config.chunk_hash():
            raise IndexMismatch(f"{path}: made with other chunk settings; run versus index to cut the documents anew")

    def _search(
        self,
        snapshot: Snapshot,
        query: str,
        vector: Scores,
        about: str | None,
        top_k: int,
        allowed: Positions | None = None,
    ) -> list[Document]:
        import numpy as np

        if not query.strip():
            return []
        if about is not None:
            named = self._positions_about(snapshot, about)
            allowed = named if allowed is None else np.intersect1d(named, allowed)
        size = max(self.config.candidates, top_k)
        near = _dense_candidates(snapshot, vector, size, allowed)
        union, bm25 = self._by_words(snapshot.lexical, query, size, near, allowed)
        if not len(union):
            return []
        cosines = snapshot.cosines(union, vector) if len(vector) else np.zeros(len(union), np.float32)
        fused = supported(fuse(cosines, bm25, self.config), snapshot.documents(union), self.config)
        order = np.lexsort((union, -fused))[:top_k]
        return self._chunks(snapshot, union[order], cosines[order], bm25[order], fused[order])

    def _by_words(
        self, lexical: LexicalIndex, query: str, size: int, near: Positions, allowed: Positions | None
    ) -> Hits:
        """Return, ascending, `near` and the `size` best by BM25 of those `allowed`, with their BM25 scores."""
        import numpy as np

        if not self.config.lexical_weight:
            return np.sort(near), np.zeros(len(near), np.float32)
        if allowed is None:
            return lexical.best(query, size, near)
        scores = lexical.scores(query)
        union = np.union1d(allowed[best_hits(scores[allowed], size)[0]], near).astype(np.int64)
        return union, scores[union]

    def _positions_matching(self, snapshot: Snapshot, filters: dict[str, Any]) -> Positions:
        """Return the positions of the chunks that match; the last filters of a generation are remembered."""
        import numpy as np

        key = (snapshot.generation, repr(filters))
        if self._matching is None or self._matching[0] != key:
            rows = np.array(self.store.rows_matching(filters), dtype=np.int64)
            self._matching = (key, snapshot.positions_of(rows))
        return self._matching[1]

    def _positions_about(self, snapshot: Snapshot, document: str) -> Positions:
        import numpy as np

        with self.store.reading() as connection:
            query = "SELECT row FROM chunks WHERE document = ? ORDER BY row"
            rows = connection.execute(query, (document,)).fetchall() if connection else []
        return snapshot.positions_of(np.array([row[0] for row in rows], dtype=np.int64))

    def _chunks(
        self, snapshot: Snapshot, positions: Positions, cosines: Scores, bm25: Scores, fused: Scores
    ) -> list[Document]:
        rows = [int(snapshot.rows[position]) for position in positions]
        chunks = self.store.chunks_by_row(rows)
        found = []
        for row, dense, lexical, score in zip(rows, cosines, bm25, fused, strict=True):
            scores = {"dense": float(dense), "lexical": float(lexical), "fused": float(score)}
            chunk = chunks[row]
            found.append(replace(chunk, score=float(score), meta={**chunk.meta, "scores": scores}))
        return found


def _dense_candidates(snapshot: Snapshot, vector: Scores, size: int, allowed: Positions | None) -> Positions:
    import numpy as np

    if not len(vector) or not len(snapshot.rows):
        return np.zeros(0, dtype=np.int64)
    if allowed is None:
        return snapshot.nearest(vector, size)
    order = np.argsort(-snapshot.cosines(allowed, vector, sentences=False), kind="stable")[:size]
    return allowed[order]


def fuse(cosines: Scores, bm25: Scores, config: RagConfig) -> Scores:
    """Return one score per candidate from both stages' scores of the same candidates, shape (n,).

    `rrf`: the sum of weight / (k + rank) over the stages (Cormack et al. 2009, weighted); a candidate without a
    shared term gets nothing from BM25. `score`: the weighted mean of the cosine, negative ones as 0, and of BM25
    divided by the query's highest.
    """
    import numpy as np

    weights = np.array([config.dense_weight, config.lexical_weight], dtype=np.float32)
    weights /= weights.sum()
    if config.fusion == "rrf":
        parts = [_reciprocal_ranks(cosines, config), _reciprocal_ranks(bm25, config)]
    else:
        top = float(bm25.max()) if len(bm25) else 0.0
        parts = [np.clip(cosines, 0, None), bm25 / top if top > 0 else bm25]
    fused: Scores = (weights[0] * parts[0] + weights[1] * parts[1]).astype(np.float32)
    return fused


def supported(fused: Scores, documents: NDArray[np.uint64], config: RagConfig) -> Scores:
    """Return `fused` with what the candidates of the same document, `documents` (n,), add to one another.

    With t = `config.document_support`, each chunk of a document gains t · ln Σ exp((s - s_max) / t) over the scores s
    of the document's candidates, s_max the highest of them: a soft maximum, so that of two documents with equally good
    chunks the one with more of them comes first. Scores of rank fusion stay as they are.
    """
    import numpy as np

    if not config.document_support or config.fusion == "rrf" or not len(fused):
        return fused
    _, own = np.unique(documents, return_inverse=True)
    best = np.full(own.max() + 1, -np.inf, dtype=np.float32)
    np.maximum.at(best, own, fused)
    mass = np.bincount(own, weights=np.exp((fused - best[own]) / config.document_support))
    gained: Scores = (fused + config.document_support * np.log(mass)[own]).astype(np.float32)
    return gained


def _reciprocal_ranks(scores: Scores, config: RagConfig) -> Scores:
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    ranks = np.empty(len(scores), dtype=np.float32)
    ranks[order] = np.arange(1, len(scores) + 1)
    reciprocal: Scores = np.where(scores > 0, 1 / (config.rrf_constant + ranks), 0).astype(np.float32)
    return reciprocal


if TYPE_CHECKING:

    class HybridRetriever(HybridSearch):
        """`HybridSearch` as a Haystack component."""

        def run(
            self,
            query: str,
            top_k: int | None = None,
            about: str | None = None,
            filters: dict[str, Any] | None = None,
        ) -> dict[str, list[Document]]:
            """Return the best chunks for `query` under `documents`, best first."""
            ...

        def to_dict(self) -> dict[str, Any]:
            """Return what `from_dict` needs to make the same retriever."""
            ...

        @classmethod
        def from_dict(cls, data: dict[str, Any]) -> HybridRetriever:
            """Make the retriever that `to_dict` described."""
            ...


@lru_cache(maxsize=1)
def _component() -> type:
    """Make the component class, named so that Haystack's serialisation finds it here."""
    from dataclasses import asdict

    from haystack import Document, component

    class HybridRetriever(HybridSearch):
        """`HybridSearch` as a Haystack component."""

        @component.output_types(documents=list[Document])
        def run(
            self,
            query: str,
            top_k: int | None = None,
            about: str | None = None,
            filters: dict[str, Any] | None = None,
        ) -> dict[str, list[Document]]:
            """Return the best chunks for `query` under `documents`, best first."""
            return {"documents": self.retrieve_many([query], [about], top_k, filters)[0]}

        def to_dict(self) -> dict[str, Any]:
            """Return what `from_dict` needs to make the same retriever."""
            settings = {"store": self.store.to_dict(), "config": asdict(self.config)}
            return {"type": "rag.retrieval.HybridRetriever", "init_parameters": settings}

        @classmethod
        def from_dict(cls, data: dict[str, Any]) -> HybridRetriever:
            """Make the retriever that `to_dict` described."""
            settings = data["init_parameters"]
            config = RagConfig(**settings["config"])
            return cls(EmbeddedStore.from_dict(settings["store"]), Embedder.from_config(config), config)

    HybridRetriever.__qualname__ = "HybridRetriever"
    HybridRetriever.__module__ = __name__
    made: type = component(HybridRetriever)
    return made


def __getattr__(name: str) -> Any:
    if name == "HybridRetriever":
        return _component()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
