"""The words of a PDF page in reading order: columns one after the other, lines with their size, weight and place."""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

_LEAST_COLUMN = 0.2
"""Of the page's width; narrower parts are columns of a table, not of text."""
_LEAST_LINES = 4
_MAX_SHAPES = 400
_LEAST_WORDS_A_LINE = 3.0
_MONO = ("mono", "courier", "consol", "typewriter", "cmtt", "sourcecode", "menlo", "inconsolata")
_BOLD = ("bold", "black", "heavy", "semibold", "cmbx", "demi")
_UNMAPPED = re.compile(r"\(cid:\d+\)")
_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})


@dataclass(frozen=True, slots=True)
class Word:
    """One word, with its box in points from the page's top left corner."""

    text: str
    x0: float
    x1: float
    top: float
    bottom: float
    size: float
    bold: bool
    mono: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a column. `right` is the column's right edge; `markdown` is set for a table or a picture."""

    text: str
    x0: float
    x1: float
    top: float
    bottom: float
    size: float
    bold: bool = False
    mono: bool = False
    right: float = 0.0
    page: int = 0
    markdown: str = ""


def words_of(page: Any) -> list[Word]:
    """Return the words of a pdfplumber page that lie on it, upright ones only."""
    rows = page.extract_words(
        x_tolerance_ratio=0.18, y_tolerance=2, keep_blank_chars=False, extra_attrs=["size", "fontname", "upright"]
    )
    found = []
    for row in rows:
        font = str(row["fontname"]).lower()
        text = _UNMAPPED.sub("", str(row["text"])).translate(_LIGATURES)
        if row["upright"] and 0 < row["size"] < 400 and text.strip():
            bold, mono = any(sign in font for sign in _BOLD), any(sign in font for sign in _MONO)
            x0, x1, top, bottom, size = (float(row[name]) for name in ("x0", "x1", "top", "bottom", "size"))
            found.append(Word(text, x0, x1, top, bottom, size, bold, mono))
    return found + _drawn_bullets(page, found)


def _drawn_bullets(page: Any, words: Sequence[Word]) -> list[Word]:
    """Return as words the bullets that are drawn, not written: small filled discs and squares before a word."""
    shapes = [*page.curves, *page.rects]
    if len(shapes) > _MAX_SHAPES:
        return []
    found = []
    for shape in shapes:
        wide, high = shape["x1"] - shape["x0"], shape["bottom"] - shape["top"]
        if not (1.5 <= wide <= 7 and 0.8 <= wide / max(high, 0.1) <= 1.25):
            continue
        middle = (shape["top"] + shape["bottom"]) / 2
        beside = [word for word in words if word.top < middle < word.bottom and shape["x0"] - 30 < word.x1]
        first = min(beside, key=lambda word: word.x0, default=None)
        if first is not None and 0 <= first.x0 - shape["x1"] <= 25:
            found.append(replace(first, text="•", x0=float(shape["x0"]), x1=float(shape["x1"])))
    return found


def reading_order(words: Sequence[Word], width: float) -> list[Line]:
    """Return a page's lines in reading order: strips from top to bottom, in each its columns from left to right."""
    lines: list[Line] = []
    for group, gutter in _groups(_strips(words), width):
        if gutter is None:
            lines += _lines(group)
            continue
        lines += reading_order([word for word in group if word.x1 <= gutter], width)
        lines += reading_order([word for word in group if word.x1 > gutter], width)
    return lines


def _strips(words: Sequence[Word]) -> list[list[Word]]:
    """Cut a page where a white band runs across all of it."""
    strips: list[list[Word]] = []
    floor = float("-inf")
    for word in sorted(words, key=lambda word: word.top):
        if not strips or word.top > floor + 0.25 * word.size:
            strips.append([])
        strips[-1].append(word)
        floor = max(floor, word.bottom)
    return strips


def _groups(strips: Sequence[list[Word]], width: float) -> list[tuple[list[Word], float | None]]:
    """Join neighbouring strips that share a gutter between columns; returns each group with its gutter's place."""
    groups: list[tuple[list[Word], float | None]] = []
    waiting = list(strips)
    while waiting:
        count, gutter = _longest_columns(waiting, width)
        groups.append(([word for strip in waiting[:count] for word in strip], gutter))
        waiting = waiting[count:]
    return groups


