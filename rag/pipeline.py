"""The whole retrieval as one Haystack `SuperComponent`: its stages are components, and it goes through YAML.

    pipeline = Pipeline()
    pipeline.add_component("retrieval", retrieval_pipeline(EmbeddedStore(path), RagConfig(neighbours=1)))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["rag"])
    again.run({"retrieval": {"query": "…"}})["retrieval"]["documents"]

Load only YAML that you wrote: it names files and models. The component classes are made when they are first asked for,
so that importing this module does not import Haystack.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from rag.config import RagConfig
from rag.refining import RefinedSearch, open_search
from rag.wordings import fused_wordings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haystack import Document, SuperComponent
    from haystack.dataclasses import ChatMessage


class _HaystackWriter:
    """A Haystack chat generator as the writer of wordings."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def generate(self, conversations: Sequence[list[ChatMessage]]) -> list[ChatMessage]:
        """Return one reply per conversation."""
        return [self._generator.run(messages=messages)["replies"][0] for messages in conversations]


class _Stage:
    """One stage over a store; the search behind it is opened by its first run, and shared by what is alike."""

    def __init__(self, store: Any, config: RagConfig, generator: Any = None) -> None:
        self.store = store
        self.config = config
        self.generator = generator
        self._search: RefinedSearch | None = None

    @property
    def search(self) -> RefinedSearch:
        """The search whose stage this is."""
        if self._search is None:
            writer = _HaystackWriter(self.generator) if self.generator is not None else None
            config = self.config if writer else replace(self.config, multi_query=self._without_writer())
            self._search = RefinedSearch(open_search(self.store, config), writer=writer)
        return self._search

    def _without_writer(self) -> str:
        return "off" if self.config.multi_query == "generator" else self.config.multi_query

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to make the same stage."""
        settings = {"store": self.store.to_dict(), "config": asdict(self.config)}
        if self.generator is not None:
            settings["generator"] = self.generator.to_dict()
        return {"type": f"{__name__}.{type(self).__name__}", "init_parameters": settings}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> _Stage:
        """Make the stage that `to_dict` described."""
        from haystack.core.serialization import component_from_dict, import_class_by_name

        settings = data["init_parameters"]
        made: Any = import_class_by_name(settings["store"]["type"])
        store = made.from_dict(settings["store"])
        generator = None
        if described := settings.get("generator"):
            generator = component_from_dict(import_class_by_name(described["type"]), described, "generator")
        return cls(store, RagConfig(**settings["config"]), generator)


class _QuestionWordings(_Stage):
    """The wordings of a question that are searched, its own first."""

    def run(self, query: str) -> dict[str, list[str]]:
        """Return the wordings under `queries`."""
        return {"queries": self.search.wordings([query])[0]}


class _WordingRetriever(_Stage):
    """Hybrid search of several wordings of one question, fused."""

    def run(
        self,
        queries: list[str],
        about: str | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Return the candidates under `documents`, best first."""
        size = self.search.pool(top_k or self.config.top_k)
        found = self.search.inner.retrieve_many(queries, [about] * len(queries), size, filters)
        return {"documents": fused_wordings(found)}


class _CandidateReranker(_Stage):
    """The candidates in the reranker's order; as they were where there is none."""

    def run(self, query: str, documents: list[Document]) -> dict[str, list[Document]]:
        """Return the candidates under `documents`."""
        return {"documents": self.search.reranked(query, documents)}


class _ChunkChooser(_Stage):
    """The `top_k` best candidates, by marginal relevance where the config asks for diversity."""

    def run(self, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Return the chosen chunks under `documents`."""
        return {"documents": self.search.chosen(documents, top_k or self.config.top_k)}


class _NeighbourExpander(_Stage):
    """Chunks with their neighbours; as they were where the config asks for none."""

    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Return the widened chunks under `documents`."""
        return {"documents": self.search.widened(documents)}


_STAGES: dict[str, type[_Stage]] = {
    "QuestionWordings": _QuestionWordings,
    "WordingRetriever": _WordingRetriever,
    "CandidateReranker": _CandidateReranker,
    "ChunkChooser": _ChunkChooser,
    "NeighbourExpander": _NeighbourExpander,
}


def retrieval_pipeline(store: Any, config: RagConfig | None = None, generator: Any = None) -> SuperComponent:
    """Return the retrieval over `store` as one component: `query`, `about`, `filters`, `top_k` in, `documents` out.

    `generator`: a Haystack chat generator that writes wordings, for `multi_query = "generator"`.
    """
    from haystack import Pipeline, SuperComponent

    chosen = config or RagConfig()
    pipeline = Pipeline()
    names = {"wordings": "QuestionWordings", "retriever": "WordingRetriever", "reranker": "CandidateReranker"}
    names |= {"chooser": "ChunkChooser", "neighbours": "NeighbourExpander"}
    for name, kind in names.items():
        given = generator if name == "wordings" else None
        pipeline.add_component(name, _component(kind)(store, chosen, given))
    pipeline.connect("wordings.queries", "retriever.queries")
    for before, after in (("retriever", "reranker"), ("reranker", "chooser"), ("chooser", "neighbours")):
        pipeline.connect(f"{before}.documents", f"{after}.documents")
    return SuperComponent(
        pipeline,
        input_mapping={
            "query": ["wordings.query", "reranker.query"],
            "about": ["retriever.about"],
            "filters": ["retriever.filters"],
            "top_k": ["retriever.top_k", "chooser.top_k"],
        },
        output_mapping={"neighbours.documents": "documents"},
    )


@cache
def _component(name: str) -> Any:
    """Make a stage's component class, named so that Haystack's serialisation finds it here."""
    from haystack import Document, component

    globals()["Document"] = Document  # Haystack resolves the annotations of `run` in this module
    stage = _STAGES[name]
    stage.__name__ = stage.__qualname__ = name
    outputs = {"queries": list[str]} if name == "QuestionWordings" else {"documents": list[Document]}
    stage.run = component.output_types(**outputs)(stage.run)  # type: ignore[attr-defined]
    return component(stage)


def __getattr__(name: str) -> Any:
    if name in _STAGES:
        return _component(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
