"""What trafilatura kept of a page, found again among the page's own elements, so that their structure stays.

Trafilatura chooses well but rewrites what it chooses: inline code becomes a block, boxes and definition lists lose
their kind. So its choice is taken and its elements are not: every run of text of the page is looked up in the kept
text, in order; runs that are not in it are cut out of the page, which is then rendered as it stands.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.converting.html_blocks import BLOCK_TAGS
from data_prep.converting.html_inline import SKIPPED
from data_prep.converting.html_pictures import belongs, figure_of
from data_prep.converting.html_tables import is_data

Element = Any
_NO_LETTERS = re.compile(r"\W+")
_LONG = 25
"""Letters from which on a run is looked for in all of the kept text; shorter ones only between such neighbours."""
_SHORT = 4
_PARTLY = 0.6
COVERED = 0.96
"""Least share of the kept letters that must be found again; below it trafilatura's own elements are the better text."""


@dataclass(slots=True)
class Run:
    """Running text between two blocks: what stands in `holder` behind its child `before` (None: at its beginning)."""

    holder: Element
    before: Element | None
    inner: list[Element] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    pictures: list[Element] = field(default_factory=list)
    letters: str = ""
    kept: bool = False
    place: int = -1

    def cut(self) -> None:
        """Take the run out of the page; its pictures that belong to the text stay."""
        if self.before is None:
            self.holder.text = None
        else:
            self.before.tail = None
        for element in self.inner:
            element.tail = None
            for image in element.iter("img"):
                if image in self.pictures:
                    element.addprevious(image)
            if element not in self.pictures:
                self.holder.remove(element)


def letters(text: str) -> str:
    """Return the letters and digits of a text, to compare what two parsers make of one passage."""
    return _NO_LETTERS.sub("", text)


def runs(root: Element) -> list[Run]:
    """Return the runs of text inside `root` in the order of the page; a `pre` is one run."""
    from lxml import etree  # type: ignore[import-untyped]

    holders = _holders(root)
    found = [Run(root, None)]
    walker = etree.iterwalk(root, events=("start", "end"))
    for event, element in walker:
        plain = isinstance(element.tag, str) and element.tag not in SKIPPED
        block = plain and element in holders
        if event == "start":
            if block:
                found.append(Run(element, None, pieces=[element.text or ""]))
                if element.tag == "pre":
                    found[-1].pieces = list(element.itertext())
            elif element is not root:
                found[-1].inner.append(element)
                found[-1].pieces += element.itertext() if plain else ()
            if (not block and element is not root) or element.tag == "pre":
                walker.skip_subtree()
        elif element is not root:
            if block:
                found.append(Run(element.getparent(), element))
            found[-1].pieces.append(element.tail or "")
    for run in found:
        run.letters = letters("".join(run.pieces))
    return [run for run in found if run.letters or run.inner]


def _holders(root: Element) -> set[Element]:
    """Return the elements that are rendered as blocks: block elements, and whatever has one inside."""
    holders: set[Element] = set()
    for element in root.iter(*BLOCK_TAGS):
        step = element
        while step is not None and step not in holders:
            holders.add(step)
            step = step.getparent()
    return holders


def choose(found: Sequence[Run], kept: str) -> float:
    """Mark the runs that the kept letters hold; returns the share of the kept letters that they are."""
    _choose_long(found, kept)
    marks = [place for place, run in enumerate(found) if run.kept]
    taken = sorted((found[mark].place, found[mark].place + len(found[mark].letters)) for mark in marks)
    before = {end: start for (_, start), (end, _) in itertools.pairwise([(0, 0), *taken, (len(kept), 0)])}
    after = {start: end for end, start in before.items()}
    for first, last in itertools.pairwise([None, *marks, None]):
        between = found[0 if first is None else first + 1 : last]
        begin = 0 if first is None else found[first].place + len(found[first].letters)
        end = len(kept) if last is None else found[last].place
        if first is not None:
            _choose_short(between, kept[begin : after.get(begin, begin)])
        if last is not None and (first is None or before.get(end) != begin):
            _choose_short([*reversed(between)], kept[before.get(end, end) : end][::-1], backwards=True)
    return sum(len(run.letters) for run in found if run.kept) / max(len(kept), 1)