def _longest_columns(strips: Sequence[list[Word]], width: float) -> tuple[int, float | None]:
    """Return how many strips from the first on share a gutter, and where it is; (1, None) if they have none."""
    spans = [(word.x0, word.x1) for word in strips[0]]
    gaps = _gaps(spans, width)
    best: tuple[int, float | None] = (1, None)
    words = list(strips[0])
    for count in range(1, len(strips) + 1):
        if count > 1:
            gaps = [cut for gap in gaps for cut in _without(gap, strips[count - 1])]
            words += strips[count - 1]
        gaps = [gap for gap in gaps if gap[1] - gap[0] >= 7.0]
        if not gaps:
            break
        for low, high in gaps:
            if _is_gutter(words, (low + high) / 2, width):
                best = (count, (low + high) / 2)
                break
    return (best[0] - _tail(strips[: best[0]], best[1]), best[1]) if best[1] is not None else best


def _tail(strips: Sequence[list[Word]], gutter: float) -> int:
    """Return how many last strips are no part of the columns: a heading in large print under both, and what follows."""
    sizes = statistics.median(word.size for strip in strips for word in strip)
    for count in range(1, len(strips)):
        strip = strips[-count]
        if any(word.x1 > gutter for word in strip):
            return 0
        gap = min(word.top for word in strip) - max(word.bottom for word in strips[-count - 1])
        if gap > sizes and min(word.size for word in strip) > 1.1 * sizes:
            above = strips[-count - 1]
            return count if any(word.x1 > gutter for word in above) else 0
    return 0


def _gaps(spans: Sequence[tuple[float, float]], width: float) -> list[tuple[float, float]]:
    gaps, edge = [], 0.0
    for low, high in sorted(spans):
        if low > edge:
            gaps.append((edge, low))
        edge = max(edge, high)
    return [*gaps, (edge, width)] if edge < width else gaps


def _without(gap: tuple[float, float], strip: Sequence[Word]) -> list[tuple[float, float]]:
    inside = [(max(word.x0, gap[0]), min(word.x1, gap[1])) for word in strip if word.x1 > gap[0] and word.x0 < gap[1]]
    pieces, edge = [], gap[0]
    for low, high in sorted(inside):
        if low > edge:
            pieces.append((edge, low))
        edge = max(edge, high)
    return [*pieces, (edge, gap[1])] if edge < gap[1] else pieces


def _is_gutter(words: Sequence[Word], place: float, width: float) -> bool:
    """Tell whether both sides of a gap hold running text, not the cells of a table."""
    for side in ([word for word in words if word.x1 <= place], [word for word in words if word.x1 > place]):
        lines = len({round(word.top / 3) for word in side})
        if lines < _LEAST_LINES or len(side) < _LEAST_WORDS_A_LINE * lines:
            return False
        if max(word.x1 for word in side) - min(word.x0 for word in side) < _LEAST_COLUMN * width:
            return False
    return True


def _lines(words: Sequence[Word]) -> list[Line]:
    rows: list[list[Word]] = []
    for word in sorted(words, key=lambda word: (word.top + word.bottom) / 2):
        middle = (word.top + word.bottom) / 2
        if rows and rows[-1][0].top <= middle <= rows[-1][0].bottom:
            rows[-1].append(word)
        else:
            rows.append([word])
    right = max((word.x1 for word in words), default=0.0)
    return [_line(sorted(row, key=lambda word: word.x0), right) for row in rows]


def _line(row: Sequence[Word], right: float) -> Line:
    mono = all(word.mono for word in row)
    text = row[0].text
    for before, after in itertools.pairwise(row):
        spaces = max(1, round((after.x0 - before.x1) / (0.6 * after.size))) if mono else 1
        text += " " * min(spaces, 80) + after.text
    size = statistics.median(word.size for word in row for _ in word.text)
    return Line(
        text=text,
        x0=row[0].x0,
        x1=row[-1].x1,
        top=min(word.top for word in row),
        bottom=max(word.bottom for word in row),
        size=round(size * 2) / 2,
        bold=all(word.bold for word in row),
        mono=mono,
        right=right,
    )
