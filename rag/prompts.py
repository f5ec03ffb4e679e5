"""Chunks as the text that is embedded, indexed and shown to a generator."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rag.chunking import SECTION_SEPARATOR
from rag.markdown import sentence_starts

if TYPE_CHECKING:
    from haystack import Document

_CITATION = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


def heading_line(chunk: Document) -> str:
    """Return title and section of `chunk`, joined with ` › `; the section is left out where it is empty."""
    title = str(chunk.meta.get("title") or "")
    return SECTION_SEPARATOR.join(part for part in (title, str(chunk.meta.get("section") or "")) if part)


def passage_text(chunk: Document) -> str:
    """Return what a generator is shown of `chunk`: the heading line, the table's header if cut off, the content."""
    parts = (heading_line(chunk), str(chunk.meta.get("table_header") or ""), chunk.content or "")
    return "\n".join(part for part in parts if part)


def indexed_text(chunk: Document, heading_context: bool) -> str:
    """Return what is embedded and indexed of `chunk`."""
    return passage_text(chunk) if heading_context else chunk.content or ""


def fit_passages(
    passages: Sequence[str], limit: int | None, count_tokens: Callable[[str], int] | None
) -> tuple[list[str], bool]:
    """Return as many of `passages`, best first, as `limit` tokens hold, and whether anything was cut.

    The last one that fits in part is cut at a sentence end. Without a limit or a counter nothing is cut.
    """
    if limit is None or count_tokens is None:
        return list(passages), False
    kept: list[str] = []
    left = limit
    for passage in passages:
        size = count_tokens(passage)
        if size > left:
            if start := _opening(passage, left, count_tokens):
                kept.append(start)
            return kept, True
        kept.append(passage)
        left -= size
    return kept, False


def _opening(passage: str, limit: int, count_tokens: Callable[[str], int]) -> str:
    """Return the longest opening of `passage` that ends with a sentence or line and holds at most `limit` tokens.

    Empty where that would be no more than headings.
    """
    line_starts = [match.end() for match in re.finditer("\n", passage)]
    marks = sorted({*sentence_starts(passage), *line_starts} - {0})
    low, high = 0, len(marks)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(passage[: marks[middle - 1]].rstrip()) <= limit:
            low = middle
        else:
            high = middle - 1
    lines = (passage[: marks[low - 1]] if low else "").rstrip().split("\n")
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return "\n".join(lines) if len(lines) > 1 else ""


def cited_numbers(answer: str) -> list[int]:
    """Return the source numbers that `answer` cites as `[1]` or `[1, 2]`, in order of first mention."""
    numbers = [int(number) for match in _CITATION.finditer(answer) for number in match[1].split(",")]
    return list(dict.fromkeys(numbers))


def without_citations(answer: str) -> str:
    """Return `answer` without its bracketed source numbers."""
    return re.sub(r"\s+([.,;:!?])", r"\1", _CITATION.sub("", answer)).strip()
