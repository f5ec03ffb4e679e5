"""A book (EPUB) to light markdown, a document for each chapter: the order of its spine, its pages by the HTML path.

An EPUB is a ZIP archive of pages with a list of their order; nothing but that is needed to read it.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from data_prep.converting.archives import Archive
from data_prep.converting.charsets import decode
from data_prep.converting.html_page import parse, render
from data_prep.converting.result import Converted, Picture, relinked
from data_prep.errors import DataError

_CONTAINER = "META-INF/container.xml"
_PAGE_KINDS = frozenset({"application/xhtml+xml", "text/html"})
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
_LEAST_LETTERS = 40
"""Shorter parts are covers and half titles."""
_MAX_CHAPTERS = 2_000
_BASE = "https://book.invalid/"


def convert_epub(data: bytes, fallback_title: str, alive: Callable[[], None] = lambda: None) -> list[Converted]:
    """Convert a book; returns one document a chapter, its `part` being the number and the name of its file.

    Raises `DataError` for a damaged, locked or explosive file and for one without text. A chapter that cannot be
    read is named in the notes of the first document.
    """
    archive = Archive(data, "EPUB")
    package = _package(archive)
    title = _metadata(archive, package) or fallback_title
    chapters: list[Converted] = []
    notes: list[str] = []
    for number, name in enumerate(_spine(archive, package), start=1):
        try:
            chapter = _chapter(archive, name, f"{title}, part {number}")
        except DataError as error:
            if "holds no text" not in str(error):
                notes.append(f"chapter {name}: {error}")
            continue
        alive()
        if len(re.findall(r"\w", chapter.markdown)) >= _LEAST_LETTERS:
            stem = re.sub(r"\.x?html?$", "", posixpath.basename(name), flags=re.IGNORECASE)
            chapters.append(replace(chapter, part=f"{number:03d}-{stem}"))
    if not chapters:
        raise DataError("; ".join(["the EPUB holds no text", *notes[:3]]))
    return [replace(chapters[0], notes=tuple(notes)), *chapters[1:]]


def _package(archive: Archive) -> str:
    roots = [element.get("full-path") for element in _xml(archive, _CONTAINER).iter() if _local(element) == "rootfile"]
    name = next((root for root in roots if root in archive.names), None)
    if name is None:
        raise DataError("not an EPUB file: it names no package")
    return str(name)


def _metadata(archive: Archive, package: str) -> str | None:
    for element in _xml(archive, package).iter():
        if _local(element) == "title" and (element.text or "").strip():
            return " ".join(element.text.split())
    return None


def _spine(archive: Archive, package: str) -> Iterator[str]:
    """Yield the names of the pages in reading order; those that lead out of the archive or are missing are left out."""
    tree = _xml(archive, package)
    items = {item.get("id"): item for item in tree.iter() if _local(item) == "item"}
    order = [items[row.get("idref")] for row in tree.iter() if _local(row) == "itemref" and row.get("idref") in items]
    seen: set[str] = set()
    for item in order[:_MAX_CHAPTERS]:
        if item.get("media-type") not in _PAGE_KINDS or "nav" in (item.get("properties") or "").split():
            continue
        name = _inside(posixpath.dirname(package), item.get("href") or "")
        if name in archive.names and name not in seen:
            seen.add(name)
            yield name


def _chapter(archive: Archive, name: str, fallback_title: str) -> Converted:
    tree = parse(decode(archive.read(name)))
    body = tree.find("body")
    converted = render(tree if body is None else body, fallback_title, f"{_BASE}{name}")
    return _with_pictures(archive, converted)


def _with_pictures(archive: Archive, converted: Converted) -> Converted:
    pictures: dict[str, bytes] = {}

    def kept(target: str) -> str | None:
        return (_kept_picture(archive, target, pictures) or "") if target.startswith(_BASE) else None

    linked = relinked(converted, kept)
    return replace(linked, pictures=tuple(Picture(name, data) for name, data in pictures.items()))


def _kept_picture(archive: Archive, target: str, pictures: dict[str, bytes]) -> str | None:
    name = _inside("", target.removeprefix(_BASE))
    if name not in archive.names or not name.lower().endswith(_PICTURES):
        return None
    content = archive.read(name)
    short = f"{hashlib.sha256(content).hexdigest()[:12]}{posixpath.splitext(name)[1].lower()}"
    pictures[short] = content
    return f"embedded:{short}"


def _inside(folder: str, href: str) -> str:
    """Return the archive's name of a link; one that climbs out of the archive finds nothing in it."""
    return posixpath.normpath(posixpath.join(folder, unquote(href.split("#")[0])))


def _xml(archive: Archive, name: str) -> Any:
    from lxml import etree  # type: ignore[import-untyped]

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True, load_dtd=False)
    try:
        tree = etree.fromstring(archive.read(name), parser)
    except (etree.LxmlError, ValueError) as error:
        raise DataError(f"not an EPUB file: {name}: {error}") from error
    if tree is None:
        raise DataError(f"not an EPUB file: {name} is empty")
    return tree


def _local(element: Any) -> str:
    return element.tag.rsplit("}", 1)[-1] if isinstance(element.tag, str) else ""
