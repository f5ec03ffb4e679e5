"""Retrieval in stages: wordings, hybrid search, reranking, diversity, neighbours. Those that are off cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from rag.config import RagConfig
from rag.diversity import diversified
from rag.errors import RagError
from rag.neighbours import with_neighbours
from rag.remote_embedding import RETRIES, is_remote
from rag.reranking import Reranker, rerank, reranker_for
from rag.wordings import Writer, fused_wordings, parts_of, rewordings

if TYPE_CHECKING:
    from haystack import Document

    from rag.embedding import Embedder


_EMBEDDER_FIELDS = ("embedder", "backend", "embedder_url", "embedder_key_env", "query_prefix", "passage_prefix")


class Search(Protocol):
    """What finds chunks for questions: `HybridSearch`, `MilvusSearch`, `RefinedSearch`."""

    config: RagConfig
    embedder: Embedder
    store: Any
    """A Haystack document store with `generation`, `path`, `chunks_of`, `source` and `vectors_of`."""

    def warm_up(self) -> None:
        """Load what searching needs."""
        ...

    def retrieve_many(
        self,
        queries: Sequence[str],
        about: Sequence[str | None] | None = None,
        top_k: int | None = None,
        filters: dict[str, Any] | None = None,
    ) -> list[list[Document]]:
        """Return for each query its best chunks, best first."""
        ...

    def query_idf(self, query: str) -> dict[str, float]:
        """Return the inverse document frequency of each index term of `query`."""
        ...


def has_stages(config: RagConfig) -> bool:
    """Tell whether `config` asks for anything beyond hybrid search."""
    return bool(config.reranker or config.diversity or config.neighbours or config.multi_query != "off")


class RefinedSearch:
    """A `Search` around another one, with the stages that the config asks for.

    Order: each question is searched in its wordings, whose `candidates` are fused, then reranked; `top_k` of them are
    chosen, by marginal relevance with `diversity`; each comes with its neighbours. `writer` writes wordings where
    `multi_query` is `generator`; without one `RagError` is raised.
    """

    def __init__(self, inner: Search, *, reranker: Reranker | None = None, writer: Writer | None = None) -> None:
        self.inner = inner
        self.config = inner.config
        self.embedder = inner.embedder
        self.store = inner.store
        self.reranker = reranker or reranker_for(inner.config, inner.embedder)
        self.writer = writer
        if self.config.multi_query == "generator" and writer is None:
            raise RagError('multi_query is "generator", which needs an arm with a model; "parts" needs none')

    def warm_up(self) -> None:
        """Load the embedder and the index."""
        self.inner.warm_up()

    def query_idf(self, query: str) -> dict[str, float]:
        """See `Search.query_idf`."""
        return self.inner.query_idf(query)

    def retrieve_many(
        self,
        queries: Sequence[str],
        about: Sequence[str | None] | None = None,
        top_k: int | None = None,
        filters: dict[str, Any] | None = None,
    ) -> list[list[Document]]:
        """See `Search.retrieve_many`; the wordings of all queries are searched in one batch."""
        wanted = top_k or self.config.top_k
        wordings = self.wordings(queries)
        flat = [wording for words in wordings for wording in words]
        targets = about or [None] * len(queries)
        repeated = [target for target, words in zip(targets, wordings, strict=True) for _ in words]
        found = iter(self.inner.retrieve_many(flat, repeated, self.pool(wanted), filters))
        merged = [fused_wordings([next(found) for _ in words]) for words in wordings]
        return [self.refined(query, chunks, wanted) for query, chunks in zip(queries, merged, strict=True)]

    def pool(self, top_k: int) -> int:
        """Return how many candidates the stages need to choose `top_k` from."""
        chooses = self.reranker is not None or self.config.diversity or self.config.multi_query != "off"
        return max(self.config.candidates, top_k) if chooses else top_k

    def wordings(self, queries: Sequence[str]) -> list[list[str]]:
        """Return the wordings to search for each query, its own first."""
        most = self.config.wordings
        if self.config.multi_query == "parts":
            return [parts_of(query, most) for query in queries]
        if self.config.multi_query == "generator" and self.writer is not None:
            return rewordings(queries, self.writer, most)
        return [[query] for query in queries]

    def refined(self, query: str, chunks: list[Document], top_k: int) -> list[Document]:
        """Rerank, choose and widen the candidates of one query."""
        return self.widened(self.chosen(self.reranked(query, chunks), top_k))

    def reranked(self, query: str, chunks: list[Document]) -> list[Document]:
        """Return the candidates in the reranker's order."""
        return rerank(query, chunks, self.reranker) if self.reranker is not None else chunks

    def widened(self, chunks: list[Document]) -> list[Document]:
        """Return the chosen chunks with their neighbours."""
        return with_neighbours(chunks, self.store, self.config.neighbours) if self.config.neighbours else chunks

    def chosen(self, chunks: list[Document], top_k: int) -> list[Document]:
        """Return `top_k` of the candidates."""
        if not self.config.diversity:
            return chunks[:top_k]
        vectors = self.store.vectors_of([chunk.id for chunk in chunks])
        return diversified(chunks, vectors, top_k, self.config.diversity)


def open_search(store: Any, config: RagConfig, embedder: Embedder | None = None) -> Search:
    """Return hybrid search over `store`, embedded or Milvus, without further stages.

    Embedders that the settings make alike are shared, so that a model is loaded once.
    """
    from rag.retrieval import HybridSearch
    from rag.store import EmbeddedStore

    chosen = embedder or shared_embedder(config)
    if isinstance(store, EmbeddedStore):
        return HybridSearch(store, chosen, config)
    from rag.milvus_search import MilvusSearch

    return MilvusSearch(store, chosen, config)


def shared_embedder(config: RagConfig, retries: int = RETRIES) -> Embedder:
    """Return the embedder that `config` names, the same one for the same settings.

    `retries`: how often a request is sent again to an embedder behind a service.
    """
    plain = replace(RagConfig(), **{name: getattr(config, name) for name in _EMBEDDER_FIELDS})
    return _embedder(plain, retries if is_remote(config.embedder) else RETRIES)


@lru_cache(maxsize=4)
def _embedder(config: RagConfig, retries: int) -> Embedder:
    from rag.embedding import Embedder

    return Embedder.from_config(config, retries)


def without_writer(config: RagConfig) -> RagConfig:
    """Return `config` as it is before there is a model to write wordings."""
    return replace(config, multi_query="off") if config.multi_query == "generator" else config


def rewording(search: Search, config: RagConfig, writer: Writer) -> Search:
    """Return a search of the same store in wordings by `writer`, if `config` asks for them; else `search` itself."""
    if config.multi_query != "generator":
        return search
    return RefinedSearch(open_search(search.store, config, search.embedder), writer=writer)


def refined(search: Search, writer: Writer | None = None) -> Search:
    """Return `search` with the stages of its config around it, or itself where there are none."""
    return RefinedSearch(search, writer=writer) if has_stages(search.config) else search
