"""The search structures of one generation, as retrieval sees them: segments side by side, and BM25 over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rag.lexical import LexicalIndex, best_among
from rag.segments import Segment
from rag.vectors import nearest_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag.lexical import Hits

    Positions = NDArray[np.int64]
    Scores = NDArray[np.float32]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Snapshot:
    """The search structures of one generation. Positions count through the chunks of all segments, dead ones too."""

    generation: int
    segments: tuple[Segment, ...]
    alive: tuple[Mask | None, ...]
    """Which chunks of each segment this generation holds; None: all."""
    lexical: LexicalIndex

    @cached_property
    def rows(self) -> Positions:
        """The store's row of each position, ascending."""
        import numpy as np

        return np.concatenate([np.zeros(0, np.int64), *(segment.rows for segment in self.segments)])

    @cached_property
    def _firsts(self) -> list[int]:
        import numpy as np

        return [0, *np.cumsum([segment.size for segment in self.segments]).tolist()]

    def positions_of(self, rows: Positions) -> Positions:
        """Return the positions of the chunks in `rows` (which must be there)."""
        import numpy as np

        return np.searchsorted(self.rows, rows).astype(np.int64)

    def nearest(self, query: Scores, size: int) -> Positions:
        """Return the positions of the `size` chunk vectors nearest to the unit vector `query`, nearest first."""
        import numpy as np

        found = [
            nearest_in(segment.matrix, segment.ivf, query, size, mask)
            for segment, mask in zip(self.segments, self.alive, strict=True)
        ]
        if not found:
            return np.zeros(0, np.int64)
        positions = np.concatenate([first + p for first, (p, _) in zip(self._firsts, found, strict=False)])
        cosines = np.concatenate([c for _, c in found])
        return positions[np.lexsort((positions, -cosines))[:size]]

    def cosines(self, positions: Positions, query: Scores, sentences: bool = True) -> Scores:
        """Return the cosine with `query` of the chunk, or of its best sentence where that is higher, shape (n,)."""
        import numpy as np

        found = np.zeros(len(positions), dtype=np.float32)
        for segment, first, own in self._by_segment(positions):
            inside = positions[own] - first
            found[own] = segment.best_cosines(inside, query) if sentences else segment.matrix[inside] @ query
        return found

    def documents(self, positions: Positions) -> NDArray[np.uint64]:
        """Return a hash of the document of each position."""
        import numpy as np

        found = np.zeros(len(positions), dtype=np.uint64)
        for segment, first, own in self._by_segment(positions):
            found[own] = segment.documents[positions[own] - first]
        return found

    def _by_segment(self, positions: Positions) -> Iterator[tuple[Segment, int, Mask]]:
        for segment, first in zip(self.segments, self._firsts, strict=False):
            own = (positions >= first) & (positions < first + segment.size)
            if own.any():
                yield segment, first, own


class PlacedIndex:
    """An index of the live chunks alone, its scores put at their positions."""

    def __init__(self, inner: LexicalIndex, places: Positions, size: int) -> None:
        self._inner, self._places, self.size = inner, places, size

    def scores(self, query: str) -> Scores:
        """See `LexicalIndex.scores`; 0 where no live chunk stands."""
        import numpy as np

        found = np.zeros(self.size, dtype=np.float32)
        found[self._places] = self._inner.scores(query)
        return found

    def best(self, query: str, k: int, also: Positions) -> Hits:
        """See `LexicalIndex.best`."""
        return best_among(self.scores(query), k, also)

    def idf(self, query: str) -> dict[str, float]:
        """See `LexicalIndex.idf`."""
        return self._inner.idf(query)
