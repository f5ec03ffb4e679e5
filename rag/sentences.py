"""The sentences of a chunk as they are embedded, each under the chunk's headings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rag.markdown import block_parts, count_words, scan_blocks
from rag.prompts import heading_line

if TYPE_CHECKING:
    from haystack import Document

_FEWEST_WORDS = 6
"""A sentence, item or row of fewer words is embedded together with the next one."""

_MOST_CHARACTERS = 600
"""Characters of a sentence that are embedded."""


def sentence_texts(chunk: Document, heading_context: bool) -> list[str]:
    """Return the sentences, list items, table rows and code lines of `chunk`, short ones joined; at least one text.

    With `heading_context`, title and section stand in front of each.
    """
    content = chunk.content or ""
    heading = heading_line(chunk) if heading_context else ""
    parts = list(_joined(content)) or [content]
    return [f"{heading}\n{part[:_MOST_CHARACTERS]}" if heading else part[:_MOST_CHARACTERS] for part in parts]


def _joined(content: str) -> Iterator[str]:
    start: int | None = None
    end = 0
    last: str | None = None
    for block in scan_blocks(content):
        if block.kind == "heading":
            continue
        for first, after in block_parts(block, content):
            start = first if start is None else start
            end = after
            text = content[start:end].strip()
            if count_words(text) >= _FEWEST_WORDS:
                if last:
                    yield last
                last, start = text, None
    rest = content[start:end].strip() if start is not None else ""
    if last or rest:
        yield "\n".join(part for part in (last, rest) if part)
