"""The main text of a generic page (news, blogs, shops): what trafilatura finds, corrected where the page itself tells.

Three corrections, none of which knows a language: paragraphs that are nothing but a link to another page are
pointers and go; the lead that the page's own description repeats comes back; headings with nothing under them at the
end go. Pictures of the main text, which trafilatura is not asked for, are put back where they stood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from data_prep.converting.html_blocks import blocks
from data_prep.converting.html_inline import Context
from data_prep.converting.html_pictures import key, put_back_pictures

Element = Any
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_SPACE = re.compile(r"\s+")
_POINTER_LETTERS = 20
"""Shorter links are words of a sentence or of a list; a paragraph that is one of them is left."""
_LEAD_LETTERS = 40
_LEAD_TAGS = ("p", "div", "h2", "h3", "strong", "span")
_LEAD_MAX_LETTERS = 1200


def main_blocks(tree: Element, context: Context) -> list[str]:
    """Return the markdown blocks of a page's main text, none if it has none."""
    from trafilatura import bare_extraction
    from trafilatura.htmlprocessing import convert_to_html

    found = bare_extraction(
        tree, include_comments=False, include_images=False, include_formatting=False, with_metadata=False
    )
    if found is None or found.body is None or not key("".join(found.body.itertext())):
        return []
    made = convert_to_html(found.body)
    body = made if (inner := made.find("body")) is None else inner
    _drop_pointers(body, tree)
    _restore_anchors(body, tree)
    put_back_pictures(body, tree)
    parts = _without_last_headings(blocks(body, context))
    return [*_lead(tree, key("".join(body.itertext())), context), *parts]


def _drop_pointers(body: Element, tree: Element) -> None:
    """Remove paragraphs and headings whose whole text is one link of the page."""
    linked = {key("".join(link.itertext())) for link in tree.iter("a") if link.get("href")}
    for element in list(body.iter("p", *_HEADINGS[1:])):
        text = key("".join(element.itertext()))
        if len(text) >= _POINTER_LETTERS and text in linked and element.getparent() is not None:
            element.getparent().remove(element)


def _lead(tree: Element, kept: str, context: Context) -> list[str]:
    """Return the paragraph that the page's description repeats, if it is not among what is kept."""
    for wanted in _descriptions(tree):
        if wanted in kept:
            return []
        for element in tree.iter(*_LEAD_TAGS):
            if element.find("p") is None and key(_opening(element)).startswith(wanted):
                text = key("".join(element.itertext()))
                if len(text) <= _LEAD_MAX_LETTERS and text not in kept:
                    return blocks(element, context)
    return []


def _descriptions(tree: Element) -> Iterator[str]:
    """Yield the first letters of the page's descriptions."""
    for meta in tree.iter("meta"):
        if (meta.get("name") or meta.get("property") or "").lower() in {"description", "og:description"}:
            text = key(meta.get("content") or "").rstrip(".…")[:_LEAD_LETTERS]
            if len(text) == _LEAD_LETTERS:
                yield text


def _opening(element: Element) -> str:
    """Return the first words of an element without reading all of it."""
    text = ""
    for piece in element.itertext():
        text += piece
        if len(text) > 4 * _LEAD_LETTERS:
            break
    return text


def _restore_anchors(body: Element, tree: Element) -> None:
    """Give the headings of the main text the ids that lead to them in the page."""
    names: dict[str, str] = {}
    for heading in tree.iter(*_HEADINGS):
        inner = [anchor.get("id") or anchor.get("name") for anchor in heading.iterdescendants("a", "span")]
        name = next((name for name in [heading.get("id"), *inner] if name and not _SPACE.search(name)), None)
        if name:
            names.setdefault(key("".join(heading.itertext())), name)
    for heading in body.iter(*_HEADINGS):
        if name := names.get(key("".join(heading.itertext()))):
            heading.set("id", name)


def _without_last_headings(parts: list[str]) -> list[str]:
    while len(parts) > 1 and re.sub("\ue000.*?\ue001", "", parts[-1]).startswith("#"):
        parts = parts[:-1]
    return parts
