"""A corpus into the store: only what changed is chunked, only text never seen is embedded."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.chunking import chunk_document
from rag.config import RagConfig
from rag.derived import load_snapshot
from rag.embedding import Embedder
from rag.errors import IndexMismatch, RagError
from rag.locking import writer_lock
from rag.prompts import indexed_text
from rag.store import EmbeddedStore, insert_chunks, known_vectors, put_setting, put_source, save_vectors

if TYPE_CHECKING:
    import sqlite3

    from haystack import Document

Progress = Callable[[int, int], None]

_KEPT_TOGETHER = 128
"""Embeddings kept per small transaction: what a killed run loses at most."""


@dataclass(frozen=True)
class IndexReport:
    """What one run of `index_documents` did; the first four count documents."""

    added: int
    changed: int
    removed: int
    unchanged: int
    chunks: int
    """Chunks in the index now."""
    embedded: int
    """Texts that went through the embedder."""
    seconds: float


@dataclass(frozen=True)
class _Plan:
    """What is to be done to bring the store to the given documents."""

    hashes: dict[str, str]
    known: dict[str, str]
    work: list[Document]
    """Documents to be chunked: new, changed, or all where the chunk settings changed."""

    @property
    def removed(self) -> list[str]:
        return [identity for identity in self.known if identity not in self.hashes]

    def report(self, chunks: int, embedded: int, seconds: float) -> IndexReport:
        changed = sum(self.hashes[i] != sha for i, sha in self.known.items() if i in self.hashes)
        added = sum(identity not in self.known for identity in self.hashes)
        same = len(self.hashes) - added - changed
        return IndexReport(added, changed, len(self.removed), same, chunks, embedded, seconds)


def index_documents(
    documents: Iterable[Document],
    store: EmbeddedStore,
    embedder: Embedder,
    config: RagConfig,
    *,
    progress: Progress | None = None,
    rebuild: bool = False,
) -> IndexReport:
    """Make `store` hold exactly `documents` (the whole corpus), as one new generation if anything changed.

    Documents whose content and meta are unchanged are left alone, unless the chunk settings changed: then all are
    cut anew, and texts that come out the same keep their embeddings. Killed at any moment, the last generation stays
    and finished embeddings are found again. Raises `IndexMismatch` where the index was made by another embedder
    (`rebuild` replaces it), `IndexLocked` where another process writes, `RagError` on no or doubled documents.
    """
    started = time.perf_counter()
    with writer_lock(store.path):
        replace = _check_embedder(store, embedder, rebuild)
        plan = _plan(list(documents), store, config, replace)
        embedded = 0
        if plan.work or plan.removed:
            embedded = _apply(plan, store, embedder, config, progress)
        if store.count_documents():
            load_snapshot(store, config.lexical, config.heading_context)
        return plan.report(store.count_documents(), embedded, time.perf_counter() - started)


def _check_embedder(store: EmbeddedStore, embedder: Embedder, rebuild: bool) -> bool:
    """Return whether all must be made anew; raise where another embedder made the index and `rebuild` is not set."""
    made_by = store.setting("embedder")
    if made_by in ("", embedder.fingerprint):
        return False
    if not rebuild:
        raise IndexMismatch(
            f"{store.path}: made by embedder {made_by}, not {embedder.fingerprint}; "
            "go back to that embedder, or make the index anew with versus index --rebuild"
        )
    return True


def _plan(documents: Sequence[Document], store: EmbeddedStore, config: RagConfig, replace: bool) -> _Plan:
    if not documents:
        raise RagError("there are no documents to index; check the corpus folder")
    twice = [identity for identity, count in Counter(document.id for document in documents).items() if count > 1]
    if twice:
        raise RagError(f"document ids that occur more than once: {', '.join(sorted(twice)[:5])}")
    hashes = {document.id: document_hash(document) for document in documents}
    known = store.source_hashes()
    anew = replace or store.setting("chunk_hash") != config.chunk_hash()
    work = [document for document in documents if anew or known.get(document.id) != hashes[document.id]]
    return _Plan(hashes, known, work)


def document_hash(document: Document) -> str:
    """Return the hash by which a document counts as changed: of its content and its meta."""
    meta = json.dumps(document.meta, sort_keys=True, default=str)
    return hashlib.sha256(f"{meta}\0{document.content or ''}".encode()).hexdigest()


def _apply(plan: _Plan, store: EmbeddedStore, embedder: Embedder, config: RagConfig, progress: Progress | None) -> int:
    """Embed what is new, then commit the plan as one generation; return how many texts were embedded."""
    chunks = [chunk for document in plan.work for chunk in chunk_document(document, config)]
    texts = {chunk.id: indexed_text(chunk, config.heading_context) for chunk in chunks}
    keys = {identity: _embedding_key(embedder, text) for identity, text in texts.items()}
    by_key = {keys[identity]: text for identity, text in texts.items()}
    embedded = _embed_new(by_key, store, embedder, progress)
    with store.committing() as connection:
        _forget(connection, [*plan.removed, *(document.id for document in plan.work)])
        for document in plan.work:
            put_source(connection, document, plan.hashes[document.id])
        insert_chunks(connection, ((chunk, keys[chunk.id]) for chunk in chunks))
        _note_settings(connection, plan, embedder, config)
    return embedded


def _embedding_key(embedder: Embedder, text: str) -> str:
    return hashlib.sha256(f"{embedder.fingerprint}\0{text}".encode()).hexdigest()


def _embed_new(texts: dict[str, str], store: EmbeddedStore, embedder: Embedder, progress: Progress | None) -> int:
    """Embed those `texts` (key → text) that the store has no embedding of, keeping them batch by batch."""
    with store.keeping_vectors() as connection:
        known = known_vectors(connection, list(texts))
    missing = sorted((key for key in texts if key not in known), key=lambda key: (len(texts[key]), key))
    for first in range(0, len(missing), _KEPT_TOGETHER):
        keys = missing[first : first + _KEPT_TOGETHER]
        vectors = embedder.embed_documents([texts[key] for key in keys])
        with store.keeping_vectors() as connection:
            save_vectors(connection, keys, vectors)
        if progress:
            progress(first + len(keys), len(missing))
    return len(missing)


def _forget(connection: sqlite3.Connection, document_ids: Iterable[str]) -> None:
    keys = [(identity,) for identity in document_ids]
    connection.executemany("DELETE FROM chunks WHERE document = ?", keys)
    connection.executemany("DELETE FROM documents WHERE id = ?", keys)


def _note_settings(connection: sqlite3.Connection, plan: _Plan, embedder: Embedder, config: RagConfig) -> None:
    put_setting(connection, "embedder", embedder.fingerprint)
    put_setting(connection, "dimension", str(embedder.dimension))
    put_setting(connection, "chunk_hash", config.chunk_hash())
    languages = Counter(str(document.meta.get("language") or "en") for document in plan.work)
    if languages:
        put_setting(connection, "language", languages.most_common(1)[0][0])
