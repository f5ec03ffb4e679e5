"""Pictures that documents link to: those of the retrieved sections, for people and for generators that see."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haystack import Document
    from haystack.dataclasses import ChatMessage, ImageContent

    from rag.neighbours import ChunkSource

_LINK = re.compile(r"!\[([^\]]*)\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_SEEN = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
_MOST_SEEN = 4
_MOST_BYTES = 5_000_000
"""Of one picture that is sent to a generator."""


@dataclass(frozen=True)
class Picture:
    """A picture linked from characters `start` on of `document`; `path` is relative to the corpus, or an address."""

    document: str
    start: int
    path: str
    title: str


def pictures_of(chunks: Sequence[Document], store: ChunkSource) -> list[Picture]:
    """Return the pictures of the sections that `chunks` come from, each once, those of the best chunk first.

    Links that lead out of the corpus's folder are left out.
    """
    found: dict[tuple[str, str], Picture] = {}
    siblings: dict[str, list[Document]] = {}
    for chunk in chunks:
        document, section = str(chunk.meta.get("document", chunk.id)), chunk.meta.get("section")
        if document not in siblings:
            siblings[document] = _with_pictures(document, store)
        around = siblings[document]
        same = [other for other in around if other.meta.get("section") == section]
        for picture in (picture for other in [chunk, *same] for picture in linked_pictures(other)):
            found.setdefault((picture.document, picture.path), picture)
    return list(found.values())


def _with_pictures(document: str, store: ChunkSource) -> list[Document]:
    """Return the chunks of a document, or nothing at once where its text links to no picture."""
    source = store.source(document)
    return [] if source is not None and "![" not in (source.content or "") else store.chunks_of(document)


def linked_pictures(chunk: Document) -> list[Picture]:
    """Return the pictures that the text of `chunk` links to, in reading order."""
    document, offset = str(chunk.meta.get("document", chunk.id)), int(chunk.meta.get("start", 0))
    pictures = []
    for match in _LINK.finditer(chunk.content or ""):
        path = _within(match[2])
        if path:
            pictures.append(Picture(document, offset + match.start(), path, match[1].strip()))
    return pictures


def _within(link: str) -> str | None:
    """Return a link of a file in `documents/` relative to the corpus; None if it leads out, or is data."""
    if re.match(r"https?://", link):
        return link
    if re.match(r"[a-z][a-z0-9+.-]*:|/", link, re.IGNORECASE):
        return None
    path = posixpath.normpath(posixpath.join("documents", link))
    return None if path.startswith("..") else path


def seen_pictures(pictures: Sequence[Picture], folder: Path) -> list[ImageContent]:
    """Return the files among `pictures` that a generator can see, four at most; `folder` is the corpus's.

    PNG, JPEG, GIF and WebP of at most 5 MB that lie in the folder; drawings (SVG), addresses and missing files are
    passed over.
    """
    from haystack.dataclasses import ImageContent

    images = []
    for picture in pictures:
        path = (folder / picture.path).resolve()
        kind = _SEEN.get(path.suffix.lower())
        inside = path.is_relative_to(folder.resolve()) and path.is_file()
        if kind and inside and path.stat().st_size <= _MOST_BYTES:
            images.append(ImageContent.from_file_path(path, meta={"document": picture.document, "path": picture.path}))
    return images[:_MOST_SEEN]


def with_pictures(conversation: Sequence[ChatMessage], images: Sequence[ImageContent]) -> list[ChatMessage]:
    """Return the conversation with `images` behind the text of its last message."""
    from haystack.dataclasses import ChatMessage

    if not images:
        return list(conversation)
    last = conversation[-1]
    return [*conversation[:-1], ChatMessage.from_user(content_parts=[last.text or "", *images])]
