"""Maximal marginal relevance (Carbonell and Goldstein 1998): good chunks that do not say the same thing twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from haystack import Document
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


def most_diverse(relevance: Sequence[float], vectors: Vectors, k: int, diversity: float) -> list[int]:
    """Return the positions of `k` items, in the order chosen.

    Each step takes the item with the highest (1 - diversity) * relevance - diversity * (largest cosine with an item
    taken before), relevance scaled to [0, 1] over all items. `vectors`: unit length, shape (len(relevance), d). With
    `diversity` 0 this is the order of relevance; ties go to the earlier item.
    """
    import numpy as np

    worth = (1 - diversity) * _scaled(np.asarray(relevance, dtype=np.float32))
    nearest = np.zeros(len(worth), dtype=np.float32)
    left = np.ones(len(worth), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(k, len(worth)):
        best = int(np.argmax(np.where(left, worth - diversity * nearest, -np.inf)))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return chosen


def diversified(chunks: Sequence[Document], vectors: Mapping[str, Vectors], k: int, diversity: float) -> list[Document]:
    """Return `k` of `chunks` by `most_diverse`, from their scores and the `vectors` of their ids.

    A chunk without a vector is unlike all others.
    """
    import numpy as np

    if not chunks:
        return []
    dimension = max((len(vector) for vector in vectors.values()), default=1)
    matrix = np.zeros((len(chunks), dimension), dtype=np.float32)
    for row, chunk in enumerate(chunks):
        if chunk.id in vectors:
            matrix[row] = vectors[chunk.id]
    order = most_diverse([chunk.score or 0.0 for chunk in chunks], matrix, k, diversity)
    return [chunks[position] for position in order]


def _scaled(values: Vectors) -> Vectors:
    spread = float(values.max() - values.min()) if len(values) else 0.0
    scaled: Vectors = (values - values.min()) / spread if spread > 0 else values * 0 + 1
    return scaled
