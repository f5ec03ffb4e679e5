"""BM25 (Robertson and Zaragoza 2009) over immutable segments: counts are kept, scores are made when asked.

Because each segment keeps counts and not scores, the inverse document frequencies and the mean length are those of all
live passages, however they are spread over segments: adding or removing a document rebuilds nothing, and scores are
the same as those of an index built at once. Terms are single words and pairs of neighbouring words, as 64-bit hashes,
so that no vocabulary has to be read on opening.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from rag.lexical import NOISE, best_among, lucene_idf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag.lexical import Hits, Tokenizer

    Mask = NDArray[np.bool_]
    Positions = NDArray[np.int64]
    Scores = NDArray[np.float32]

K1, B = 0.6, 0.75
"""BM25's constants, chosen on the train and dev questions of two manuals (see benchmarks/RESULTS.md)."""

ARRAYS = ("terms", "starts", "passages", "counts", "lengths")
"""Names of the arrays that make up `Postings`."""

_BLOCK = 20_000
"""Passages sorted at once; larger lists are built in blocks and merged, which bounds memory."""

ALL_SCORED_UP_TO = 30_000
"""Passages up to which scoring all of them takes less time than leaving some out."""

_SEARCH_COST = 16
"""How many postings are read in the time in which one passage is looked up among them."""

_ROUNDING = 1.00001
"""Sums in single precision may be off by less than this; passages that near to the k-th best are not given up."""

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


@dataclass(frozen=True)
class _Term:
    """One term of a query: its weight (repeats times idf), and where its postings lie, one slice a segment."""

    weight: float
    places: list[slice]


