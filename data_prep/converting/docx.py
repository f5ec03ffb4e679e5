"""A Word document (DOCX) to light markdown: mammoth reads it to HTML, and the HTML is converted like a page."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import replace
from typing import Any

from data_prep.converting.archives import Archive
from data_prep.converting.html_page import parse, render
from data_prep.converting.result import Converted, Picture, relinked
from data_prep.errors import DataError

_STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='Quote'] => blockquote > p:fresh
p[style-name='Intense Quote'] => blockquote > p:fresh
p[style-name='Code'] => pre:separator('\\n')
p[style-name='HTML Preformatted'] => pre:separator('\\n')
p[style-name='Source Code'] => pre:separator('\\n')
p[style-name='Caption'] => p:fresh
"""
_PICTURE_KINDS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}
_BASE = "https://embedded.invalid/"
_ENTITIES = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)


def convert_docx(data: bytes, fallback_title: str) -> Converted:
    """Convert a Word document; raises `DataError` for a damaged, locked, explosive or empty one."""
    import mammoth

    _check(data)
    pictures: dict[str, bytes] = {}

    def keep(image: Any) -> dict[str, str]:
        kind = _PICTURE_KINDS.get(image.content_type)
        if kind is None:
            return {"src": ""}
        with image.open() as stream:
            content = stream.read()
        name = f"{hashlib.sha256(content).hexdigest()[:12]}.{kind}"
        pictures[name] = content
        return {"src": f"{_BASE}{name}"}

    try:
        made = mammoth.convert_to_html(
            io.BytesIO(data),
            style_map=_STYLES,
            convert_image=mammoth.images.img_element(keep),
            ignore_empty_paragraphs=True,
        )
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # mammoth raises nearly any error on a damaged file
        raise DataError(f"not a DOCX file that can be read: {type(error).__name__}: {str(error)[:200]}") from error
    converted = render(_body(made.value), fallback_title)
    return _with_pictures(converted, pictures)


def _check(data: bytes) -> None:
    archive = Archive(data, "DOCX")
    if not any(name.endswith("document.xml") for name in archive.names):
        raise DataError("not a DOCX file: it holds no document")
    for name in archive.names:
        if name.endswith((".xml", ".rels")) and _ENTITIES.search(archive.read(name)[:4096]):
            raise DataError(f"the DOCX file declares entities in {name}; no word processor does that")


def _body(html: str) -> Any:
    tree = parse(f"<html><body>{html}</body></html>") if html.strip() else None
    if tree is None:
        raise DataError("holds no text")
    for heads in tree.iter("table"):
        first = heads.find(".//tr")
        if first is not None and heads.find("thead") is None and first.find("th") is None:
            for cell in first.findall("td"):
                cell.tag = "th"
    return tree.find("body")


def _with_pictures(converted: Converted, pictures: dict[str, bytes]) -> Converted:
    def embedded(target: str) -> str | None:
        return f"embedded:{target.removeprefix(_BASE)}" if target.startswith(_BASE) else None

    linked = relinked(converted, embedded)
    kept = tuple(Picture(name, data) for name, data in pictures.items() if f"embedded:{name}" in linked.markdown)
    return replace(linked, pictures=kept)
