"""Markdown as blocks (heading, paragraph, list, table, code) with their exact spans, and where each may be cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORD = re.compile(r"\w+(?:[-.'’/]\w+)*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
"""A line that is a heading: its marks, its words."""
_ITEM = re.compile(r"([ \t]*)([-*+•]|\d{1,9}[.)])[ \t]+")
_ROW = re.compile(r"[ \t]*\|")
_SENTENCE_END = re.compile(
    r"(?<![A-ZА-Я]\.)(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)(?<!\bNo)[.!?…]+[\"'”’»)\]*_]*\s+(?=[\"'“‘«(\[*_`]*[A-ZА-ЯЁ0-9])"
    r"|[。！？]\s*"
)


@dataclass(frozen=True)
class Block:
    """One block of markdown: `text[start:end]` of its document, up to the next block's start."""

    kind: str
    """`heading`, `paragraph`, `list`, `table` or `code`."""
    start: int
    end: int
    level: int = 0
    """Of a heading, 1 to 6."""
    title: str = ""
    """Of a heading."""


def count_words(text: str) -> int:
    """Count the words of `text`; punctuation and table rules do not count."""
    return sum(1 for _ in _WORD.finditer(text))


def scan_blocks(text: str) -> list[Block]:
    """Return the markdown blocks of `text` in order, blank lines left out."""
    return list(_Scanner(text).blocks())


class _Scanner:
    """Reads lines with their offsets and groups them into blocks."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: list[tuple[int, int]] = []
        position = 0
        for line in text.split("\n"):
            self.lines.append((position, position + len(line)))
            position += len(line) + 1

    def line(self, index: int) -> str:
        start, end = self.lines[index]
        return self.text[start:end]

    def blocks(self) -> Iterator[Block]:
        index = 0
        while index < len(self.lines):
            if not self.line(index).strip():
                index += 1
                continue
            kind, after, level, title = self._block_at(index)
            yield Block(kind, self.lines[index][0], self.lines[after - 1][1], level, title)
            index = after

    def _block_at(self, index: int) -> tuple[str, int, int, str]:
        """Return kind, the line after the block, heading level and heading title of the block at line `index`."""
        line = self.line(index)
        if _FENCE.match(line):
            return "code", self._after_fence(index), 0, ""
        if heading := HEADING.match(line):
            return "heading", index + 1, len(heading[1]), _plain(heading[2])
        if _ROW.match(line):
            return "table", self._after_rows(index), 0, ""
        if _ITEM.match(line):
            return "list", self._after_list(index), 0, ""
        after = self._after_paragraph(index)
        if after == index + 1 and after < len(self.lines) and re.fullmatch(r" {0,3}(=+|-{2,})[ \t]*", self.line(after)):
            return "heading", after + 1, 1 if "=" in self.line(after) else 2, _plain(line)
        return "paragraph", after, 0, ""

    def _after_fence(self, index: int) -> int:
        opening = _FENCE.match(self.line(index))
        mark = opening[1] if opening else "```"
        for later in range(index + 1, len(self.lines)):
            line = self.line(later).strip()
            if line.startswith(mark) and not line.strip(mark[0]):
                return later + 1
        return len(self.lines)

    def _after_rows(self, index: int) -> int:
        while index < len(self.lines) and _ROW.match(self.line(index)):
            index += 1
        return index

    def _after_list(self, index: int) -> int:
        """Items, their continuation lines, and blank lines that another item or an indented line follows."""
        index += 1
        while index < len(self.lines):
            line = self.line(index)
            if not line.strip():
                following = self._next_filled(index)
                if following is None or not self._continues_list(following):
                    return index
                index = following
            elif HEADING.match(line) or (not line[0].isspace() and (_FENCE.match(line) or _ROW.match(line))):
                return index
            index += 1
        return index

    def _next_filled(self, index: int) -> int | None:
        return next((i for i in range(index, len(self.lines)) if self.line(i).strip()), None)

    def _continues_list(self, index: int) -> bool:
        line = self.line(index)
        return bool(_ITEM.match(line)) or line.startswith(("  ", "\t"))

    def _after_paragraph(self, index: int) -> int:
        index += 1
        while index < len(self.lines):
            line = self.line(index)
            if not line.strip() or HEADING.match(line) or _FENCE.match(line) or _ROW.match(line) or _ITEM.match(line):
                return index
            if re.fullmatch(r" {0,3}(=+|-{2,})[ \t]*", line):
                return index
            index += 1
        return index


def _plain(heading: str) -> str:
    """Return a heading's words without markdown marks and anchors."""
    text = re.sub(r"\{#[^}]*\}", "", heading)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"[*`]+", "", text).strip()


def block_parts(block: Block, text: str) -> list[tuple[int, int]]:
    """Return the spans that `block` may be cut into; together they cover it without gaps.

    Sentences of a paragraph, top-level items of a list, rows of a table (header and rule together), lines of code.
    """
    content = text[block.start : block.end]
    if block.kind == "paragraph":
        marks = sentence_starts(content)
    elif block.kind == "list":
        marks = _item_starts(content)
    else:
        marks = [match.end() for match in re.finditer("\n", content)]
        marks = [0, *marks[1:]] if block.kind == "table" and has_rule(content) else [0, *marks]
    return [
        (block.start + mark, block.start + following)
        for mark, following in zip(marks, [*marks[1:], len(content)], strict=True)
        if following > mark
    ]


def sentence_starts(text: str) -> list[int]:
    """Return the offsets at which the sentences of `text` begin; the first is 0."""
    return [0, *(match.end() for match in _SENTENCE_END.finditer(text))]


def _item_starts(content: str) -> list[int]:
    items = [(match.start(), len(match[1])) for match in re.finditer(_ITEM.pattern, content, re.MULTILINE)]
    items = [(start, indent) for start, indent in items if start == 0 or content[start - 1] == "\n"]
    outermost = min((indent for _, indent in items), default=0)
    starts = [start for start, indent in items if indent <= outermost + 1]
    return [0, *(start for start in starts if start > 0)]


def has_rule(table: str) -> bool:
    """Tell whether the second line of a table is the rule below its header."""
    lines = table.split("\n", 2)
    return len(lines) > 1 and bool(re.fullmatch(r"[\s|:\-]+", lines[1]))
