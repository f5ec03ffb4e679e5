"""A corpus's index in the workspace: brought up to date, and opened for retrieval."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comparison_app.console import Progress
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus
from rag.config import PRESETS, RagConfig

if TYPE_CHECKING:
    from pathlib import Path

    from rag.indexing import IndexReport
    from rag.retrieval import HybridRetriever

SHORT_CONTEXT = 1024
"""Tokens up to which a model's context is short: a few whole chunks do not fit beside the question."""
SENTENCES_IN_SHORT_CONTEXT = 3
"""Measured on the dev questions of the sample manual with pocket; see benchmarks/RESULTS.md."""


def rag_config(preset: str | None = None, settings: dict[str, Any] | None = None) -> RagConfig:
    """Return a preset's settings with some of them replaced; raises `RagError` that lists every mistake."""
    return RagConfig.from_mapping({"preset": preset or "default", **(settings or {})})


def index_path(workspace: Workspace, corpus: Corpus, config: RagConfig) -> Path:
    """Return where the index of a corpus lies; configurations that chunk or embed otherwise have one each."""
    key = _index_key(config)
    name = corpus.name if key == _index_key(PRESETS["default"]) else f"{corpus.name}.{key}"
    return workspace.path / "indexes" / name / "index.sqlite"


def _index_key(config: RagConfig) -> str:
    """Return a short hash of what an index is made with: chunking and embedder."""
    made_with = (config.chunk_hash(), config.embedder, config.passage_prefix, config.heading_context)
    return hashlib.sha256(repr(made_with).encode()).hexdigest()[:8]


def update_index(
    workspace: Workspace,
    corpus: Corpus,
    config: RagConfig,
    *,
    include_new: bool = False,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> IndexReport:
    """Bring the index up to the corpus's documents; only what changed is chunked and embedded, or all to `rebuild`."""
    from rag.embedding import Embedder
    from rag.indexing import index_documents
    from rag.store import EmbeddedStore

    store = EmbeddedStore(index_path(workspace, corpus, config))
    documents = corpus.documents(include_new=include_new)
    embedder = Embedder.from_config(config)
    return index_documents(documents, store, embedder, config, progress=progress, rebuild=rebuild)


def open_retriever(workspace: Workspace, corpus: Corpus, config: RagConfig) -> HybridRetriever:
    """Open the index of a corpus for retrieval, making it first if there is none."""
    from rag.embedding import Embedder
    from rag.retrieval import HybridRetriever
    from rag.store import EmbeddedStore

    path = index_path(workspace, corpus, config)
    if not path.exists():
        update_index(workspace, corpus, config)
    return HybridRetriever(EmbeddedStore(path), Embedder.from_config(config), config)


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