class SegmentedBm25:
    """BM25 over several segments as if they were one; passage i is the i-th of their passages in order.

    `alive[s]` tells which passages of segment s count; None stands for all.
    """

    def __init__(self, parts: Sequence[Postings], alive: Sequence[Mask | None], tokenizer: Tokenizer) -> None:
        import numpy as np

        self._parts, self._alive, self._tokenizer = list(parts), list(alive), tokenizer
        self._firsts = np.cumsum([0, *(part.size for part in parts)])
        self.size = int(self._firsts[-1])
        self._mask = self._alive_everywhere() if any(mask is not None for mask in alive) else None
        self._dead = [np.zeros(0, np.int64) if mask is None else np.flatnonzero(~mask) for mask in alive]
        lengths = [p.lengths if a is None else p.lengths[a] for p, a in zip(parts, alive, strict=True)]
        self._live = sum(len(part) for part in lengths)
        whole = sum(int(part.sum(dtype=np.int64)) for part in lengths)
        mean = whole / self._live if self._live else 1.0
        self._norms = [(K1 * (1 - B) + K1 * B / max(mean, 1e-9) * p.lengths).astype(np.float32) for p in parts]

    def scores(self, query: str) -> Scores:
        """Return the score of every passage, shape (size,); 0 for dead ones.

        It is the sum over the query's terms, a repeated one counted as often, of
        idf · count / (count + k1 · (1 - b + b · length / mean length)).
        """
        import numpy as np

        found = np.zeros(self.size, dtype=np.float32)
        for term in self._terms(query):
            for passages, gains in self._gains(term):
                found[passages] += gains
        return found if self._mask is None else found * self._mask

    def best(self, query: str, k: int, also: Positions) -> Hits:
        """Return, ascending, the `k` passages that score highest and those of `also`, with what `scores` gives them.

        Ties go to the lower position; see `LexicalIndex.best` on noise. Terms are taken by falling weight, and all
        passages that hold them are scored, until no other passage can come among the best; only what is left is held
        against the other terms (MaxScore; Turtle and Flood 1995). So words that nearly every passage holds cost next
        to nothing.
        """
        import numpy as np

        if self.size <= ALL_SCORED_UP_TO:
            return best_among(self.scores(query), k, also)
        terms = self._terms(query)
        left = self._left(sorted(terms, key=lambda term: -term.weight), k)
        positions = np.union1d(left, also).astype(np.int64)
        scores = self._scores_at(terms, positions)
        own = np.searchsorted(positions, left)
        chosen = own[best_among(scores[own], k, own[:0])[0]]
        kept = np.union1d(chosen, np.searchsorted(positions, also))
        return positions[kept], scores[kept]

    def idf(self, query: str) -> dict[str, float]:
        """Return the inverse document frequency of each single term of `query`."""
        terms = dict.fromkeys(self._tokenizer(query))
        places = {term: [part.of(term_hash(term)) for part in self._parts] for term in terms}
        return {term: lucene_idf(self._holding(place), self._live) for term, place in places.items()}

    def _terms(self, query: str) -> list[_Term]:
        """Return the different terms of `query` that any passage holds."""
        found = []
        for term, repeated in Counter(hashed_terms(query, self._tokenizer)).items():
            places = [part.of(term) for part in self._parts]
            if any(place.stop > place.start for place in places):
                found.append(_Term(repeated * lucene_idf(self._holding(places), self._live), places))
        return found

    def _holding(self, places: Iterable[slice]) -> int:
        """Return how many live passages the postings at `places` (one slice a segment) name."""
        held = 0
        for part, alive, dead, place in zip(self._parts, self._alive, self._dead, places, strict=True):
            size = place.stop - place.start
            if alive is None or not size:
                held += size
            elif len(dead) * _SEARCH_COST < size:
                held += size - len(_found_in(part.passages[place], dead)[0])
            else:
                held += int(alive[part.passages[place]].sum())
        return held

    def _gains(self, term: _Term) -> Iterator[tuple[Positions, Scores]]:
        """Yield, segment by segment, the passages that hold `term` and what each gains by it."""
        for part, norm, first, place in zip(self._parts, self._norms, self._firsts, term.places, strict=False):
            if place.stop > place.start:
                inside = part.passages[place]
                counts: Scores = part.counts[place].astype("float32")
                gains: Scores = term.weight * counts / (counts + norm[inside])
                yield inside + first, gains

    def _scores_at(self, terms: Sequence[_Term], positions: Positions) -> Scores:
        """Return the scores of the passages at `positions` (ascending), to the last bit what `scores` gives them."""
        import numpy as np

        found = np.zeros(len(positions), dtype=np.float32)
        for term in terms:
            self._add_at(term, positions, found)
        return found if self._mask is None else found * self._mask[positions]

    def _add_at(self, term: _Term, positions: Positions, found: Scores) -> None:
        """Add to `found` what the passages at `positions` (ascending) gain by `term`."""
        import numpy as np

        borders = np.searchsorted(positions, self._firsts)
        for number, (part, norm, place) in enumerate(zip(self._parts, self._norms, term.places, strict=True)):
            first, last = borders[number], borders[number + 1]
            if place.stop == place.start or first == last:
                continue
            inside = positions[first:last] - self._firsts[number]
            where, which = _found_in(part.passages[place], inside)
            counts = part.counts[place][where].astype(np.float32)
            found[first + which] += term.weight * counts / (counts + norm[inside[which]])

    def _left(self, terms: Sequence[_Term], k: int) -> Positions:
        """Return, ascending, the live passages among which are the `k` best; `terms` come by falling weight."""
        import numpy as np

        bounds = np.append(np.cumsum([term.weight for term in reversed(terms)])[::-1], 0.0)
        found = np.zeros(self.size, dtype=np.float32)
        seen: list[Positions] = [np.zeros(0, np.int64)]
        taken = 0
        for term, rest in zip(terms, bounds[1:], strict=True):
            for passages, gains in self._gains(term):
                fresh = passages[found[passages] == 0]
                seen.append(fresh if self._mask is None else fresh[self._mask[fresh]])
                found[passages] += gains
            taken += 1
            if rest < bounds[0] - rest and rest * _ROUNDING < _floor(found[np.concatenate(seen)], k):
                break
        left = np.sort(np.concatenate(seen))
        partial = found[left]
        for number in range(taken, len(terms) + 1):
            kept = (partial + bounds[number]) * _ROUNDING >= _floor(partial, k)
            left, partial = left[kept], partial[kept]
            if number < len(terms):
                self._add_at(terms[number], left, partial)
        return left

    def _alive_everywhere(self) -> Mask:
        import numpy as np

        pairs = zip(self._parts, self._alive, strict=True)
        return np.concatenate([np.ones(part.size, dtype=bool) if mask is None else mask for part, mask in pairs])


def _floor(scores: Scores, k: int) -> float:
    """Return what the best `k` passages reach at least, those of these `scores` counted and others perhaps to come."""
    import numpy as np

    kth = float(np.partition(scores, len(scores) - k)[len(scores) - k]) if 0 < k <= len(scores) else 0.0
    return max(kth, NOISE * float(scores.max(initial=0)))


def _found_in(held: NDArray[Any], wanted: NDArray[Any]) -> tuple[Positions, Positions]:
    """Return the places in `held` of those of `wanted` that it holds, and their places in `wanted`; both ascend."""
    import numpy as np

    where = np.searchsorted(held, wanted)
    inside = where < len(held)
    inside[inside] = held[where[inside]] == wanted[inside]
    return where[inside], np.flatnonzero(inside)
