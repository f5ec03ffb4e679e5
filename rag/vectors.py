"""The vectors of one segment: chunks for finding candidates, sentences for scoring them.

A chunk's own vector is the mean of its sentences' (made when indexing); its score for a query is the best cosine among
both. Candidates are found by comparing all vectors, or, from `FLAT_UP_TO` chunks on, by a FAISS inverted file over
8-bit vectors (IVF-SQ8) whose hits are scored again exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]
    Positions = NDArray[np.int64]
    Scores = NDArray[np.float32]
    Mask = NDArray[np.bool_]

FLAT_UP_TO = 25_000
"""Chunks of a segment up to which all are compared; see benchmarks/RESULTS.md."""

PROBED_SHARE = 0.15
"""Share of the inverted file's lists that a query looks into; at least 8 lists."""

_ROUNDED = 40
"""Hits of the inverted file beyond those asked for that are scored exactly."""

_TRAINED_ON = 40
"""Vectors per list that k-means sees."""

SENTENCE_ARRAYS = ("sentences", "scales", "sentence_starts")


@dataclass(frozen=True)
class Sentences:
    """Sentence vectors of many chunks, 8 bits a component: `sentences[i] * scales[i]` is unit vector i."""

    sentences: NDArray[np.int8]
    scales: NDArray[np.float32]
    sentence_starts: NDArray[np.int64]
    """Shape (n + 1,): the sentences of chunk i are those from [i] to [i + 1]."""

    def best(self, positions: Positions, query: Scores) -> Scores:
        """Return the highest cosine of a sentence of each chunk with `query`; -1 for a chunk without any."""
        import numpy as np

        firsts = self.sentence_starts[positions]
        sizes = self.sentence_starts[positions + 1] - firsts
        found = np.full(len(positions), -1.0, dtype=np.float32)
        if not sizes.any():
            return found
        ends = np.cumsum(sizes)
        places = np.repeat(firsts - (ends - sizes), sizes) + np.arange(ends[-1])
        cosines = (self.sentences[places].astype(np.float32) @ query) * self.scales[places]
        filled = sizes > 0
        found[filled] = np.maximum.reduceat(cosines, (ends - sizes)[filled])
        return found


def pack_sentences(vectors: Matrix) -> bytes:
    """Return unit vectors, shape (m, d), as bytes: m float32 scales, then m times d signed bytes."""
    import numpy as np

    scales = np.abs(vectors).max(axis=1) / 127
    scales[scales == 0] = 1
    packed: bytes = scales.astype("<f4").tobytes() + np.rint(vectors / scales[:, None]).astype(np.int8).tobytes()
    return packed


def unpack_sentences(blobs: Sequence[bytes | None], dimension: int) -> Sentences:
    """Return what `pack_sentences` packed, one blob a chunk; None, or a blob of another size, is no sentence."""
    import numpy as np

    usable = [blob if blob and len(blob) % (4 + dimension) == 0 else b"" for blob in blobs]
    sizes = [len(blob) // (4 + dimension) for blob in usable]
    scales = b"".join(blob[: 4 * size] for blob, size in zip(usable, sizes, strict=True))
    packed = b"".join(blob[4 * size :] for blob, size in zip(usable, sizes, strict=True))
    return Sentences(
        np.frombuffer(packed, np.int8).reshape(-1, dimension),
        np.frombuffer(scales, "<f4").astype(np.float32),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)]),
    )


def merge_sentences(parts: Sequence[Sentences], alive: Sequence[Mask]) -> Sentences:
    """Return the sentences of the live chunks of `parts`, in order."""
    import numpy as np

    sizes = [np.diff(part.sentence_starts) for part in parts]
    kept = [np.repeat(mask, size) for mask, size in zip(alive, sizes, strict=True)]
    live = np.concatenate([size[mask] for size, mask in zip(sizes, alive, strict=True)])
    return Sentences(
        np.concatenate([part.sentences[mask] for part, mask in zip(parts, kept, strict=True)]),
        np.concatenate([part.scales[mask] for part, mask in zip(parts, kept, strict=True)]),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(live)]),
    )


def matrix_of(blobs: Sequence[bytes | None], dimension: int) -> Matrix:
    """Return float32 `blobs` as one matrix, shape (len(blobs), dimension); a missing one is the zero vector."""
    import numpy as np

    matrix = np.zeros((len(blobs), dimension), dtype=np.float32)
    for position, blob in enumerate(blobs):
        if blob is not None and len(blob) == 4 * dimension:
            matrix[position] = np.frombuffer(blob, dtype="<f4")
    return matrix


def build_ivf(matrix: Matrix, seed: int = 0) -> Any:
    """Return a FAISS inverted file over `matrix` with 8-bit vectors and inner product.

    4 √n lists by k-means on a seeded sample (Jégou, Douze and Schmid 2011).
    """
    import faiss
    import numpy as np

    size, dimension = matrix.shape
    lists = max(1, min(int(4 * math.sqrt(size)), size // _TRAINED_ON))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimension), dimension, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.niter, index.cp.seed, index.by_residual = 8, seed + 1, False
    chosen = np.random.default_rng(seed).permutation(size)[: lists * _TRAINED_ON]
    index.train(np.ascontiguousarray(matrix[np.sort(chosen)]))
    for first in range(0, size, 100_000):
        index.add(np.ascontiguousarray(matrix[first : first + 100_000]))
    index.nprobe = max(8, int(lists * PROBED_SHARE))
    return index


def nearest_in(matrix: Matrix, ivf: Any, query: Scores, size: int, alive: Mask | None) -> tuple[Positions, Scores]:
    """Return the positions and cosines of the `size` vectors nearest to `query`, nearest first; dead ones never."""
    import numpy as np

    if ivf is None:
        cosines: Scores = matrix @ query
        positions = np.arange(len(cosines)) if alive is None else np.flatnonzero(alive)
    else:
        positions = _probe(ivf, query, size, alive)
        cosines = np.zeros(0, np.float32)
    found = cosines[positions] if ivf is None else matrix[positions] @ query
    if len(found) > 4 * size:
        best = np.argpartition(-found, size)[:size]
        positions, found = positions[best], found[best]
    order = np.lexsort((positions, -found))[:size]
    return positions[order].astype(np.int64), found[order].astype(np.float32)


def _probe(ivf: Any, query: Scores, size: int, alive: Mask | None) -> Positions:
    """Return candidates from the inverted file: more than asked, since its cosines are rounded."""
    import faiss
    import numpy as np

    settings = {"nprobe": ivf.nprobe}
    if alive is not None:
        bits = np.packbits(alive, bitorder="little")
        settings["sel"] = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
    _, found = ivf.search(query[None], size + _ROUNDED, params=faiss.SearchParametersIVF(**settings))
    positions: Positions = found[0][found[0] >= 0].astype(np.int64)
    return positions
