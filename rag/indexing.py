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
from rag.embedding import Embedder
from rag.errors import IndexMismatch, RagError
from rag.locking import writer_lock
from rag.prompts import indexed_text
from rag.sentences import sentence_texts
from rag.store import EmbeddedStore
from rag.tables import (
    begin_anew,
    insert_chunks,
    known_vectors,
    put_setting,
    put_source,
    save_sentences,
    save_vectors,
)

if TYPE_CHECKING:
    import sqlite3

    import numpy as np
    from haystack import Document
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]


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
    anew: bool
    """Whether nothing of the old index stays."""
    rebuilt: bool
    """Whether embeddings that the store holds are not to be used."""
    removed: list[str]
    language: str
    """The language that most documents are written in."""

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
    keep_others: bool = False,
) -> IndexReport:
    """Make `store` hold exactly `documents` (the whole corpus), as one new generation if anything changed.

    With `keep_others`, documents that are not among them stay too: new and changed ones are added at a cost that does
    not depend on the size of the index.

    Documents whose content and meta are unchanged are left alone, unless the chunk settings changed: then all are
    cut anew, and texts that come out the same keep their embeddings. Killed at any moment, the last generation stays
    and finished embeddings are found again. `rebuild` makes and embeds all anew, whoever made the index. Raises
    `IndexMismatch` where that was another embedder and `rebuild` is not set, `IndexLocked` where another process
    writes, `RagError` on no or doubled documents.
    """
    started = time.perf_counter()
    with writer_lock(store.path):
        replace = _check_embedder(store, embedder, rebuild)
        plan = _plan(list(documents), store, config, replace, keep_others)
        embedded = 0
        if plan.work or plan.removed:
            embedded = _apply(plan, store, embedder, config, progress)
        from rag.derived import update_derived

        chunks = store.count_documents()
        if chunks:
            update_derived(store, config.heading_context)
        return plan.report(chunks, embedded, time.perf_counter() - started)


def _check_embedder(store: EmbeddedStore, embedder: Embedder, rebuild: bool) -> bool:
    """Return whether all must be made and embedded anew; raise where only `rebuild` would do."""
    made_by = store.setting("embedder")
    if not rebuild and made_by not in ("", embedder.fingerprint):
        raise IndexMismatch(
            f"{store.path}: made by embedder {made_by}, not {embedder.fingerprint}; "
            "go back to that embedder, or make the index anew with versus index --rebuild"
        )
    return rebuild and bool(made_by)


def _plan(
    documents: Sequence[Document], store: EmbeddedStore, config: RagConfig, replace: bool, keep_others: bool
) -> _Plan:
    if not documents:
        raise RagError("there are no documents to index; check the corpus folder")
    twice = [identity for identity, count in Counter(document.id for document in documents).items() if count > 1]
    if twice:
        raise RagError(f"document ids that occur more than once: {', '.join(sorted(twice)[:5])}")
    hashes = {document.id: document_hash(document) for document in documents}
    known = store.source_hashes(list(hashes) if keep_others else None)
    made_with = store.setting("chunk_hash")
    anew = replace or made_with != config.chunk_hash()
    if anew and keep_others and made_with:
        raise IndexMismatch(f"{store.path}: made with other settings; index the whole corpus once with versus index")
    work = [document for document in documents if anew or known.get(document.id) != hashes[document.id]]
    removed = [identity for identity in known if identity not in hashes]
    languages = Counter(str(document.meta.get("language") or "en") for document in documents)
    language = store.setting("language") if keep_others else ""
    return _Plan(hashes, known, work, anew, replace, removed, language or languages.most_common(1)[0][0])


def document_hash(document: Document) -> str:
    """Return the hash by which a document counts as changed: of its content and its meta."""
    meta = json.dumps(document.meta, sort_keys=True, default=str)
    return hashlib.sha256(f"{meta}\0{document.content or ''}".encode()).hexdigest()


