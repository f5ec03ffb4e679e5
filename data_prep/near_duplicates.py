"""Texts that are nearly the same, found without comparing every pair (MinHash with banding, Broder 1997)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasketch import MinHash

PERMUTATIONS = 128
SHINGLE_WORDS = 3
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """`document` is like `of`, which came first; `share` is the estimated Jaccard index of their word triples.

    Reference pages of one make (two commands with the same options) are as alike as copies are. Only a page with the
    same title and the same numbers `repeats` the other; else both say something of their own.
    """

    document: str
    of: str
    share: float
    same_title: bool
    same_numbers: bool

    @property
    def repeats(self) -> bool:
        """Whether nothing is lost with the second of the two."""
        return self.same_title and self.same_numbers


def shingles(text: str) -> set[str]:
    """Return the word triples of a text, case ignored; the text's words themselves where it has under three."""
    words = _WORD.findall(text.casefold())
    triples = zip(*(words[place:] for place in range(SHINGLE_WORDS)), strict=False)
    return {" ".join(triple) for triple in triples} or set(words)


def sketch(text: str) -> MinHash:
    """Return the MinHash of a text's word triples: two sketches estimate the Jaccard index within about 0.09."""
    from datasketch import MinHash

    made = MinHash(num_perm=PERMUTATIONS, seed=1)
    made.update_batch([shingle.encode() for shingle in sorted(shingles(text))])
    return made


class DuplicateFinder:
    """Takes texts one by one and keeps a sketch of each (1 kB), not the text; `pairs` holds what was found so far."""

    def __init__(self, share: float) -> None:
        from datasketch import MinHashLSH

        self.share = share
        self.pairs: list[NearDuplicate] = []
        self._index = MinHashLSH(threshold=min(share, 0.99), num_perm=PERMUTATIONS) if share <= 1 else None
        self._sketches: dict[str, MinHash] = {}
        self._titles: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def add(self, name: str, text: str) -> None:
        """Compare a text with those before it, and remember it unless it repeats one of them."""
        if self._index is None:
            return
        made, title = sketch(text), title_line(text)
        numbers = hash(tuple(sorted(set(_NUMBER.findall(text)))))
        alike = [(other, made.jaccard(self._sketches[other])) for other in sorted(self._index.query(made))]
        found = [
            NearDuplicate(
                name, other, round(float(share), 3), title == self._titles[other], numbers == self._numbers[other]
            )
            for other, share in alike
            if share >= self.share
        ]
        if found:
            self.pairs.append(max(found, key=lambda pair: (pair.repeats, pair.share)))
        if not any(pair.repeats for pair in found):
            self._index.insert(name, made)
            self._sketches[name], self._titles[name], self._numbers[name] = made, title, numbers


def title_line(text: str) -> str:
    """Return a text's first line that holds a word, without heading marks and in small letters."""
    return next((line.strip(" #*\t").casefold() for line in text.splitlines() if _WORD.search(line)), "")
