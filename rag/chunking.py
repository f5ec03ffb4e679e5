"""Documents to chunks: exact character spans that follow markdown structure.

A document is scanned into blocks (heading, paragraph, list, table, code). Blocks are packed into chunks of about
`chunk_words` words. A heading begins a new chunk; lists, tables and code stay whole up to one and a half times
`chunk_words`, beyond which they are cut between items, rows or lines, and paragraphs between sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rag.config import RagConfig

if TYPE_CHECKING:
    from haystack import Document

SECTION_SEPARATOR = " › "
"""Between the headings of a section path."""

_OVERFLOW = 1.5
"""A block is kept whole up to this many times `chunk_words`."""

_FEW_WORDS = 20
"""A chunk of fewer words than this takes in what follows, also across a heading or into a block that must be cut."""

_WORD = re.compile(r"\w+(?:[-.'’/]\w+)*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
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


@dataclass(frozen=True)
class _Piece:
    """What becomes one chunk: a span, its section, and the header of the table that it begins inside of."""

    start: int
    end: int
    section: tuple[str, ...]
    table_header: str = ""


def count_words(text: str) -> int:
    """Count the words of `text`; punctuation and table rules do not count."""
    return sum(1 for _ in _WORD.finditer(text))


def chunk_document(document: Document, config: RagConfig) -> list[Document]:
    """Cut `document` into chunks in reading order.

    Each chunk's content is `document.content[start:end]` exactly, its id `DOCUMENT#START-END`, and its meta holds
    `document`, `title`, `section` (headings joined with ` › `), `start`, `end`, the document's `language` and
    `source`, and `table_header` where it begins inside a table. All text but white space is in some chunk.
    """
    text = document.content or ""
    cut = _word_windows if config.chunking == "words" else _markdown_pieces
    pieces = [piece for piece in (_trimmed(piece, text) for piece in cut(text, config)) if piece]
    return [_chunk(document, text, piece) for piece in pieces]


def _chunk(document: Document, text: str, piece: _Piece) -> Document:
    from haystack import Document as HaystackDocument

    title = str(document.meta.get("title") or document.id)
    section = [part for index, part in enumerate(piece.section) if index or part != title]
    meta: dict[str, Any] = {
        "document": document.id,
        "title": title,
        "section": SECTION_SEPARATOR.join(section),
        "start": piece.start,
        "end": piece.end,
        "language": document.meta.get("language"),
        "source": document.meta.get("source"),
    }
    if piece.table_header:
        meta["table_header"] = piece.table_header
    identity = f"{document.id}#{piece.start}-{piece.end}"
    return HaystackDocument(id=identity, content=text[piece.start : piece.end], meta=meta)


def _trimmed(piece: _Piece, text: str) -> _Piece | None:
    """Return `piece` without white space at its ends, or None where nothing is left."""
    content = text[piece.start : piece.end]
    stripped = content.strip()
    if not stripped:
        return None
    start = piece.start + content.index(stripped[0])
    return _Piece(start, start + len(stripped), piece.section, piece.table_header)


def _word_windows(text: str, config: RagConfig) -> Iterator[_Piece]:
    words = list(re.finditer(r"\S+", text))
    step = config.chunk_words - config.overlap_words
    for first in range(0, len(words), step):
        last = min(first + config.chunk_words, len(words)) - 1
        yield _Piece(words[first].start(), words[last].end(), ())
        if last == len(words) - 1:
            return


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
        if heading := _HEADING.match(line):
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
            elif _HEADING.match(line) or (not line[0].isspace() and (_FENCE.match(line) or _ROW.match(line))):
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
            if not line.strip() or _HEADING.match(line) or _FENCE.match(line) or _ROW.match(line) or _ITEM.match(line):
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
        marks = [0, *marks[1:]] if block.kind == "table" and _has_rule(content) else [0, *marks]
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


def _has_rule(table: str) -> bool:
    lines = table.split("\n", 2)
    return len(lines) > 1 and bool(re.fullmatch(r"[\s|:\-]+", lines[1]))


@dataclass
class _Unit:
    """What is packed whole: a block, or a part of one too long to stay whole."""

    block: Block
    start: int
    end: int
    words: int
    section: tuple[str, ...]
    table_header: str = ""


def _markdown_pieces(text: str, config: RagConfig) -> list[_Piece]:
    pieces: list[_Piece] = []
    open_units: list[_Unit] = []
    for unit in _units(text, config):
        if open_units and _closes(open_units, unit, config):
            pieces.append(_piece(open_units))
            open_units = []
        open_units.append(unit)
    if open_units:
        pieces.append(_piece(open_units))
    return _with_overlap(pieces, text, config)


def _closes(open_units: list[_Unit], unit: _Unit, config: RagConfig) -> bool:
    """Tell whether the open chunk ends before `unit`."""
    body = sum(open_unit.words for open_unit in open_units)
    only_headings = all(open_unit.block.kind == "heading" for open_unit in open_units)
    if only_headings:
        return False
    if unit.block.kind == "heading":
        return body >= _FEW_WORDS
    room = config.chunk_words * (_OVERFLOW if body < _FEW_WORDS else 1)
    return body + unit.words > room


def _piece(units: list[_Unit]) -> _Piece:
    """Join `units`; the piece's section is the one that most of its words stand in."""
    words: dict[tuple[str, ...], int] = {}
    for unit in units:
        if unit.block.kind != "heading":
            words[unit.section] = words.get(unit.section, 0) + unit.words
    section = max(words, key=lambda path: words[path]) if words else units[-1].section
    return _Piece(units[0].start, units[-1].end, section, units[0].table_header)