def _apply(plan: _Plan, store: EmbeddedStore, embedder: Embedder, config: RagConfig, progress: Progress | None) -> int:
    """Embed what is new, then commit the plan as one generation; return how many texts were embedded."""
    chunks = [chunk for document in plan.work for chunk in chunk_document(document, config)]
    texts = {chunk.id: indexed_text(chunk, config.heading_context) for chunk in chunks}
    keys = {identity: _embedding_key(embedder, text, config) for identity, text in texts.items()}
    by_key = {keys[chunk.id]: chunk for chunk in chunks}
    embedded = _embed_new(by_key, store, embedder, config, progress, plan.rebuilt)
    with store.committing() as connection:
        if plan.anew:
            begin_anew(connection)
        _forget(connection, [*plan.removed, *(document.id for document in plan.work)])
        for document in plan.work:
            put_source(connection, document, plan.hashes[document.id])
        insert_chunks(connection, ((chunk, keys[chunk.id]) for chunk in chunks))
        _note_settings(connection, plan, embedder, config)
    return embedded


def _embedding_key(embedder: Embedder, text: str, config: RagConfig) -> str:
    how = "sentences" if config.sentence_vectors else "whole"
    return hashlib.sha256(f"{embedder.fingerprint}\0{how}\0{text}".encode()).hexdigest()


def _embed_new(
    chunks: dict[str, Document],
    store: EmbeddedStore,
    embedder: Embedder,
    config: RagConfig,
    progress: Progress | None,
    rebuilt: bool,
) -> int:
    """Embed those `chunks` (key → chunk) that the store has no embedding of, or all, keeping them batch by batch."""
    with store.keeping_vectors() as connection:
        known = set() if rebuilt else known_vectors(connection, list(chunks), config.sentence_vectors)
    missing = sorted((key for key in chunks if key not in known), key=lambda key: (len(chunks[key].content or ""), key))
    for first in range(0, len(missing), embedder.at_once):
        keys = missing[first : first + embedder.at_once]
        vectors, packed = _embedded([chunks[key] for key in keys], embedder, config)
        with store.keeping_vectors() as connection:
            save_vectors(connection, keys, vectors)
            save_sentences(connection, dict(zip(keys, packed, strict=False)))
        if progress:
            progress(first + len(keys), len(missing))
    return len(missing)


def _embedded(
    chunks: Sequence[Document], embedder: Embedder, config: RagConfig
) -> tuple[NDArray[np.float32], list[bytes]]:
    """Return a vector for each chunk, shape (n, d), and its packed sentence vectors where the config wants them."""
    import numpy as np

    from rag.vectors import pack_sentences

    if not config.sentence_vectors:
        return embedder.embed_documents([indexed_text(chunk, config.heading_context) for chunk in chunks]), []
    texts = [sentence_texts(chunk, config.heading_context) for chunk in chunks]
    vectors = embedder.embed_documents([text for own in texts for text in own])
    ends = np.cumsum([len(own) for own in texts])
    parts = np.split(vectors, ends[:-1])
    means = np.stack([part.mean(axis=0) for part in parts])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return means, [pack_sentences(part) for part in parts]


def _forget(connection: sqlite3.Connection, document_ids: Iterable[str]) -> None:
    keys = [(identity,) for identity in document_ids]
    connection.executemany("DELETE FROM chunks WHERE document = ?", keys)
    connection.executemany("DELETE FROM documents WHERE id = ?", keys)


def _note_settings(connection: sqlite3.Connection, plan: _Plan, embedder: Embedder, config: RagConfig) -> None:
    put_setting(connection, "embedder", embedder.fingerprint)
    put_setting(connection, "dimension", str(embedder.dimension))
    put_setting(connection, "chunk_hash", config.chunk_hash())
    put_setting(connection, "sentences", str(int(config.sentence_vectors)))
    put_setting(connection, "language", plan.language)
