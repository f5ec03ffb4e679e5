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
from rag.markdown import HEADING, Block, block_parts, count_words, has_rule, scan_blocks, sentence_starts

if TYPE_CHECKING:
    from haystack import Document

SECTION_SEPARATOR = " › "
"""Between the headings of a section path."""

_OVERFLOW = 1.5
"""A block is kept whole up to this many times `chunk_words`."""

_FEW_WORDS = 20
"""A chunk of fewer words than this takes in what follows, also across a heading or into a block that must be cut."""


@dataclass(frozen=True)
class _Piece:
    """What becomes one chunk: a span, its section, and the header of the table that it begins inside of."""

    start: int
    end: int
    section: tuple[str, ...]
    table_header: str = ""


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
        if block.kind == "table" and start == block.start and has_rule(text[block.start : block.end]):
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
        continues = piece.section == before.section and not HEADING.match(text[piece.start : piece.end])
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
