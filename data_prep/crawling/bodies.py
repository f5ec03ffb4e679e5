"""What came over the wire: unpacked strictly and with a limit, told apart, its links and pictures read."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

from data_prep.crawling.addresses import PICTURE_SUFFIXES, SKIPPED_SUFFIXES, clean, suffix
from data_prep.errors import DataError

KINDS_BY_TYPE = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "application/epub+zip": "epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/plain": "text",
}
_KINDS_BY_SUFFIX = {".html": "html", ".htm": "html", ".pdf": "pdf", ".epub": "epub", ".docx": "docx", ".md": "markdown"}
_UNSAID = frozenset({"", "application/octet-stream", "binary/octet-stream", "text/plain"})
_FRAMES = frozenset({"nav", "header", "footer", "aside"})
_MAX_LINKS = 20_000
_MAX_ENTRIES = 50_000


def unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """Return a body without its content encoding; raises `DataError` for a truncated, damaged or too large one."""
    for name in reversed([part.strip().lower() for part in encoding.split(",") if part.strip()]):
        if name in {"gzip", "x-gzip"}:
            data = _inflate(data, 16 + zlib.MAX_WBITS, limit)
        elif name == "deflate":
            data = _inflate(data, zlib.MAX_WBITS if data[:1] == b"x" else -zlib.MAX_WBITS, limit)
        elif name != "identity":
            raise DataError(f"is sent in the encoding {name}, which was not asked for")
    return data


def _inflate(data: bytes, bits: int, limit: int) -> bytes:
    reader = zlib.decompressobj(bits)
    try:
        found = reader.decompress(data, limit + 1)
    except zlib.error as error:
        raise DataError(f"its compression is damaged: {error}") from error
    if len(found) > limit:
        raise DataError(f"unpacks to more than {limit // 1_000_000} MB")
    if not reader.eof:
        raise DataError("its compressed body is cut off")
    return found


def document_kind(content_type: str, url: str, data: bytes) -> str | None:
    """Return the kind of document that an answer is, as `data_prep.convert` names kinds, or None for another thing."""
    name = content_type.split(";")[0].strip().lower()
    if name in _UNSAID and (by_suffix := _KINDS_BY_SUFFIX.get(suffix(url))):
        return by_suffix
    if name in KINDS_BY_TYPE:
        return KINDS_BY_TYPE[name]
    start = data[:512].lstrip().lower()
    return "html" if not name and start.startswith((b"<!doctype html", b"<html")) else None


def page_links(text: str, url: str) -> tuple[list[str], list[str]]:
    """Return the canonical addresses of the pages and of the pictures that a page links to, each once, in order.

    Links marked `nofollow`, and all of a page that says so of itself, are left out; so are pictures of the frame.
    """
    from data_prep.converting.html_page import parse

    try:
        tree = parse(text)
    except DataError:
        return [], []
    base = next((clean(found.get("href"), url) for found in tree.iter("base") if found.get("href")), None) or url
    pages = [] if _nofollow(tree) else [clean(link, base) for link in _links(tree)]
    kept = [page for page in pages if page and suffix(page) not in SKIPPED_SUFFIXES | PICTURE_SUFFIXES]
    pictures = [clean(link, base) for link in _pictures(tree)]
    shown = [picture for picture in pictures if picture and suffix(picture) in PICTURE_SUFFIXES]
    return list(dict.fromkeys(kept))[:_MAX_LINKS], list(dict.fromkeys(shown))[:_MAX_LINKS]


def sitemap_entries(data: bytes, limit: int) -> tuple[list[str], list[str]]:
    """Return the pages and the further sitemaps that a sitemap (XML, packed XML, or lines of text) names."""
    if data[:2] == b"\x1f\x8b":
        data = unpacked(data, "gzip", limit)
    from lxml import etree  # type: ignore[import-untyped]

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True, load_dtd=False)
    try:
        tree = etree.fromstring(data, parser)
    except (etree.LxmlError, ValueError):
        tree = None
    if tree is None:
        lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()[:_MAX_ENTRIES]]
        return [found for line in lines if line.startswith("http") and (found := clean(line))], []
    entries = [found for text in _locations(tree) if (found := clean(text))][:_MAX_ENTRIES]
    return ([], entries) if str(tree.tag).endswith("sitemapindex") else (entries, [])


def _locations(tree: Any) -> Iterator[str]:
    for element in tree.iter():
        if isinstance(element.tag, str) and element.tag.rsplit("}", 1)[-1] == "loc" and element.text:
            parent = element.getparent()
            if parent is not None and str(parent.tag).rsplit("}", 1)[-1] in {"url", "sitemap"}:
                yield element.text.strip()


def _links(tree: Any) -> Iterator[str]:
    for element in tree.iter("a", "area", "frame", "iframe", "link"):
        rel = (element.get("rel") or "").lower().split()
        if "nofollow" in rel or (element.tag == "link" and "next" not in rel):
            continue
        target = element.get("src") if element.tag in {"frame", "iframe"} else element.get("href")
        if target:
            yield target


def _pictures(tree: Any) -> Iterator[str]:
    for image in tree.iter("img"):
        source = image.get("data-src") or image.get("src") or (image.get("srcset") or "").split(" ")[0]
        if source and not source.startswith("data:") and not _in_frame(image):
            yield source


def _in_frame(element: Any) -> bool:
    return any(ancestor.tag in _FRAMES for ancestor in element.iterancestors())


def _nofollow(tree: Any) -> bool:
    named = (meta for meta in tree.iter("meta") if (meta.get("name") or "").lower() == "robots")
    return any(re.search(r"\b(?:nofollow|none)\b", (meta.get("content") or "").lower()) for meta in named)
