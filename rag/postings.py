"""BM25 (Robertson and Zaragoza 2009) over immutable segments: counts are kept, scores are made when asked.

Because each segment keeps counts and not scores, the inverse document frequencies and the mean length are those of all
live passages, however they are spread over segments: adding or removing a document rebuilds nothing, and scores are
the same as those of an index built at once. Terms are single words and pairs of neighbouring words, as 64-bit hashes,
so that no vocabulary has to be read on opening.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from rag.lexical import lucene_idf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag.lexical import Tokenizer

    Mask = NDArray[np.bool_]

K1, B = 0.6, 0.75
"""BM25's constants, chosen on the train and dev questions of two manuals (see benchmarks/RESULTS.md)."""

ARRAYS = ("terms", "starts", "passages", "counts", "lengths")
"""Names of the arrays that make up `Postings`."""

_BLOCK = 20_000
"""Passages sorted at once; larger lists are built in blocks and merged, which bounds memory."""

_WORD_BITS = (1 << 64) - 1
_PAIR = 0x9E3779B97F4A7C15


@lru_cache(maxsize=500_000)
def term_hash(term: str) -> int:
    """Return the 64-bit hash by which a term is known."""
    return int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "little")


def hashed_terms(text: str, tokenizer: Tokenizer) -> list[int]:
    """Return the hashes of the index terms of `text`: its words, their parts, and its word pairs."""
    hashes = [term_hash(term) for term in tokenizer(text)]
    hashes.extend((term_hash(a) * _PAIR + term_hash(b)) & _WORD_BITS for a, b in tokenizer.pairs(text))
    return hashes


@dataclass(frozen=True)
class Postings:
    """Which passages of a segment hold which term how often."""

    terms: NDArray[np.uint64]
    """Hashes, ascending, shape (t,)."""
    starts: NDArray[np.int64]
    """Shape (t + 1,): the postings of term i are those from starts[i] to starts[i + 1]."""
    passages: NDArray[np.int32]
    """Passage numbers, ascending within a term."""
    counts: NDArray[np.uint8]
    """How often the term stands in that passage, 255 at most."""
    lengths: NDArray[np.int32]
    """Terms per passage, shape (n,)."""

    @property
    def size(self) -> int:
        """Number of passages."""
        return len(self.lengths)

    def of(self, term: int) -> slice:
        """Return where the postings of the hash `term` lie; an empty slice where no passage holds it."""
        import numpy as np

        place = int(np.searchsorted(self.terms, np.uint64(term)))
        if place == len(self.terms) or int(self.terms[place]) != term:
            return slice(0, 0)
        return slice(int(self.starts[place]), int(self.starts[place + 1]))


def build_postings(texts: Sequence[str], tokenizer: Tokenizer) -> Postings:
    """Return the postings of `texts`, numbered from 0."""
    import numpy as np

    blocks = [_block(texts[first : first + _BLOCK], tokenizer) for first in range(0, len(texts), _BLOCK)]
    if len(blocks) == 1:
        return blocks[0]
    return merge_postings(blocks, [np.ones(block.size, dtype=bool) for block in blocks])


def _block(texts: Sequence[str], tokenizer: Tokenizer) -> Postings:
    import numpy as np

    rows = [np.array(hashed_terms(text, tokenizer), dtype=np.uint64) for text in texts]
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    terms = np.concatenate(rows) if rows else np.zeros(0, np.uint64)
    owners = np.repeat(np.arange(len(rows), dtype=np.int32), lengths)
    order = np.argsort(terms, kind="stable")
    terms, owners = terms[order], owners[order]
    first = np.ones(len(terms), dtype=bool)
    first[1:] = (terms[1:] != terms[:-1]) | (owners[1:] != owners[:-1])
    marks = np.flatnonzero(first)
    counts = np.diff(np.append(marks, len(terms)))
    terms, owners = terms[marks], owners[marks]
    heads = np.flatnonzero(np.append(True, terms[1:] != terms[:-1])) if len(terms) else np.zeros(0, np.int64)
    starts = np.append(heads, len(terms)).astype(np.int64)
    return Postings(terms[heads], starts, owners, np.minimum(counts, 255).astype(np.uint8), lengths)


