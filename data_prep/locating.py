"""Where in a document a quoted stretch stands: exactly, or as nearly as a quote from memory comes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

MIN_RATIO = 0.8
"""Least similarity of a fuzzy match: 2M/T of `difflib` over words (Ratcliff and Obershelp 1988)."""
_CANDIDATES = 5
_WORD = re.compile(r"\w+(?:[.,]\d+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class Located:
    """The characters `start:end` of a text, how they were found, and how like the quote they are (1: the same)."""

    start: int
    end: int
    how: str
    ratio: float


@dataclass(frozen=True, slots=True)
class _Word:
    """A word as compared, and where it stands."""

    key: str
    start: int
    end: int


def locate(quote: str, text: str, start: int = 0, end: int | None = None) -> Located | None:
    """Find `quote` in `text`, within `start:end` first and anywhere else after that.

    First character by character (`exact`); then by its words alone, so that case, white space, quotation marks and
    markdown do not count (`words`); then the stretch whose words are most like the quote's (`fuzzy`), which must be
    alike by `MIN_RATIO` and hold every number of the quote. Returns None if there is none.
    """
    quote = quote.strip().strip("\"“”«»'").strip()
    if not _WORD.search(quote):
        return None
    end = len(text) if end is None else end
    place = text.find(quote, start, end)
    if place < 0:
        place = text.find(quote)
    if place >= 0:
        return Located(place, place + len(quote), "exact", 1.0)
    wanted = [word.key for word in _words(quote)]
    return _nearest(wanted, _words(text, start, end)) or _nearest(wanted, _words(text))


def _words(text: str, start: int = 0, end: int | None = None) -> list[_Word]:
    found = _WORD.finditer(text, start, len(text) if end is None else end)
    return [_Word(match.group().casefold(), match.start(), match.end()) for match in found]


def _nearest(wanted: Sequence[str], words: Sequence[_Word]) -> Located | None:
    keys = [word.key for word in words]
    same = _run_of(wanted, keys)
    if same is not None:
        return Located(words[same].start, words[same + len(wanted) - 1].end, "words", 1.0)
    found = [_trimmed(wanted, words[first : first + len(wanted) + 2]) for first in _starts(wanted, keys)]
    fit = [item for item in found if item is not None and item.ratio >= MIN_RATIO]
    return max(fit, key=lambda item: item.ratio, default=None)


def _run_of(wanted: Sequence[str], keys: Sequence[str]) -> int | None:
    """Return where `wanted` stands in `keys` word by word."""
    width = len(wanted)
    for first in range(len(keys) - width + 1):
        if keys[first] == wanted[0] and keys[first : first + width] == wanted:
            return first
    return None


def _starts(wanted: Sequence[str], keys: Sequence[str]) -> list[int]:
    """Return the starts of the windows that share most words with the quote, counted with a sliding window."""
    width, need = len(wanted), Counter(wanted)
    have: Counter[str] = Counter()
    shared, scores = 0, []
    for place, key in enumerate(keys):
        have[key] += 1
        shared += have[key] <= need[key]
        if place >= width:
            gone = keys[place - width]
            shared -= have[gone] <= need[gone]
            have[gone] -= 1
        scores.append((shared, max(0, place - width + 1)))
    best = sorted(scores, key=lambda score: (-score[0], score[1]))[:_CANDIDATES]
    return [first for count, first in best if count >= width / 2]


def _trimmed(wanted: Sequence[str], window: Sequence[_Word]) -> Located | None:
    """Cut a window to its first and last word that the quote has, and compare; None if a number of the quote lacks."""
    matcher = SequenceMatcher(None, wanted, [word.key for word in window], autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size]
    if not blocks:
        return None
    inside = window[blocks[0].b : blocks[-1].b + blocks[-1].size]
    keys = [word.key for word in inside]
    numbers = {word for word in wanted if _NUMBER.fullmatch(word)}
    if not numbers <= set(keys):
        return None
    ratio = SequenceMatcher(None, wanted, keys, autojunk=False).ratio()
    return Located(inside[0].start, inside[-1].end, "fuzzy", round(ratio, 3))