def _choose_long(found: Sequence[Run], kept: str) -> None:
    position, used = 0, set()
    for run in found:
        if len(run.letters) < _LONG:
            continue
        place = kept.find(run.letters, position)
        place = kept.find(run.letters) if place < 0 else place
        if place < 0:
            place = _partly(run, kept)
        if place >= 0 and place not in used:
            used.add(place)
            run.kept, run.place = True, place
            position = max(position, place)


def _partly(run: Run, kept: str) -> int:
    """Return where a run stands of which most, in long pieces, was kept; -1 if it was not."""
    places = [(len(text), kept.find(text)) for text in map(letters, run.pieces) if len(text) >= _LONG]
    hits = [(size, place) for size, place in places if place >= 0]
    return hits[0][1] if sum(size for size, _ in hits) >= _PARTLY * len(run.letters) and hits else -1


def _choose_short(between: Sequence[Run], window: str, *, backwards: bool = False) -> None:
    position = 0
    for run in between:
        text = run.letters[::-1] if backwards else run.letters
        if not text or run.kept:
            continue
        place = position if window.startswith(text, position) else -1
        if place < 0 and len(text) >= _SHORT:
            place = window.find(text, position)
        if place >= 0:
            run.kept, position = True, place + len(text)


def keep_whole_tables(found: Sequence[Run]) -> None:
    """Keep a table of data whole if most of its letters are kept, else leave it as it is chosen."""
    tables: dict[Element, list[Run]] = {}
    for run in found:
        for holder in _upwards(run.holder):
            if holder.tag == "table":
                tables.setdefault(holder, []).append(run)
                break
    for table, inside in tables.items():
        size = sum(len(run.letters) for run in inside)
        if 2 * sum(len(run.letters) for run in inside if run.kept) > size and is_data(table):
            for run in inside:
                run.kept = True


def keep_pictures(found: Sequence[Run]) -> None:
    """Mark the pictures that stand among the kept runs, and keep their captions.

    A picture before the first kept run is taken if it is a figure; one behind the last is not.
    """
    places = [place for place, run in enumerate(found) if run.kept]
    first, last = (places[0], places[-1]) if places else (0, -1)
    figures: set[Element] = set()
    for place, run in enumerate(found[: last + 1]):
        for image in (image for element in run.inner for image in element.iter("img")):
            figure = figure_of(image)
            if belongs(image) and (place >= first or figure is not None):
                run.pictures.append(image)
                figures |= {figure} - {None}
            elif run.kept:
                image.set("src", "")
    for run in found:
        if figures and not run.kept and _caption_of(run.holder) in figures:
            run.kept = True


def cut(found: Sequence[Run]) -> None:
    """Cut what is not kept out of the page: blocks without a kept run or picture whole, of others the single runs."""
    needed: set[Element] = set()
    for run in found:
        step = run.holder if run.kept or run.pictures else None
        while step is not None and step not in needed:
            needed.add(step)
            step = step.getparent()
    for run in found:
        if run.holder in needed:
            if not run.kept and run.letters:
                run.cut()
            continue
        top = run.holder
        while (parent := top.getparent()) is not None and parent not in needed:
            top = parent
        if parent is not None:
            top.clear(keep_tail=True)
            top.tag = "div"


def _caption_of(holder: Element) -> Element | None:
    """Return the figure of which `holder` is, or is in, the caption."""
    if not any(element.tag == "figcaption" for element in _upwards(holder, 3)):
        return None
    return next((element for element in _upwards(holder, 5) if element.tag == "figure"), None)


def _upwards(element: Element, most: int = 100) -> Iterator[Element]:
    """Yield an element and the elements it stands in, the nearest first."""
    step: Element | None = element
    while step is not None and most:
        yield step
        step, most = step.getparent(), most - 1
