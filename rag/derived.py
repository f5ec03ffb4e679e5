"""What is derived from the store for fast search: a FAISS index and a BM25 index of one generation.

Both lie in a folder beside the SQLite file, with the generation they belong to and their hashes. Where they are
missing, stale or damaged they are rebuilt from SQLite.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import IndexMismatch, StoreError
from rag.lexical import Bm25sIndex, LexicalIndex, Tokenizer, make_lexical_index
from rag.locking import writer_lock
from rag.openvino_model import file_sha256
from rag.prompts import indexed_text
from rag.store import EmbeddedStore, mended

if TYPE_CHECKING:
    import sqlite3

    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Vectors = NDArray[np.float32]

_HASHES = "hashes.json"


@dataclass(frozen=True)
class Snapshot:
    """The search structures of one generation; position i of both indexes is the chunk in row `rows[i]`."""

    generation: int
    rows: Rows
    vectors: Any
    """A FAISS flat inner-product index."""
    lexical: LexicalIndex

    def positions_of(self, rows: Rows) -> Rows:
        """Return the positions of the chunks in `rows` (which must be there)."""
        import numpy as np

        positions: Rows = np.searchsorted(self.rows, rows).astype(np.int64)
        return positions


def load_snapshot(store: EmbeddedStore, engine: str, heading_context: bool) -> Snapshot:
    """Return the committed generation's search structures: from disk if sound, else rebuilt and kept if possible.

    Raises `IndexMismatch` where nothing was ever indexed.
    """
    with store.reading() as connection:
        generation = store.generation
        if connection is None or generation == 0:
            raise IndexMismatch(f"{store.path}: there is no index here; make it with versus index")
        folder = _folder(store.path, generation, engine)
        tokenizer = Tokenizer(store.setting("language", "en"))
        ready = _read(folder, generation, engine, tokenizer) if engine == "bm25s" else None
        if ready is not None:
            return ready
        snapshot = _build(
            connection, generation, engine, tokenizer, heading_context, int(store.setting("dimension", "0"))
        )
    _keep(snapshot, store, engine)
    return snapshot


def _folder(path: Path, generation: int, engine: str) -> Path:
    return path.with_name(path.stem + ".derived") / f"{generation}-{engine}"


def _build(
    connection: sqlite3.Connection,
    generation: int,
    engine: str,
    tokenizer: Tokenizer,
    heading_context: bool,
    dimension: int,
) -> Snapshot:
    import numpy as np
    from haystack import Document

    found = connection.execute(
        "SELECT row, id, content, chunks.meta, vector FROM chunks LEFT JOIN embeddings ON hash = embedding ORDER BY row"
    ).fetchall()
    chunks = [Document(id=row[1], content=row[2], meta=json.loads(row[3])) for row in found]
    rows = np.array([row[0] for row in found], dtype=np.int64)
    lexical = make_lexical_index(engine, [indexed_text(chunk, heading_context) for chunk in chunks], tokenizer)
    return Snapshot(generation, rows, _flat_index([row[4] for row in found], dimension), lexical)


def _flat_index(blobs: list[bytes | None], dimension: int) -> Any:
    """Return a FAISS inner-product index of the float32 `blobs`; a missing one is the zero vector."""
    import faiss
    import numpy as np

    dimension = dimension or next((len(blob) // 4 for blob in blobs if blob), 1)
    matrix = np.zeros((len(blobs), dimension), dtype=np.float32)
    for position, blob in enumerate(blobs):
        if blob is not None and len(blob) == 4 * dimension:
            matrix[position] = np.frombuffer(blob, dtype="<f4")
    index = faiss.IndexFlatIP(dimension)
    index.add(matrix)
    return index


def _read(folder: Path, generation: int, engine: str, tokenizer: Tokenizer) -> Snapshot | None:
    """Return what `folder` holds if it is whole and unaltered, else None."""
    import faiss
    import numpy as np

    try:
        hashes = json.loads((folder / _HASHES).read_text(encoding="utf-8"))
        if any(file_sha256(folder / name) != expected for name, expected in hashes.items()):
            return None
        rows = np.load(folder / "rows.npy", allow_pickle=False)
        vectors = faiss.read_index(str(folder / "vectors.faiss"))
        return Snapshot(generation, rows, vectors, Bm25sIndex.load(folder / engine, tokenizer))
    except (OSError, ValueError, AttributeError, RuntimeError, StoreError):
        return None


def _keep(snapshot: Snapshot, store: EmbeddedStore, engine: str) -> None:
    """Write `snapshot` beside the store and drop older ones; where that fails, the next reader rebuilds."""
    if not isinstance(snapshot.lexical, Bm25sIndex):
        return
    try:
        with writer_lock(store.path), mended(store.path):
            if store.generation == snapshot.generation:
                _write(snapshot, snapshot.lexical, _folder(store.path, snapshot.generation, engine))
    except (StoreError, OSError, RuntimeError):
        return


def _write(snapshot: Snapshot, lexical: Bm25sIndex, folder: Path) -> None:
    import faiss
    import numpy as np

    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        with (work / "rows.npy").open("wb") as file:
            np.save(file, snapshot.rows)
        faiss.write_index(snapshot.vectors, str(work / "vectors.faiss"))
        lexical.save(work / folder.name.split("-", 1)[1])
        hashes = {path.name: file_sha256(path) for path in sorted(work.iterdir())}
        (work / _HASHES).write_text(json.dumps(hashes), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _drop_others(folder)


def _drop_others(folder: Path) -> None:
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
