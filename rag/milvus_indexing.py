"""A corpus into Milvus: like `rag.indexing`, document by document, so that a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rag.chunking import chunk_document
from rag.config import RagConfig
from rag.errors import IndexMismatch, RagError
from rag.indexing import IndexReport, document_hash
from rag.prompts import indexed_text

if TYPE_CHECKING:
    from haystack import Document

    from rag.embedding import Embedder
    from rag.milvus import MilvusStore

Progress = Callable[[int, int], None]

_TOGETHER = 32
"""Documents that are replaced together."""


def index_into_milvus(
    documents: Iterable[Document],
    store: MilvusStore,
    embedder: Embedder,
    config: RagConfig,
    *,
    progress: Progress | None = None,
    rebuild: bool = False,
) -> IndexReport:
    """Make `store` hold exactly `documents`; only what changed is chunked, only new text is embedded.

    A document counts as indexed once all its chunks are written; killed before, it is done again. Raises as
    `rag.indexing.index_documents` does.
    """
    started = time.perf_counter()
    given = _checked(list(documents))
    known, anew = _known(store, embedder, config, rebuild)
    hashes = {document.id: document_hash(document) for document in given}
    work = [document for document in given if anew or known.get(document.id) != hashes[document.id]]
    removed = [identity for identity in known if identity not in hashes]
    if work or removed:
        languages = Counter(str(document.meta.get("language") or "en") for document in given)
        store.put_settings(language=languages.most_common(1)[0][0])
    embedded = 0
    for first in range(0, len(work), _TOGETHER):
        batch = work[first : first + _TOGETHER]
        embedded += _replace_documents(batch, store, embedder, config)
        store.put_rows({document.id: hashes[document.id] for document in batch})
        if progress:
            progress(first + len(batch), len(work))
    store.forget(removed)
    if work or removed:
        generation = str(store.generation + 1)
        store.put_settings(embedder=embedder.fingerprint, chunk_hash=config.chunk_hash(), generation=generation)
    changed = sum(hashes[identity] != sha for identity, sha in known.items() if identity in hashes)
    added = sum(identity not in known for identity in hashes)
    seconds = time.perf_counter() - started
    return IndexReport(
        added, changed, len(removed), len(hashes) - added - changed, store.count_documents(), embedded, seconds
    )


def _checked(documents: Sequence[Document]) -> Sequence[Document]:
    if not documents:
        raise RagError("there are no documents to index; check the corpus folder")
    twice = [identity for identity, count in Counter(document.id for document in documents).items() if count > 1]
    if twice:
        raise RagError(f"document ids that occur more than once: {', '.join(sorted(twice)[:5])}")
    return documents


def _known(store: MilvusStore, embedder: Embedder, config: RagConfig, rebuild: bool) -> tuple[dict[str, str], bool]:
    """Return what is indexed (id → hash), and whether all must be cut anew."""
    made_by = store.setting("embedder")
    if made_by not in ("", embedder.fingerprint):
        if not rebuild:
            raise IndexMismatch(
                f"{store.address}: made by embedder {made_by}, not {embedder.fingerprint}; "
                "go back to that embedder, or make the index anew with versus index --rebuild"
            )
        store.drop()
    return store.source_hashes(), store.setting("chunk_hash", config.chunk_hash()) != config.chunk_hash()


def _replace_documents(batch: Sequence[Document], store: MilvusStore, embedder: Embedder, config: RagConfig) -> int:
    """Write the chunks of some documents, delete what they had before; return how many texts were embedded."""
    chunks = [chunk for document in batch for chunk in chunk_document(document, config)]
    texts = {chunk.id: indexed_text(chunk, config.heading_context) for chunk in chunks}
    keys = {
        name: hashlib.sha256(f"{embedder.fingerprint}\0{text}".encode()).hexdigest() for name, text in texts.items()
    }
    before = [row for rows in store.embeddings_of([document.id for document in batch]).values() for row in rows]
    vectors = {key: vector for _, key, vector in before}
    missing = {keys[name]: text for name, text in texts.items() if keys[name] not in vectors}
    if missing:
        vectors.update(zip(missing, embedder.embed_documents(list(missing.values())), strict=True))
    store.put_chunks(
        [replace(chunk, embedding=vectors[keys[chunk.id]].tolist()) for chunk in chunks],
        [keys[chunk.id] for chunk in chunks],
    )
    store.delete_documents([name for name, _, _ in before if name not in texts])
    return len(missing)
