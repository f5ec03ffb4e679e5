"""Lines of a PDF to markdown: running heads out, headings by size, paragraphs joined, lists, code, pages marked."""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_prep.converting.html_inline import paragraph
from data_prep.converting.inert import inert
from data_prep.converting.pdf_layout import Line
from data_prep.converting.result import place_mark

_BULLET = re.compile(r"^(?:[•‣◦▪▫●○■□⁃∙·\uf0b7\uf0a7]|[-–*](?=\s))\s*")
_NUMBER = re.compile(r"^(?:\(?\d{1,3}[.)]|[a-z]\))\s+")
_ITEM = re.compile(r"(?:\ue000[^\ue001]*\ue001)*(?:- |\d{1,3}\. )")
_CONTENTS_ROW = re.compile(r"(?:\.\s?){4,}\s*[\divxlc]+\s*$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?:;…]['\"”’)\]]*$")
_HYPHEN_END = re.compile(r"((?:\w+-)*\w{2,})[-\u00ad‐]$")
_LOWER_START = re.compile(r"^[a-zà-öø-ÿа-яёα-ω]\w*")
_HEADING_RATIO = 1.12
_LONGEST_HEADING = 160
_EDGE_LINES = 3
_EDGE_SHARE = 0.3
_EDGE_MARGIN = 0.1
"""Of the height that the text of all pages takes: running heads stand in its outermost tenths."""


@dataclass(slots=True)
class _Block:
    kind: str
    lines: list[Line] = field(default_factory=list)


def pdf_markdown(pages: Sequence[Sequence[Line]], sizes: Counter[float]) -> str:
    """Return the marked markdown of a document's pages; `sizes` counts the characters of each font size."""
    body = sizes.most_common(1)[0][0] if sizes else 10.0
    running = running_lines(pages)
    lines = [
        line
        for page in pages
        for line in page
        if id(line) not in running and not _CONTENTS_ROW.search(line.text[-200:])
    ]
    levels = heading_levels(lines, body)
    vocabulary = Counter(word for line in lines for word in re.findall(r"\w+(?:-\w+)*", line.text.casefold()))
    text, page = [], 0
    for block in _blocks(lines, body, levels):
        first = block.lines[0].page
        marks = "".join(place_mark(f"p{number}") for number in range(page + 1, first + 1))
        page = max(page, first)
        rendered, page = _render(block, levels, vocabulary, page)
        text.append(marks + rendered)
    marks = "".join(place_mark(f"p{number}") for number in range(page + 1, len(pages) + 1))
    return _spaced(text) + marks


def _spaced(blocks: Sequence[str]) -> str:
    """Join blocks with an empty line between them, items of one list without."""
    text = blocks[0] if blocks else ""
    for before, after in itertools.pairwise(blocks):
        tight = bool(_ITEM.match(before) and _ITEM.match(after))
        text += ("\n" if tight else "\n\n") + after
    return text


def running_lines(pages: Sequence[Sequence[Line]]) -> set[int]:
    """Return the ids of the lines that stand at the edge of many pages: running heads, footers, page numbers."""
    if len(pages) < 3:
        return set()
    seen: Counter[tuple[str, int]] = Counter()
    edges: list[tuple[tuple[str, int], Line]] = []
    top = min((line.top for page in pages for line in page), default=0.0)
    bottom = max((line.bottom for page in pages for line in page), default=0.0)
    margin = _EDGE_MARGIN * (bottom - top)
    for page in pages:
        outer = (line for line in page if not line.markdown and not top + margin < line.top < bottom - margin)
        ordered = sorted(outer, key=lambda line: line.top)
        near = {id(line): line for line in ordered[:_EDGE_LINES] + ordered[-_EDGE_LINES:]}
        places = {
            (re.sub(r"\d+|\b[ivxlc]+\b", "#", line.text.casefold()), round(line.top / 8)): line
            for line in near.values()
        }
        for place, line in places.items():
            edges.append((place, line))
        seen.update(places.keys())
    least = max(3, int(_EDGE_SHARE * len(pages)))
    numbered = _numbered_edges(pages, least)
    frequent = {place for place, count in seen.items() if count >= min(least, 8)}
    numbers = {place for place in seen if place[0].strip(" -–|") == "#" and seen[place] >= 2}
    return numbered | {id(line) for place, line in edges if place in frequent | numbers}


def _numbered_edges(pages: Sequence[Sequence[Line]], least: int) -> set[int]:
    """Return the ids of first and last lines that begin or end with their page's number, whatever else they say."""
    found: dict[int, list[int]] = {}
    for place, page in enumerate(pages):
        ordered = sorted((line for line in page if not line.markdown), key=lambda line: line.top)
        for line in ordered[:1] + ordered[1:][-1:]:
            number = re.match(r"(\d{1,4})\s|.*\s(\d{1,4})$|(\d{1,4})$", line.text)
            if number and len(line.text) <= 120:
                value = int(next(group for group in number.groups() if group))
                found.setdefault(value - place, []).append(id(line))
    return {name for names in found.values() if len(names) >= least for name in names}


