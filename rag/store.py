"""The embedded store: one SQLite file (WAL) that is the truth about documents, chunks and embeddings.

What is committed is one generation: readers see the last one whole, however the writer ends. FAISS and BM25 are
derived from it (`rag.derived`).
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.locking import writer_lock
from rag.tables import (
    CHUNK_QUERY,
    GIVEN,
    check_vector,
    chunk_of,
    drop_unused,
    insert_chunks,
    mended,
    open_database,
    put_setting,
    read_number,
    read_setting,
    save_vectors,
    select_in,
)

if TYPE_CHECKING:
    import numpy as np
    from haystack import Document
    from haystack.document_stores.types import DuplicatePolicy
    from numpy.typing import NDArray


class EmbeddedStore:
    """A Haystack `DocumentStore` of chunks in one SQLite file.

    Opening reads nothing and makes nothing; the file is made by the first write. Safe to share between threads
    (a connection each) and between processes (many readers, one writer).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._local = threading.local()

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` needs to open the same store."""
        return {"type": "rag.store.EmbeddedStore", "init_parameters": {"path": str(self.path)}}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EmbeddedStore:
        """Open the store that `to_dict` described."""
        return cls(data["init_parameters"]["path"])

    @property
    def generation(self) -> int:
        """Number of the last committed generation; 0 where nothing was ever committed."""
        return self.number("generation")

    def setting(self, key: str, default: str = "") -> str:
        """Return a value that the indexer noted: `generation`, `embedder`, `dimension`, `chunk_hash`."""
        with self.reading() as connection:
            if connection is None:
                return default
            row = connection.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else default

    def number(self, key: str) -> int:
        """Return a number that the indexer noted; 0 where there is none."""
        with self.reading() as connection:
            return read_number(connection, key) if connection else 0

    def count_documents(self) -> int:
        """Return the number of chunks."""
        return self._count("chunks")

    def count_sources(self) -> int:
        """Return the number of source documents that were cut into chunks."""
        return self._count("documents")

    def count_embeddings(self) -> int:
        """Return the number of distinct embeddings held."""
        return self._count("embeddings")

    def _count(self, table: str) -> int:
        with self.reading() as connection:
            if connection is None:
                return 0
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def first_dimension(self) -> int:
        """Return the length of the first vector held; 1 where there is none."""
        with self.reading() as connection:
            row = connection.execute("SELECT length(vector) FROM embeddings LIMIT 1").fetchone() if connection else None
        return int(row[0]) // 4 if row else 1

    def source_hashes(self, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Return id → SHA-256 of every source document, or of those of `ids` that are there."""
        with self.reading() as connection:
            if connection is None:
                return {}
            query = "SELECT id, sha256 FROM documents"
            if ids is None:
                return dict(connection.execute(query))
            return dict(select_in(connection, f"{query} WHERE id IN", ids))

    def source(self, document_id: str) -> Document | None:
        """Return the source document of that id, or None."""
        with self.reading() as connection:
            if connection is None:
                return None
            query = "SELECT id, content, meta, crc FROM documents WHERE id = ?"
            row = connection.execute(query, (document_id,)).fetchone()
            return chunk_of(connection, *row) if row else None

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return the chunks that match Haystack `filters` (all without), in the order they were indexed."""
        with self.reading() as connection:
            return [chunk for _, chunk in _matching(connection, filters)] if connection else []

    def rows_matching(self, filters: dict[str, Any]) -> list[int]:
        """Return the row numbers of the chunks that match Haystack `filters`, ascending."""
        with self.reading() as connection:
            return [row for row, _ in _matching(connection, filters)] if connection else []

    def chunks_of(self, document_id: str) -> list[Document]:
        """Return the chunks of one source document, in reading order."""
        with self.reading() as connection:
            query = CHUNK_QUERY + " WHERE document = ?"
            rows = connection.execute(query, (document_id,)).fetchall() if connection else []
            chunks = [chunk_of(connection, *row[1:]) for row in rows] if connection else []
        return sorted(chunks, key=lambda chunk: int(chunk.meta.get("start", 0)))

    def vectors_of(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return id → unit vector, float32, of those chunks that are embedded."""
        import numpy as np

        query = "SELECT id, vector, embeddings.crc FROM chunks JOIN embeddings ON hash = embedding WHERE id IN"
        with self.reading() as connection:
            found = select_in(connection, query, ids) if connection else []
            for identity, blob, crc in found:
                assert connection is not None
                check_vector(connection, identity, blob, crc)
        return {identity: np.frombuffer(blob, dtype="<f4").astype(np.float32) for identity, blob, _ in found}

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy | None = None) -> int:
        """Write ready-made chunks, embedded or not, as one generation; return how many were written.

        Raises Haystack's `DuplicateDocumentError` on a known id, unless `policy` is SKIP or OVERWRITE.
        """
        kept = self._after_policy(documents, policy.value if policy else "none")
        with self.committing() as connection:
            self.delete_chunks(connection, [chunk.id for chunk in kept])
            insert_chunks(connection, [(chunk, self._keep_vector(connection, chunk)) for chunk in kept])
        return len(kept)

    def _after_policy(self, documents: list[Document], policy: str) -> list[Document]:
        from haystack.document_stores.errors import DuplicateDocumentError

        latest = list({document.id: document for document in documents}.values())
        known = self._known_ids([document.id for document in latest])
        if policy == "overwrite":
            return latest
        if policy != "skip" and (known or len(latest) < len(documents)):
            raise DuplicateDocumentError(f"{self.path}: ids that are there already: {', '.join(sorted(known)[:5])}")
        return [document for document in latest if document.id not in known]

    def _known_ids(self, ids: Sequence[str]) -> set[str]:
        with self.reading() as connection:
            if connection is None:
                return set()
            return {row[0] for row in select_in(connection, "SELECT id FROM chunks WHERE id IN", ids)}

    def _keep_vector(self, connection: sqlite3.Connection, chunk: Document) -> str | None:
        import numpy as np

        if chunk.embedding is None:
            return None
        key = f"{GIVEN}{chunk.id}"
        vector = np.asarray(chunk.embedding, dtype=np.float32)
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        save_vectors(connection, [key], vector[None])
        return key

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete the chunks of those ids as one generation; unknown ids are passed over."""
        if self._known_ids(document_ids):
            with self.committing() as connection:
                self.delete_chunks(connection, document_ids)

    @staticmethod
    def delete_chunks(connection: sqlite3.Connection, ids: Sequence[str]) -> None:
        """Delete chunks by id inside a transaction of `committing`."""
        connection.executemany("DELETE FROM chunks WHERE id = ?", [(identity,) for identity in ids])

    def chunks_by_row(self, rows: Sequence[int]) -> dict[int, Document]:
        """Return row number → chunk for those of `rows` that exist."""
        with self.reading() as connection:
            if connection is None:
                return {}
            found = select_in(connection, CHUNK_QUERY + " WHERE row IN", rows)
            return {row[0]: chunk_of(connection, *row[1:]) for row in found}

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """Give a connection inside one read transaction (None where there is no index yet); may be nested.

        All that is read inside sees one generation.
        """
        if not self.path.exists():
            yield None
            return
        with mended(self.path):
            connection = self._connection()
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    @contextmanager
    def committing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection inside one write transaction that ends as the next generation, or leaves no trace.

        Raises `IndexLocked` where another process writes.
        """
        with writer_lock(self.path), self._writing() as connection:
            yield connection
            drop_unused(connection)
            if not read_setting(connection, "index_id"):
                put_setting(connection, "index_id", uuid.uuid4().hex)
            put_setting(connection, "generation", str(read_number(connection, "generation") + 1))

    @contextmanager
    def keeping_vectors(self) -> Iterator[sqlite3.Connection]:
        """Give a connection inside a small write transaction that makes no generation: embeddings kept for resuming."""
        with writer_lock(self.path), self._writing() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with mended(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._connection(create=True)
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def _connection(self, create: bool = False) -> sqlite3.Connection:
        known: sqlite3.Connection | None = getattr(self._local, "connection", None)
        inode = self.path.stat().st_ino if self.path.exists() else None
        if known is not None and self._local.inode == inode and not (create and self._local.read_only):
            return known
        self.close()
        connection, read_only = open_database(self.path)
        self._local.connection, self._local.read_only = connection, read_only
        self._local.inode = self.path.stat().st_ino
        return connection

    def close(self) -> None:
        """Close this thread's connection; the next use opens a new one."""
        known: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if known is not None:
            known.close()
            self._local.connection = None


def _matching(connection: sqlite3.Connection, filters: dict[str, Any] | None) -> Iterator[tuple[int, Document]]:
    """Yield row number and chunk of all that match: SQL narrows, Haystack's own function decides."""
    from rag.filters import narrowing

    condition, values = narrowing(filters or {})
    query = f"{CHUNK_QUERY} WHERE {condition} ORDER BY row"
    for row in connection.execute(query, values):
        chunk = chunk_of(connection, *row[1:])
        if not filters or _accepts(filters, chunk):
            yield row[0], chunk


def _accepts(filters: dict[str, Any], chunk: Document) -> bool:
    from haystack.utils.filters import document_matches_filter

    return bool(document_matches_filter(filters, chunk))
