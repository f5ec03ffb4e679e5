"""The main text of a generic page (news, blogs, shops): what trafilatura finds, corrected where the page itself tells.

What trafilatura keeps is looked up among the page's own elements, which are rendered (html_select.py); where too
little of it is found again, its own elements are. Corrections, none of which knows a language: paragraphs that are
nothing but a link to another page are pointers and go; the lead that the page's own description repeats comes back;
headings with nothing under them at the end go. Pictures of the main text, which trafilatura is not asked for, stay
where they stood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from data_prep.converting.html_blocks import blocks
from data_prep.converting.html_frame import drop_frame
from data_prep.converting.html_inline import Context
from data_prep.converting.html_pictures import key, put_back_pictures
from data_prep.converting.html_select import COVERED, choose, cut, keep_pictures, keep_whole_tables, letters, runs

Element = Any
_LISTED = frozenset({"h1", "li", "td", "th", "dt", "dd", "pre"})
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_SPACE = re.compile(r"\s+")
_POINTER_LETTERS = 20
"""Shorter links are words of a sentence or of a list; a paragraph that is one of them is left."""
_LEAD_LETTERS = 40
_SHORT_LETTERS = 350
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
    if short := _short_page(tree, len(letters("".join(found.body.itertext()))), context):
        return short
    lead = _lead(tree, key("".join(found.body.itertext())), context)
    if (parts := _own_elements(tree, found.body, context)) is not None:
        return [*lead, *_without_last_headings(parts)]
    made = convert_to_html(found.body)
    body = made if (inner := made.find("body")) is None else inner
    _drop_pointers(body, tree)
    _restore_anchors(body, tree)
    put_back_pictures(body, tree)
    parts = _without_last_headings(blocks(body, context))
    return [*lead, *parts]


def _short_page(tree: Element, kept: int, context: Context) -> list[str]:
    """Return the blocks of a short page's only main element, none if the page has no such or is not short.

    Trafilatura keeps parts of such pages at random, or, below its least length, all words of the page in one paragraph.
    """
    mains = tree.xpath("//main | //*[@role='main']") if kept <= _SHORT_LETTERS else []
    mains = mains or (list(tree.iter("article")) if kept <= _SHORT_LETTERS else [])
    if len(mains) != 1:
        return []
    main = deepcopy(mains[0])
    drop_frame(main, words=True)
    size = len(letters("".join(main.itertext())))
    return blocks(main, context) if kept / 2 <= size <= _SHORT_LETTERS else []


def _own_elements(tree: Element, chosen: Element, context: Context) -> list[str] | None:
    """Return the page's own elements that hold the chosen text as blocks; None if too little of it is found again."""
    root = tree.find("body")
    kept = letters("".join(chosen.itertext()))
    found = runs(root) if root is not None else []
    if choose(found, kept) < COVERED:
        return None
    linked = {letters("".join(link.itertext())) for link in root.iter("a") if _leaves(link)}
    for run in found:
        if len(run.letters) >= _POINTER_LETTERS and run.letters in linked and run.holder.tag not in _LISTED:
            run.kept = False
    keep_whole_tables(found)
    keep_pictures(found)
    cut(found)
    return blocks(root, context)


def _drop_pointers(body: Element, tree: Element) -> None:
    """Remove paragraphs and headings whose whole text is one link of the page."""
    linked = {key("".join(link.itertext())) for link in tree.iter("a") if _leaves(link)}
    for element in list(body.iter("p", *_HEADINGS[1:])):
        text = key("".join(element.itertext()))
        if len(text) >= _POINTER_LETTERS and text in linked and element.getparent() is not None:
            element.getparent().remove(element)


def _leaves(link: Element) -> bool:
    """Tell whether a link leads away from the page, and not to a section of it."""
    return not (link.get("href") or "#").startswith("#")


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