def merge_postings(parts: Sequence[Postings], alive: Sequence[Mask]) -> Postings:
    """Return one `Postings` of the live passages of `parts`, numbered on in their order; nothing is sorted anew."""
    import numpy as np

    parts = [_only(part, mask) for part, mask in zip(parts, alive, strict=True)]
    terms = _union([part.terms for part in parts])
    places = [np.searchsorted(terms, part.terms) for part in parts]
    held = np.zeros(len(terms), dtype=np.int64)
    for part, place in zip(parts, places, strict=True):
        held[place] += np.diff(part.starts)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(held)])
    passages = np.empty(int(starts[-1]), dtype=np.int32)
    counts = np.empty(int(starts[-1]), dtype=np.uint8)
    filled, offset = starts[:-1].copy(), 0
    for part, place in zip(parts, places, strict=True):
        sizes = np.diff(part.starts)
        target = np.repeat(filled[place] - part.starts[:-1], sizes) + np.arange(len(part.passages))
        passages[target] = part.passages + offset
        counts[target] = part.counts
        filled[place] += sizes
        offset += part.size
    lengths = np.concatenate([part.lengths for part in parts]) if parts else np.zeros(0, np.int32)
    return Postings(terms, starts, passages, counts, lengths)


def _union(arrays: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    import numpy as np

    return np.unique(np.concatenate(arrays)) if arrays else np.zeros(0, np.uint64)


def _only(part: Postings, alive: Mask) -> Postings:
    """Return `part` without the passages that are not alive."""
    import numpy as np

    if alive.all():
        return part
    numbers = (np.cumsum(alive) - 1).astype(np.int32)
    kept = alive[part.passages]
    sizes = np.add.reduceat(np.append(kept, False).astype(np.int64), part.starts[:-1]) if len(part.terms) else kept[:0]
    held = sizes > 0
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[held])]).astype(np.int64)
    passages = numbers[part.passages[kept]]
    return Postings(part.terms[held], starts, passages, part.counts[kept], part.lengths[alive])


class SegmentedBm25:
    """BM25 over several segments as if they were one; passage i is the i-th of their passages in order.

    `alive[s]` tells which passages of segment s count; None stands for all.
    """

    def __init__(self, parts: Sequence[Postings], alive: Sequence[Mask | None], tokenizer: Tokenizer) -> None:
        import numpy as np

        self._parts, self._alive, self._tokenizer = list(parts), list(alive), tokenizer
        self.size = sum(part.size for part in parts)
        lengths = [p.lengths if a is None else p.lengths[a] for p, a in zip(parts, alive, strict=True)]
        self._live = sum(len(part) for part in lengths)
        whole = sum(int(part.sum(dtype=np.int64)) for part in lengths)
        mean = whole / self._live if self._live else 1.0
        self._norms = [(K1 * (1 - B) + K1 * B / max(mean, 1e-9) * p.lengths).astype(np.float32) for p in parts]

    def scores(self, query: str) -> NDArray[np.float32]:
        """Return the score of every passage, shape (size,); 0 for dead ones.

        It is the sum over the query's terms, a repeated one counted as often, of
        idf · count / (count + k1 · (1 - b + b · length / mean length)).
        """
        import numpy as np

        found = np.zeros(self.size, dtype=np.float32)
        for term, repeated in Counter(hashed_terms(query, self._tokenizer)).items():
            places = [part.of(term) for part in self._parts]
            weight = repeated * lucene_idf(self._holding(places), self._live)
            first = 0
            for part, norm, place in zip(self._parts, self._norms, places, strict=True):
                if place.stop > place.start:
                    passages = part.passages[place]
                    counts = part.counts[place].astype(np.float32)
                    found[first : first + part.size][passages] += weight * counts / (counts + norm[passages])
                first += part.size
        return self._without_dead(found)

    def idf(self, query: str) -> dict[str, float]:
        """Return the inverse document frequency of each single term of `query`."""
        terms = dict.fromkeys(self._tokenizer(query))
        places = {term: [part.of(term_hash(term)) for part in self._parts] for term in terms}
        return {term: lucene_idf(self._holding(place), self._live) for term, place in places.items()}

    def _holding(self, places: Iterable[slice]) -> int:
        """Return how many live passages the postings at `places` (one slice a segment) name."""
        held = 0
        for part, alive, place in zip(self._parts, self._alive, places, strict=True):
            held += place.stop - place.start if alive is None else int(alive[part.passages[place]].sum())
        return held

    def _without_dead(self, found: NDArray[np.float32]) -> NDArray[np.float32]:
        first = 0
        for part, alive in zip(self._parts, self._alive, strict=True):
            if alive is not None:
                found[first : first + part.size] *= alive
            first += part.size
        return found
