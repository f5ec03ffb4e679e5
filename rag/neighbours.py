"""Found chunks with what stands around them: the chunks before and after, as one exact span of the document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from haystack import Document


class ChunkSource(Protocol):
    """A store that can say what stands around a chunk."""

    def chunks_of(self, document_id: str) -> list[Document]:
        """Return the chunks of one document, in reading order."""
        ...

    def source(self, document_id: str) -> Document | None:
        """Return the whole document, or None where the store does not keep it."""
        ...


def with_neighbours(chunks: Sequence[Document], store: ChunkSource, reach: int) -> list[Document]:
    """Return `chunks`, each widened by `reach` chunks of its document on either side.

    A widened chunk is a span of its document like any other (`id`, `start`, `end`, `content` agree) and keeps score,
    section and title; `meta["found"]` is the id of the chunk it grew from. A chunk that lies within an earlier
    widened one is left out: its text is there already.
    """
    widened: list[Document] = []
    siblings: dict[str, list[Document]] = {}
    for chunk in chunks:
        document = str(chunk.meta.get("document", chunk.id))
        if any(_holds(other, chunk, document) for other in widened):
            continue
        around = siblings.setdefault(document, store.chunks_of(document))
        widened.append(_widened(chunk, document, around, store, reach))
    return widened


def _holds(other: Document, chunk: Document, document: str) -> bool:
    if other.meta.get("document") != document or "start" not in chunk.meta:
        return False
    return bool(other.meta["start"] <= chunk.meta["start"] and chunk.meta["end"] <= other.meta["end"])


def _widened(chunk: Document, document: str, around: list[Document], store: ChunkSource, reach: int) -> Document:
    ids = [sibling.id for sibling in around]
    if chunk.id not in ids or "start" not in chunk.meta:
        return chunk
    place = ids.index(chunk.id)
    window = around[max(0, place - reach) : place + reach + 1]
    start = min(sibling.meta["start"] for sibling in window)
    end = max(sibling.meta["end"] for sibling in window)
    whole = store.source(document)
    text = (whole.content or "")[start:end] if whole is not None else _joined(window, start)
    meta = {**chunk.meta, "start": start, "end": end, "found": chunk.id}
    if header := window[0].meta.get("table_header"):
        meta["table_header"] = header
    else:
        meta.pop("table_header", None)
    return replace(chunk, id=f"{document}#{start}-{end}", content=text, meta=meta)


def _joined(window: Sequence[Document], start: int) -> str:
    """Join chunks whose document is not kept; the white space between two of them becomes as many line breaks."""
    text = ""
    for chunk in window:
        at = int(chunk.meta["start"]) - start
        text = text + "\n" * (at - len(text)) if at >= len(text) else text[:at]
        text += chunk.content or ""
    return text
