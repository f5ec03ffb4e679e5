"""Segments: immutable search structures over a range of the store's chunks, kept as plain arrays beside it.

A segment is a folder of `.npy` files (and a FAISS file where it is large), opened memory-mapped. Each file is checked
on opening, so that a damaged one is noticed before it is searched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rag import postings as bm25
from rag import vectors as dense
from rag.arrays import read_array
from rag.errors import StoreError
from rag.postings import Postings, build_postings, merge_postings, term_hash
from rag.prompts import indexed_text
from rag.tables import GIVEN, altered, check_vector, chunk_of, document_of, read_setting
from rag.vectors import Sentences, matrix_of, merge_sentences, unpack_sentences

if TYPE_CHECKING:
    import sqlite3

    import numpy as np
    from numpy.typing import NDArray

    from rag.lexical import Tokenizer

    Mask = NDArray[np.bool_]

_CHECKS = "checks.json"
_SUMMED = 1 << 22
"""Bytes read at once for a check."""
_MAPPED_FROM = 1 << 16
"""Bytes from which a file is memory-mapped (an empty array cannot be)."""


@dataclass(frozen=True)
class Segment:
    """The chunks of some rows of the store; position i of everything is the chunk in row `rows[i]`."""

    name: str
    """Of its folder; begins with the first and last row that it answers for."""
    rows: NDArray[np.int64]
    documents: NDArray[np.uint64]
    """A hash of each chunk's document."""
    matrix: NDArray[np.float32]
    """Chunk vectors, unit length or zero, shape (n, d)."""
    ivf: Any
    """A FAISS inverted file over `matrix`, or None where all vectors are compared."""
    sentences: Sentences
    postings: Postings

    @property
    def size(self) -> int:
        """Number of chunks, dead ones included."""
        return len(self.rows)

    @property
    def span(self) -> tuple[int, int]:
        """The first and last row of the store that this segment answers for."""
        first, last = self.name.split("-")[:2]
        return int(first), int(last)

    def best_cosines(self, positions: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return for each position the best cosine of the chunk or one of its sentences with `query`."""
        import numpy as np

        best: NDArray[np.float32] = np.maximum(self.matrix[positions] @ query, self.sentences.best(positions, query))
        return best


def build_segment(
    span: tuple[int, int], chunks: Sequence[ChunkRow], dimension: int, tokenizer: Tokenizer, ivf: bool = True
) -> Segment:
    """Return the segment of `chunks`, the live ones of the rows in `span`; without `ivf` it is only to be merged."""
    import numpy as np

    matrix = matrix_of([chunk.vector for chunk in chunks], dimension)
    return Segment(
        segment_name(span),
        np.array([chunk.row for chunk in chunks], dtype=np.int64),
        np.array([term_hash(chunk.document) for chunk in chunks], dtype=np.uint64),
        matrix,
        dense.build_ivf(matrix) if ivf and len(matrix) > dense.FLAT_UP_TO else None,
        unpack_sentences([chunk.sentences for chunk in chunks], dimension),
        build_postings([chunk.text for chunk in chunks], tokenizer),
    )


@dataclass(frozen=True)
class ChunkRow:
    """What a segment is made from: one chunk as it stands in the store."""

    row: int
    document: str
    text: str
    vector: bytes | None
    sentences: bytes | None


def read_chunks(
    connection: sqlite3.Connection, rows: tuple[int, int], most: int, heading_context: bool
) -> list[ChunkRow]:
    """Return the first `most` chunks of the rows from `rows[0]` to `rows[1]`, as segments are made from them.

    Raises `StoreError` where a chunk, its vectors, or the ties between them are not what was written.
    """
    found = connection.execute(
        "SELECT row, document, id, content, chunks.meta, chunks.crc, embedding, "
        "vector, embeddings.crc, vectors, sentences.crc FROM chunks "
        "LEFT JOIN embeddings ON embeddings.hash = embedding LEFT JOIN sentences ON sentences.hash = embedding "
        "WHERE row BETWEEN ? AND ? ORDER BY row LIMIT ?",
        (*rows, most),
    )
    by_sentences = read_setting(connection, "sentences") == "1"
    chunks = []
    for row, document, identity, content, meta, crc, key, vector, vector_crc, vectors, vectors_crc in found:
        chunk = chunk_of(connection, identity, content, meta, crc)
        lost = bool(key) and (vector is None or (by_sentences and vectors is None and not key.startswith(GIVEN)))
        if lost or document != document_of(chunk):
            raise altered(connection, f"what belongs to {identity}")
        check_vector(connection, identity, vector or b"", vector_crc)
        check_vector(connection, identity, vectors or b"", vectors_crc)
        chunks.append(ChunkRow(row, document, indexed_text(chunk, heading_context), vector, vectors))
    return chunks


def segment_name(span: tuple[int, int]) -> str:
    """Return a new folder name for a segment of the rows `span`."""
    return f"{span[0]}-{span[1]}-{os.urandom(4).hex()}"


def merge_from(sizes: Sequence[int]) -> int:
    """Return from which segment on all later ones are merged: the last four, and those before that are no larger.

    Each chunk is so rewritten a number of times that grows with the logarithm of the index's size (O'Neil et al. 1996).
    """
    start = max(0, len(sizes) - 4)
    together = sum(sizes[start:])
    while start and sizes[start - 1] <= together:
        start -= 1
        together += sizes[start]
    return start


def merge_segments(parts: Sequence[Segment], alive: Sequence[Mask]) -> Segment:
    """Return one segment of the live chunks of neighbouring `parts`; no text is read and nothing is embedded."""
    import numpy as np

    matrix = np.concatenate([part.matrix[mask] for part, mask in zip(parts, alive, strict=True)])
    return Segment(
        segment_name((parts[0].span[0], parts[-1].span[1])),
        np.concatenate([part.rows[mask] for part, mask in zip(parts, alive, strict=True)]),
        np.concatenate([part.documents[mask] for part, mask in zip(parts, alive, strict=True)]),
        matrix,
        dense.build_ivf(matrix) if len(matrix) > dense.FLAT_UP_TO else None,
        merge_sentences([part.sentences for part in parts], alive),
        merge_postings([part.postings for part in parts], alive),
    )


def _arrays(segment: Segment) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "rows": segment.rows,
        "documents": segment.documents,
        "matrix": segment.matrix,
    }
    arrays.update({name: getattr(segment.sentences, name) for name in dense.SENTENCE_ARRAYS})
    arrays.update({name: getattr(segment.postings, name) for name in bm25.ARRAYS})
    return arrays


def save_segment(segment: Segment, folder: Path) -> Segment:
    """Write `segment` below `folder` under its name, whole or not at all; return it opened from there."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        for name, array in _arrays(segment).items():
            np.save(work / f"{name}.npy", array, allow_pickle=False)
        if segment.ivf is not None:
            import faiss

            faiss.write_index(segment.ivf, str(work / "ivf.faiss"))
        checks = {path.name: file_check(path) for path in sorted(work.iterdir())}
        (work / _CHECKS).write_text(json.dumps(checks), encoding="utf-8")
        work.rename(folder / segment.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return replace(_open(folder / segment.name), ivf=segment.ivf)


def load_segment(folder: Path) -> Segment:
    """Open the segment kept in `folder`; raises `StoreError` where a file is missing or altered."""
    try:
        checks = json.loads((folder / _CHECKS).read_text(encoding="utf-8"))
        for name, expected in checks.items():
            if file_check(folder / name) != expected:
                raise StoreError(f"{folder / name}: damaged")
        segment = _open(folder)
        if "ivf.faiss" in checks:
            import faiss

            return replace(segment, ivf=faiss.read_index(str(folder / "ivf.faiss")))
    except (OSError, ValueError, AttributeError, RuntimeError, KeyError) as error:
        raise StoreError(f"{folder}: the segment cannot be opened ({error})") from error
    return segment


def _open(folder: Path) -> Segment:
    import numpy as np

    def array(name: str) -> NDArray[Any]:
        path = folder / f"{name}.npy"
        mode: Literal["r"] | None = "r" if path.stat().st_size > _MAPPED_FROM else None
        return read_array(path, mode).view(np.ndarray)

    sentences = Sentences(*(array(name) for name in dense.SENTENCE_ARRAYS))
    postings = Postings(*(array(name) for name in bm25.ARRAYS))
    return Segment(folder.name, array("rows"), array("documents"), array("matrix"), None, sentences, postings)


def file_check(path: Path) -> str:
    """Return a check of the file at `path`: its size and the hash of the sums of its 4 KB blocks.

    Any altered byte changes it. Sums are read as fast as memory allows, where SHA-256 over everything would make a
    large index slow to open; nothing here guards against forgery.
    """
    import numpy as np

    digest = hashlib.sha256(str(path.stat().st_size).encode())
    with path.open("rb") as file:
        while part := file.read(_SUMMED):
            words = np.frombuffer(part + b"\0" * (-len(part) % 4096), dtype="<u8").reshape(-1, 512)
            digest.update(words.sum(axis=1, dtype=np.uint64).tobytes())
    return digest.hexdigest()
