"""One file of somebody's documents to light markdown: headings, lists, tables, code, admonitions, pictures; no HTML.

| kind | read by |
|---|---|
| HTML | `converting.html_page`: site profiles, plain pages, trafilatura for the rest |
| PDF | `converting.pdf`, with page offsets |
| DOCX | `converting.docx` (mammoth, then the HTML path) |
| EPUB | `converting.epub`, a document a chapter |
| markdown, text | `converting.markdown` |

What a file is, its bytes decide; the ending of its name only tells markdown from text and what was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.converting.charsets import decode, is_text
from data_prep.converting.markdown import convert_markdown, convert_text
from data_prep.converting.profiles import Profile
from data_prep.converting.result import Converted, Picture
from data_prep.errors import DataError

__all__ = ["Converted", "Picture", "Source", "convert_bytes", "convert_file", "convert_markdown", "kind_of"]

MARKDOWN_SUFFIXES = frozenset({".md", ".markdown", ".mdx"})
TEXT_SUFFIXES = frozenset({".txt", ".text"})
HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml", ".xht", ".mhtml"}) - {".mhtml"}
KINDS = {
    **dict.fromkeys(MARKDOWN_SUFFIXES, "markdown"),
    **dict.fromkeys(TEXT_SUFFIXES, "text"),
    **dict.fromkeys(HTML_SUFFIXES, "html"),
    ".pdf": "pdf",
    ".docx": "docx",
    ".epub": "epub",
}
MAX_BYTES = {"markdown": 20_000_000, "text": 20_000_000, "html": 20_000_000, "pdf": 200_000_000, "docx": 100_000_000}
_NAMES = {"html": "HTML", "pdf": "a PDF", "docx": "DOCX", "epub": "EPUB", "text": "text", "markdown": "markdown"}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of a file's bytes: the kind its name or server says it is, its address, its charset."""

    kind: str
    title: str
    url: str | None = None
    charset: str | None = None
    profiles: tuple[Profile, ...] = ()


def convert_file(path: Path, profiles: Sequence[Profile] = ()) -> list[Converted]:
    """Convert one file; a book gives a document for each chapter, every other kind one document.

    Raises `DataError` that names the file when it is of another kind, too large, empty, locked or damaged.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: files of kind {path.suffix or 'without ending'} cannot be read")
    try:
        size = path.stat().st_size
        if size > limit(kind):
            raise DataError(f"{path}: {size // 1_000_000} MB, more than {limit(kind) // 1_000_000} MB; split it")
        return convert_bytes(path.read_bytes(), Source(kind, path.stem, profiles=tuple(profiles)))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except DataError as error:
        raise error if str(error).startswith(str(path)) else DataError(f"{path}: {error}") from error


def limit(kind: str) -> int:
    """Return how many bytes a file of a kind may have."""
    return MAX_BYTES.get(kind, 100_000_000)


def convert_bytes(data: bytes, source: Source, alive: Callable[[], None] = lambda: None) -> list[Converted]:
    """Convert the bytes of one file; `alive` is called now and then while a long one is converted.

    Raises `DataError` without the file's name for bytes that cannot be read, among them those that are of another kind
    than `source` says.
    """
    if len(data) > limit(source.kind):
        raise DataError(f"{len(data) // 1_000_000} MB, more than {limit(source.kind) // 1_000_000} MB; split it")
    found = kind_of(data)
    binary = {"pdf", "docx", "epub"}
    if found != source.kind and (found in binary or source.kind in binary):
        raise DataError(f"says it is {_NAMES[source.kind]}, but is {_NAMES.get(found, found)}")
    documents = _convert(data, source, alive)
    if not any(document.markdown.strip() for document in documents):
        raise DataError("holds no text")
    return documents


def _convert(data: bytes, source: Source, alive: Callable[[], None]) -> list[Converted]:
    if source.kind == "pdf":
        from data_prep.converting.pdf import convert_pdf

        return [convert_pdf(data, _readable(source.title), alive)]
    if source.kind == "docx":
        from data_prep.converting.docx import convert_docx

        return [convert_docx(data, _readable(source.title))]
    if source.kind == "epub":
        from data_prep.converting.epub import convert_epub

        return convert_epub(data, _readable(source.title), alive)
    text = decode(data, source.charset)
    if not is_text(text):
        raise DataError("not text in any charset")
    if source.kind == "html":
        from data_prep.converting.html_page import convert_html

        return [convert_html(text, _readable(source.title), url=source.url, own=source.profiles)]
    return [(convert_markdown if source.kind == "markdown" else convert_text)(text, source.title)]


def kind_of(data: bytes) -> str:
    """Return what bytes are by their own signs: pdf, docx, epub, zip, an old Office file, html or text."""
    head = data[:2048]
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if b"mimetypeapplication/epub+zip" in head:
            return "epub"
        return "docx" if b"word/" in data and b"[Content_Types].xml" in data else _archive_kind(data)
    if head.startswith(_OLE):
        return "an old Office file or a locked one"
    lowered = head.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n").lower()
    return "html" if lowered.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head", b"<body")) else "text"


def _archive_kind(data: bytes) -> str:
    return "epub" if b"META-INF/container.xml" in data else "a ZIP archive"


def _readable(stem: str) -> str:
    return stem.replace("_", " ").replace("-", " ").strip().capitalize() or "Document"