def _units(text: str, config: RagConfig) -> Iterator[_Unit]:
    path: list[tuple[int, str]] = []
    for block in scan_blocks(text):
        if block.kind == "heading":
            path = [(level, title) for level, title in path if level < block.level]
            path.append((block.level, block.title))
        section = tuple(title for _, title in path if title)
        words = count_words(text[block.start : block.end])
        if words <= config.chunk_words * _OVERFLOW:
            yield _Unit(block, block.start, block.end, words, section)
        else:
            yield from _cut_block(block, text, section, config)


def _cut_block(block: Block, text: str, section: tuple[str, ...], config: RagConfig) -> Iterator[_Unit]:
    header = ""
    for start, end in block_parts(block, text):
        if block.kind == "table" and start == block.start and _has_rule(text[block.start : block.end]):
            header = text[start:end].split("\n", 1)[0].strip()
        begun_inside = header if start > block.start else ""
        for part_start, part_end in _windows(start, end, text, config):
            words = count_words(text[part_start:part_end])
            yield _Unit(block, part_start, part_end, words, section, begun_inside)


def _windows(start: int, end: int, text: str, config: RagConfig) -> Iterator[tuple[int, int]]:
    """Cut a part that is itself too long: at sentence ends where it has any, else every `chunk_words` words."""
    words = list(re.finditer(r"\S+", text[start:end]))
    if len(words) <= config.chunk_words * _OVERFLOW:
        yield start, end
        return
    starts = sentence_starts(text[start:end])
    bounds = [0]
    for first in range(config.chunk_words, len(words), config.chunk_words):
        limit = words[first].start()
        inside = [mark for mark in starts if bounds[-1] < mark <= limit]
        bounds.append(inside[-1] if inside else limit)
    for mark, following in zip(bounds, [*bounds[1:], end - start], strict=True):
        yield start + mark, start + following


def _with_overlap(pieces: list[_Piece], text: str, config: RagConfig) -> list[_Piece]:
    """Move the start of a chunk that continues a section back over the sentences just before it."""
    if not config.overlap_words:
        return pieces
    widened = pieces[:1]
    for before, piece in pairwise(pieces):
        continues = piece.section == before.section and not _HEADING.match(text[piece.start : piece.end])
        start = _overlap_start(before, piece.start, text, config.overlap_words) if continues else piece.start
        header = "" if start < piece.start else piece.table_header
        widened.append(_Piece(start, piece.end, piece.section, header))
    return widened


def _overlap_start(before: _Piece, start: int, text: str, most_words: int) -> int:
    tail = text[before.start : start]
    if tail.rstrip().endswith("|"):
        return start
    marks = sorted({*sentence_starts(tail), *(match.end() for match in re.finditer("\n", tail))})
    for mark in marks:
        if mark > 0 and tail[mark:].strip() and count_words(tail[mark:]) <= most_words:
            return before.start + mark
    return start
