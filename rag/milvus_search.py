"""Hybrid search on Milvus: both fields searched, fused like the embedded store's candidates."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rag.config import RagConfig
from rag.embedding import Embedder
from rag.errors import IndexMismatch
from rag.lexical import Tokenizer
from rag.milvus import MilvusStore
from rag.milvus_rows import analysed, incoming
from rag.retrieval import fuse, supported

if TYPE_CHECKING:
    import numpy as np
    from haystack import Document
    from numpy.typing import NDArray

Hit = dict[str, Any]


class MilvusSearch:
    """Searches one Milvus index; the counterpart of `HybridSearch`.

    Two differences: chunks are embedded whole, whatever `sentence_vectors` says, and BM25 is of words; a chunk that
    only the dense stage found counts as 0 for BM25, since Milvus scores no chunk that it does not return.
    """

    def __init__(self, store: MilvusStore, embedder: Embedder, config: RagConfig | None = None) -> None:
        self.store = store
        self.embedder = embedder
        self.config = config or RagConfig()
        self._idf: dict[tuple[int, str], float] = {}

    def warm_up(self) -> None:
        """Load the embedder and connect."""
        if self.config.dense_weight:
            self.embedder.warm_up()
        self._check()

    def retrieve_many(
        self,
        queries: Sequence[str],
        about: Sequence[str | None] | None = None,
        top_k: int | None = None,
        filters: dict[str, Any] | None = None,
    ) -> list[list[Document]]:
        """Return for each query its best chunks, best first; see `HybridSearch.retrieve_many`."""
        settings = self._check()
        vectors = self.embedder.embed_queries(list(queries)) if queries and self.config.dense_weight else None
        tokenizer = Tokenizer(settings.get("language", "en"))
        targets = about or [None] * len(queries)
        wanted = top_k or self.config.top_k
        found: list[list[Document]] = [[] for _ in queries]
        for target in dict.fromkeys(targets):
            members = [i for i, other in enumerate(targets) if other == target and queries[i].strip()]
            expression = self.store.expression(_with_about(filters, target))
            dense = self._dense(vectors, members, expression, wanted)
            terms = [analysed(tokenizer(queries[i])) for i in members]
            lexical = self._lexical(terms, expression, wanted)
            for place, index in enumerate(members):
                vector = vectors[index] if vectors is not None else None
                found[index] = self._fused(dense[place], lexical[place], vector)[:wanted]
        return found

    def query_idf(self, query: str) -> dict[str, float]:
        """Return the inverse document frequency of each index term of `query`."""
        settings = self._check()
        generation, size = int(settings["generation"]), self.store.count_documents()
        found = {}
        for term in Tokenizer(settings.get("language", "en"))(query):
            key = (generation, term)
            if key not in self._idf:
                holding = self.store.holding(term)
                self._idf[key] = math.log(1 + (size - holding + 0.5) / (holding + 0.5))
            found[term] = self._idf[key]
        return found

    def _check(self) -> dict[str, str]:
        settings, where = self.store.settings(), self.store.address
        if "generation" not in settings:
            raise IndexMismatch(f"{where}: there is no index here; make it with versus index")
        if self.config.dense_weight and settings["embedder"] != self.embedder.fingerprint:
            raise IndexMismatch(
                f"{where}: made by embedder {settings['embedder']}, not {self.embedder.fingerprint}; "
                "go back to that embedder, or make the index anew with versus index --rebuild"
            )
        if settings["chunk_hash"] != self.config.chunk_hash():
            raise IndexMismatch(f"{where}: made with other chunk settings; run versus index to cut the documents anew")
        return settings

    def _dense(
        self, vectors: NDArray[np.float32] | None, members: Sequence[int], expression: str, wanted: int
    ) -> list[list[Hit]]:
        if vectors is None or not members:
            return [[] for _ in members]
        data = [vectors[index].tolist() for index in members]
        return self.store.search("vector", data, max(self.config.candidates, wanted), expression)

    def _lexical(self, terms: Sequence[str], expression: str, wanted: int) -> list[list[Hit]]:
        asked = [text for text in terms if text] if self.config.lexical_weight else []
        if not asked:
            return [[] for _ in terms]
        size = max(self.config.candidates, wanted)
        found = iter(self.store.search("sparse", asked, size, expression))
        return [next(found) if text else [] for text in terms]

    def _fused(
        self, dense: Sequence[Hit], lexical: Sequence[Hit], vector: NDArray[np.float32] | None
    ) -> list[Document]:
        import numpy as np

        hits = {hit["id"]: hit["entity"] for hit in (*dense, *lexical)}
        if not hits:
            return []
        shared = {hit["id"]: abs(float(hit["distance"])) for hit in lexical}  # Milvus Lite gives them negative
        bm25 = np.array([shared.get(identity, 0.0) for identity in hits], dtype=np.float32)
        matrix = np.array([entity["vector"] for entity in hits.values()], dtype=np.float32)
        cosines = matrix @ vector if vector is not None else np.zeros(len(hits), dtype=np.float32)
        names = [json.loads(entity["meta_json"]).get("document", identity) for identity, entity in hits.items()]
        documents = np.unique(np.array(names), return_inverse=True)[1].astype(np.uint64)
        fused = supported(fuse(cosines, bm25, self.config), documents, self.config)
        ids = list(hits)
        order = sorted(range(len(ids)), key=lambda place: (-fused[place], ids[place]))
        return [
            _scored({"id": ids[p], **hits[ids[p]]}, float(cosines[p]), float(bm25[p]), float(fused[p])) for p in order
        ]


def _with_about(filters: dict[str, Any] | None, about: str | None) -> dict[str, Any] | None:
    if about is None:
        return filters
    named = {"field": "meta.document", "operator": "==", "value": about}
    return {"operator": "AND", "conditions": [named, filters]} if filters else named


def _scored(row: Hit, dense: float, lexical: float, fused: float) -> Document:
    chunk = incoming(row)
    scores = {"dense": dense, "lexical": lexical, "fused": fused}
    return replace(chunk, score=fused, meta={**chunk.meta, "scores": scores})
