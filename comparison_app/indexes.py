"""A corpus's index in the workspace: brought up to date, and opened for retrieval."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.console import Progress
from comparison_app.errors import ComparisonError
from comparison_app.workspace import Workspace
from data_prep.atomic import write_text
from data_prep.corpus import Corpus
from rag.config import BUNDLED_EMBEDDER, PRESETS, RagConfig
from rag.remote_embedding import RETRIES, is_remote
from rag.reranking import SENTENCES

if TYPE_CHECKING:
    import argparse

    from rag.embedding import Embedder
    from rag.indexing import IndexReport
    from rag.milvus import MilvusStore
    from rag.refining import Search
    from rag.store import EmbeddedStore
    from rag.wordings import Writer

SHORT_CONTEXT = 1024
"""Tokens up to which a model's context is short: a few whole chunks do not fit beside the question."""
SENTENCES_IN_SHORT_CONTEXT = 2
"""Measured on the dev questions of the sample manual with pocket; see benchmarks/RESULTS.md."""


def rag_config(preset: str | None = None, settings: dict[str, Any] | None = None) -> RagConfig:
    """Return a preset's settings with some of them replaced; raises `RagError` that lists every mistake."""
    return RagConfig.from_mapping({"preset": preset or "default", **(settings or {})})


def chosen_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that `--set NAME=VALUE` and `--store` give; values are read as TOML, else as text."""
    found: dict[str, Any] = {}
    for item in arguments.set:
        name, sign, value = item.partition("=")
        if not sign:
            raise ComparisonError(f"--set {item!r}: must read NAME=VALUE, say top_k=10")
        found[name.strip().replace("-", "_")] = _read_value(value)
    return {**found, **({"store": arguments.store} if arguments.store else {})}


def _read_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


BUILT = "built.json"
"""Beside an index: how long its last whole build took."""


def needs_torch(config: RagConfig) -> bool:
    """Tell whether retrieval with these settings runs a model on torch."""
    embeds = config.embedder != BUNDLED_EMBEDDER and not is_remote(config.embedder)
    return embeds or config.backend == "torch" or config.reranker not in (None, SENTENCES)


def index_path(workspace: Workspace, corpus: Corpus, config: RagConfig) -> Path:
    """Return where the index of a corpus lies; configurations that chunk or embed otherwise have one each."""
    key = _index_key(config)
    name = corpus.name if key == _index_key(PRESETS["default"]) else f"{corpus.name}.{key}"
    return workspace.path / "indexes" / name / "index.sqlite"


def _index_key(config: RagConfig) -> str:
    """Return a short hash of what an index is made with: chunking and embedder."""
    made_with = [config.chunk_hash(), config.embedder, config.passage_prefix, config.heading_context]
    made_with += ["exact"] if config.exact_vectors else []
    return hashlib.sha256(repr(tuple(made_with)).encode()).hexdigest()[:8]


def update_index(
    workspace: Workspace,
    corpus: Corpus,
    config: RagConfig,
    *,
    include_new: bool = False,
    rebuild: bool = False,
    progress: Progress | None = None,
    embedder: Embedder | None = None,
) -> IndexReport:
    """Bring the index up to the corpus's documents; only what changed is chunked and embedded, or all to `rebuild`.

    `embedder`: the one to use instead of opening that of `config`, say one that works on a cluster.
    """
    from rag.indexing import index_documents
    from rag.milvus_indexing import index_into_milvus
    from rag.refining import shared_embedder
    from rag.store import EmbeddedStore

    store = open_store(workspace, corpus, config)
    documents = corpus.documents(include_new=include_new)
    chosen = embedder or shared_embedder(config)
    if isinstance(store, EmbeddedStore):
        report = index_documents(documents, store, chosen, config, progress=progress, rebuild=rebuild)
    else:
        report = index_into_milvus(documents, store, chosen, config, progress=progress, rebuild=rebuild)
    folder = index_path(workspace, corpus, config).parent
    if report.embedded and not report.unchanged and folder.is_dir():
        write_text(folder / BUILT, json.dumps({"seconds": report.seconds, "chunks": report.chunks}) + "\n")
    return report


def build_seconds(workspace: Workspace, corpus: Corpus, config: RagConfig) -> float | None:
    """Return what the last whole build of an index took; None if that is not known."""
    path = index_path(workspace, corpus, config).parent / BUILT
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def language_note(corpus: Corpus, config: RagConfig) -> str | None:
    """Return a warning where the corpus is in a language that the embedder was not trained for."""
    from rag.languages import language_warning

    return language_warning(corpus.documents(), config.embedder) if config.dense_weight else None


def open_store(workspace: Workspace, corpus: Corpus, config: RagConfig) -> EmbeddedStore | MilvusStore:
    """Return the store of a corpus's index, embedded or on Milvus as `config` says; nothing is read yet."""
    from rag.milvus import MilvusStore
    from rag.store import EmbeddedStore

    path = index_path(workspace, corpus, config)
    if not config.store:
        return EmbeddedStore(path)
    return MilvusStore(config.store, path, heading_context=config.heading_context)


def open_retriever(
    workspace: Workspace, corpus: Corpus, config: RagConfig, writer: Writer | None = None, *, retries: int = RETRIES
) -> Search:
    """Open the index of a corpus for retrieval, making it first if there is none.

    `writer` writes other wordings of the questions, where the settings ask for that. `retries`: how often a query is
    sent again to an embedder behind a service.
    """
    from rag.refining import open_search, refined, shared_embedder

    store = open_store(workspace, corpus, config)
    if not store.generation:
        update_index(workspace, corpus, config)
    return refined(open_search(store, config, shared_embedder(config, retries)), writer)


def indexed_text(workspace: Workspace, corpus: Corpus, document: str) -> str:
    """Return a document's text as it stands in the default index, or on disk if it is not there; "" if unknown."""
    source = open_store(workspace, corpus, rag_config()).source(document)
    if source is not None:
        return source.content or ""
    file = corpus.path / "documents" / f"{Path(document).name}.md"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def fit_context(config: RagConfig, context_length: int) -> RagConfig:
    """Fit what a prompt shows to the `context_length` tokens that a model reads; what `config` sets itself stays.

    Retrieved text is cut to the context less 128 tokens for instruction, question and answer. A short context gets
    sentences instead of whole chunks: with them pocket answers better, and sooner.
    """
    if config.context_tokens is None:
        config = replace(config, context_tokens=max(16, context_length - 128))
    if config.context_sentences is None and context_length <= SHORT_CONTEXT:
        config = replace(config, context_sentences=SENTENCES_IN_SHORT_CONTEXT)
    return config