def heading_levels(lines: Sequence[Line], body: float) -> dict[float, int]:
    """Return the heading level of each font size that is larger than the body's, the largest being 1."""
    counts = Counter(line.size for line in lines if not line.markdown and not line.mono and _titled(line))
    total = max(len(lines), 1)
    sizes = sorted(
        (size for size in counts if size >= _HEADING_RATIO * body and counts[size] <= 0.25 * total), reverse=True
    )
    return {size: min(place, 5) for place, size in enumerate(sizes, start=1)}


def _titled(line: Line) -> bool:
    return bool(re.search(r"\w", line.text)) and len(line.text) <= _LONGEST_HEADING


def _blocks(lines: Sequence[Line], body: float, levels: dict[float, int]) -> list[_Block]:
    blocks: list[_Block] = []
    before: Line | None = None
    for line in lines:
        kind = _kind(line, levels, body)
        if blocks and before is not None and _continues(blocks[-1], before, line, kind):
            blocks[-1].lines.append(line)
        else:
            blocks.append(_Block("paragraph" if kind == "text" else kind, [line]))
        before = line
    return [_settled(block) for block in blocks]


def _kind(line: Line, levels: dict[float, int], body: float) -> str:
    if line.markdown:
        return "ready"
    if line.mono:
        return "code"
    if line.size in levels and _titled(line):
        return "heading"
    if line.bold and line.size >= 0.95 * body and len(line.text) <= 80 and not re.search(r"[.,;]$", line.text):
        return "bold"
    return "item" if _BULLET.match(line.text) or _NUMBER.match(line.text) else "text"


def _continues(block: _Block, before: Line, line: Line, kind: str) -> bool:
    """Tell whether a line goes on with the block before it."""
    if block.kind == "ready" or kind in {"ready", "item"}:
        return False
    same_page = before.page == line.page
    if block.kind in {"code", "heading", "bold"}:
        near = same_page and 0 <= line.top - before.bottom < 1.2 * line.size
        return kind == block.kind and line.size == before.size and (near or (kind == "code" and same_page))
    if kind not in {"text", "bold"} or ((kind == "bold" and not (before.bold and line.bold)) and block.kind != "item"):
        return False
    ended = _SENTENCE_END.search(before.text) is not None
    if not same_page or line.top < before.top:
        return not ended and bool(_LOWER_START.match(line.text))
    if line.top - before.bottom > 0.75 * line.size or abs(line.size - before.size) > 1.5:
        return False
    if block.kind == "item":
        return line.x0 > block.lines[0].x0 + 2 or not ended
    short = before.x1 < before.right - 0.2 * (before.right - before.x0)
    indented = line.x0 > before.x0 + 0.8 * line.size
    return not (ended and (short or indented))


def _settled(block: _Block) -> _Block:
    """A heading of many lines is a paragraph in large print; bold lines are headings of the lowest level if few."""
    if block.kind == "heading" and len(block.lines) > 3:
        return _Block("paragraph", block.lines)
    if block.kind == "bold":
        return _Block("subheading" if len(block.lines) == 1 and _titled(block.lines[0]) else "paragraph", block.lines)
    return block


def _render(block: _Block, levels: dict[float, int], vocabulary: Counter[str], page: int) -> tuple[str, int]:
    """Return a block as markdown, and the page that it ends on."""
    first = block.lines[0]
    if block.kind == "ready":
        return first.markdown, page
    if block.kind == "code":
        return _code(block.lines), page
    text, page = _joined(block.lines, vocabulary, page)
    if block.kind == "heading":
        return f"{'#' * levels[first.size]} {text}", page
    if block.kind == "subheading":
        return f"{'#' * min(max(levels.values(), default=1) + 1, 6)} {text}", page
    if block.kind == "item":
        bullet = _BULLET.match(text)
        return (f"- {text[bullet.end() :]}" if bullet else text), page
    return paragraph(text), page


def _joined(lines: Sequence[Line], vocabulary: Counter[str], page: int) -> tuple[str, int]:
    """Join lines to running text, words that were cut at a line's end made whole, pages marked where they begin."""
    text = inert(lines[0].text)
    for line in lines[1:]:
        mark = ""
        if line.page > page:
            mark, page = place_mark(f"p{line.page}"), line.page
        following = inert(line.text)
        cut, rest = _HYPHEN_END.search(text), _LOWER_START.match(following)
        if cut and rest:
            whole, hyphened = (cut.group(1) + rest.group()).casefold(), f"{cut.group(1)}-{rest.group()}".casefold()
            keep = vocabulary[hyphened] > vocabulary[whole] or ("-" in cut.group(1) and not vocabulary[whole])
            text = (text if keep else text[:-1]) + following + mark
        else:
            text += (" " + mark if mark else " ") + following
    return text.replace("\u00ad", ""), page


def _code(lines: Sequence[Line]) -> str:
    left = min(line.x0 for line in lines)
    pitch = statistics.median(line.top - before.top for before, line in itertools.pairwise(lines)) if lines[1:] else 0
    rows: list[str] = []
    for place, line in enumerate(lines):
        if place and pitch and line.top - lines[place - 1].top > 1.7 * pitch:
            rows.append("")
        rows.append(" " * min(round((line.x0 - left) / (0.6 * line.size)), 60) + line.text)
    fence = "`" * max(3, 1 + max((len(run) for row in rows for run in re.findall(r"`+", row)), default=0))
    return "\n".join([fence, *rows, fence])
