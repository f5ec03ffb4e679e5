"""The tables of the embedded store, and what is written to and read from them.

Texts with their metadata, and vectors, carry a check sum (CRC-32, in `crc`), since SQLite keeps none: a byte that a
disk has altered is an error on reading, and never part of an answer.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rag.errors import StoreError

if TYPE_CHECKING:
    import numpy as np
    from haystack import Document
    from numpy.typing import NDArray

FORMAT = 4
"""Version of the tables below; older ones are brought up on opening. Version 1 lacked `sentences`, `removed` and the
trigger; version 2 the columns `crc`, version 3 those of vectors (vectors kept by it have none, and are not checked)."""

_TABLES = """
CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, content TEXT NOT NULL, meta TEXT NOT NULL, crc INTEGER
);
CREATE TABLE IF NOT EXISTS chunks (
    row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, document TEXT NOT NULL,
    content TEXT NOT NULL, meta TEXT NOT NULL, embedding TEXT, crc INTEGER
);
CREATE INDEX IF NOT EXISTS chunks_by_document ON chunks (document);
CREATE INDEX IF NOT EXISTS chunks_by_embedding ON chunks (embedding);
CREATE TABLE IF NOT EXISTS embeddings (hash TEXT PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER);
CREATE TABLE IF NOT EXISTS sentences (hash TEXT PRIMARY KEY, vectors BLOB NOT NULL, crc INTEGER);
CREATE TABLE IF NOT EXISTS removed (row INTEGER PRIMARY KEY, embedding TEXT);
CREATE TRIGGER IF NOT EXISTS chunk_removed AFTER DELETE ON chunks
    BEGIN INSERT OR REPLACE INTO removed VALUES (old.row, old.embedding); END;
"""

_SWEPT_UP_TO = 50_000
"""Chunks up to which every commit looks for unused embeddings everywhere; beyond, only at those of removed chunks."""

_BATCH = 500
"""Keys per SQL statement."""

GIVEN = "given:"
"""Begins the key of a vector that came with its chunk; such chunks have no sentences."""

CHUNK_QUERY = "SELECT row, id, content, meta, crc FROM chunks"
"""Gives the rows that `chunk_of` reads, after the first."""


def chunk_of(connection: sqlite3.Connection, identity: str, content: str, meta: str, crc: int) -> Document:
    """Return a chunk, or a source document, as it was written.

    Raises `StoreError` where text or metadata are not what was written.
    """
    from haystack import Document

    check_text(connection, identity, content, meta, crc)
    return Document(id=identity, content=content, meta=json.loads(meta))


def check_text(connection: sqlite3.Connection, identity: str, content: str, meta: str, crc: int) -> None:
    """Raise `StoreError` unless `crc` is the check sum of that text and metadata."""
    if crc != _crc(identity, content, meta):
        raise altered(connection, f"the text of {identity}")


def check_vector(connection: sqlite3.Connection, identity: str, vector: bytes, crc: int | None) -> None:
    """Raise `StoreError` unless `crc` is the check sum of the vector, or vectors, of the chunk `identity`."""
    if crc is not None and crc != zlib.crc32(vector):
        raise altered(connection, f"the embedding of {identity}")


def altered(connection: sqlite3.Connection, what: str) -> StoreError:
    """Return the error that tells that `what` was altered where it lies, and the mend."""
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    return StoreError(
        f"{path}: {what} is not what was written (the file was altered, or the disk is failing); "
        "make the index anew with versus index --rebuild"
    )


def _crc(identity: str, content: str, meta: str) -> int:
    return zlib.crc32(f"{identity}\0{content}\0{meta}".encode("utf-8", "surrogatepass"))


def open_database(path: Path) -> tuple[sqlite3.Connection, bool]:
    """Return a connection and whether it can only read (a folder that cannot be written)."""
    read_only = not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK))
    address = f"{path.resolve().as_uri()}?{'immutable=1' if read_only and path.exists() else 'mode=rwc'}"
    connection = sqlite3.connect(address, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_TABLES)
    _check_format(connection, path, read_only)
    return connection, read_only


def _check_format(connection: sqlite3.Connection, path: Path, read_only: bool) -> None:
    found = _format(connection)
    if found < FORMAT and not read_only:
        _bring_up(connection)
    elif found not in (0, FORMAT):
        raise StoreError(
            f"{path}: index of format {found}, this version reads {FORMAT}; run versus index --rebuild, or delete it"
        )


def _format(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _bring_up(connection: sqlite3.Connection) -> None:
    """Add what the tables of an older format lack; what stands there now is taken to be what was written."""
    connection.create_function("crc_of", 3, _crc, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _format(connection) < FORMAT:  # no other process was faster
            for table in ("chunks", "documents", "embeddings", "sentences"):
                if "crc" not in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")
            for table in ("chunks", "documents"):
                connection.execute(f"UPDATE {table} SET crc = crc_of(id, content, meta) WHERE crc IS NULL")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def read_setting(connection: sqlite3.Connection, key: str) -> str:
    """Return the value noted under `key`; empty where there is none."""
    row = connection.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
    return str(row[0]) if row else ""


def read_number(connection: sqlite3.Connection, key: str) -> int:
    """Return the number noted under `key`; 0 where there is none. Raises `StoreError` where it is none."""
    value = read_setting(connection, key)
    if value and not value.isdecimal():
        raise altered(connection, f"the {key}")
    return int(value or 0)


def drop_unused(connection: sqlite3.Connection) -> None:
    """Delete embeddings that no chunk uses any more."""
    chunks = connection.execute("SELECT count(*) FROM chunks").fetchone()[0]
    for table in ("embeddings", "sentences"):
        unused = f"DELETE FROM {table} WHERE NOT EXISTS (SELECT 1 FROM chunks WHERE embedding = {table}.hash)"
        if chunks > _SWEPT_UP_TO:
            unused += " AND hash IN (SELECT embedding FROM removed WHERE embedding NOT NULL)"
        connection.execute(unused)
    connection.execute("UPDATE removed SET embedding = NULL WHERE embedding NOT NULL")


def begin_anew(connection: sqlite3.Connection) -> None:
    """Give the index a new identity inside a write transaction, so that nothing derived from the old one is used."""
    put_setting(connection, "index_id", uuid.uuid4().hex)


def put_setting(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Note `value` under `key` inside a write transaction."""
    connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, value))


