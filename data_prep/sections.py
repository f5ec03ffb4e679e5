"""A document's sections: the stretches under its headings, with their place in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CHARACTERS = 4_000
MIN_WORDS = 12
_FENCE_LINE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*$")


@dataclass(frozen=True, slots=True)
class Section:
    """The characters `start:end` of a document, and the headings that stand over them, from the top."""

    document: str
    headings: tuple[str, ...]
    start: int
    end: int

    @property
    def path(self) -> str:
        """The headings in one line."""
        return " › ".join(self.headings)

    def text(self, document_text: str) -> str:
        """Return the section's own characters."""
        return document_text[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Heading:
    """One heading line: its level from 1 to 6, its words, and where its line starts and ends."""

    level: int
    title: str
    start: int
    end: int


def headings(text: str) -> Iterator[Heading]:
    """Yield the headings of a markdown text in order; lines inside code fences are none."""
    position, fence = 0, ""
    for line in text.splitlines(keepends=True):
        mark = _FENCE_LINE.match(line)
        if mark and not fence:
            fence = mark.group(1)
        elif mark and mark.group(1).startswith(fence):
            fence = ""
        elif not fence and (found := _HEADING.match(line)):
            yield Heading(len(found.group(1)), found.group(2), position, position + len(line))
        position += len(line)


def sections(document: str, text: str) -> list[Section]:
    """Cut a text at its headings; sections of under `MIN_WORDS` words go with the next, long ones are cut at blocks."""
    cuts: list[Section] = []
    path: list[Heading] = []
    marks = list(headings(text))
    if not marks or text[: marks[0].start].strip():
        cuts.append(Section(document, (), 0, marks[0].start if marks else len(text)))
    for place, mark in enumerate(marks):
        path = [*(upper for upper in path if upper.level < mark.level), mark]
        end = marks[place + 1].start if place + 1 < len(marks) else len(text)
        cuts.append(Section(document, tuple(heading.title for heading in path), mark.start, end))
    return [piece for section in _joined(cuts, text) for piece in _pieces(section, text)]


def _joined(cuts: list[Section], text: str) -> Iterator[Section]:
    """Join a section that is hardly more than its heading to the one below it."""
    waiting: Section | None = None
    for cut in cuts:
        if waiting is not None and cut.headings[: len(waiting.headings)] == waiting.headings:
            cut = Section(cut.document, waiting.headings, waiting.start, cut.end)
        elif waiting is not None:
            yield waiting
        waiting = cut
        if len(cut.text(text).split()) >= MIN_WORDS:
            yield cut
            waiting = None
    if waiting is not None and waiting.text(text).strip():
        yield waiting


def _pieces(section: Section, text: str) -> Iterator[Section]:
    """Cut a section of over `MAX_CHARACTERS` at a blank line, else at a line, else where it must be."""
    start = section.start
    while section.end - start > MAX_CHARACTERS:
        window = text[start : start + MAX_CHARACTERS]
        cut = max(window.rfind("\n\n"), 0) or max(window.rfind("\n"), 0) or MAX_CHARACTERS - 1
        yield Section(section.document, section.headings, start, start + cut + 1)
        start += cut + 1
    yield Section(section.document, section.headings, start, section.end)