def insert_chunks(connection: sqlite3.Connection, chunks: Iterable[tuple[Document, str | None]]) -> None:
    """Insert chunks, each with the key of its embedding, inside a write transaction."""
    connection.executemany(
        "INSERT INTO chunks (id, document, content, meta, embedding, crc) VALUES (?, ?, ?, ?, ?, ?)",
        (_chunk_row(chunk, key) for chunk, key in chunks),
    )


def _chunk_row(chunk: Document, key: str | None) -> tuple[object, ...]:
    content, meta = chunk.content or "", _json(chunk.meta)
    return chunk.id, document_of(chunk), content, meta, key, _crc(chunk.id, content, meta)


def document_of(chunk: Document) -> str:
    """Return the id of the document that `chunk` was cut from; its own where it names none."""
    return str(chunk.meta.get("document", chunk.id))


def put_source(connection: sqlite3.Connection, document: Document, sha256: str) -> None:
    """Write one source document inside a write transaction."""
    content, meta = document.content or "", _json(document.meta)
    row = (document.id, sha256, content, meta, _crc(document.id, content, meta))
    connection.execute("INSERT OR REPLACE INTO documents (id, sha256, content, meta, crc) VALUES (?, ?, ?, ?, ?)", row)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def save_vectors(connection: sqlite3.Connection, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
    """Keep `vectors`, float32 of shape (len(keys), d), under `keys`."""
    blobs = (vector.astype("<f4").tobytes() for vector in vectors)
    _save_blobs(connection, "embeddings", zip(keys, blobs, strict=True))


def save_sentences(connection: sqlite3.Connection, packed: Mapping[str, bytes]) -> None:
    """Keep sentence vectors, packed by `rag.vectors.pack_sentences`, under the key of their chunk's embedding."""
    _save_blobs(connection, "sentences", packed.items())


def _save_blobs(connection: sqlite3.Connection, table: str, blobs: Iterable[tuple[str, bytes]]) -> None:
    rows = ((key, blob, zlib.crc32(blob)) for key, blob in blobs)
    connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", rows)


def known_vectors(connection: sqlite3.Connection, keys: Sequence[str], with_sentences: bool) -> set[str]:
    """Return those of `keys` whose embedding is held, and `with_sentences` those of its sentences too."""
    tables = ("embeddings", "sentences") if with_sentences else ("embeddings",)
    found = [select_in(connection, f"SELECT hash FROM {table} WHERE hash IN", keys) for table in tables]
    return set.intersection(*({row[0] for row in rows} for rows in found))


def select_in(connection: sqlite3.Connection, query: str, keys: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run `query (?, ?, ...)` over `keys` in batches."""
    found: list[tuple[Any, ...]] = []
    for first in range(0, len(keys), _BATCH):
        batch = list(keys[first : first + _BATCH])
        marks = ", ".join("?" * len(batch))
        found.extend(cast(Any, connection.execute(f"{query} ({marks})", batch).fetchall()))
    return found


@contextmanager
def mended(path: Path) -> Iterator[None]:
    """Turn the failures of disk and database that a user can mend into `StoreError` that names `path`."""
    try:
        yield
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # sqlite3 decodes the text of its own errors
        raise _explained(path, error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"{path}: {_FULL}") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StoreError(f"{path}: no permission to write here; choose another workspace") from error
        raise


_ROOM = 1 << 17
"""Bytes that SQLite needs beside a database to open it."""

_FULL = "the disk is full; the last index is unharmed, free space and try again"
_DAMAGE = (
    *("malformed", "not a database", "corrupt", "disk I/O error", "unsupported file format", "decode"),
    *("no such table", "no such column", "no column named", "constraint failed", "file is encrypted"),
)
"""What SQLite says of a damaged file: the schema is part of it, so its names may be what is damaged."""


def _no_room(path: Path) -> bool:
    """Tell whether the disk that holds `path` is full: opening a database needs room for what is shared with others."""
    try:
        return shutil.disk_usage(path.parent).free < _ROOM
    except OSError:
        return False


def _short(text: str) -> str:
    """Return the beginning of an error's text, which may hold a whole document."""
    first = text.partition("\n")[0]
    return first if len(first) <= 80 else f"{first[:80]}…"


def _explained(path: Path, error: Exception) -> Exception:
    text = str(error)
    if "disk is full" in text or ("disk I/O error" in text and _no_room(path)):
        return StoreError(f"{path}: {_FULL}")
    if "readonly" in text or "unable to open" in text:
        return StoreError(f"{path}: cannot be written ({text}); check the folder's permissions")
    if "locked" in text:
        return StoreError(f"{path}: another process holds the index; wait for it and try again")
    if any(sign in text for sign in _DAMAGE):
        return StoreError(f"{path}: the index is damaged ({_short(text)}); delete it and run versus index again")
    return error
