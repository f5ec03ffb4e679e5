"""Pictures of a page's main text: found in the page, put back behind the passage that they followed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Any

Element = Any
_SPACE = re.compile(r"\s+")
_PASSAGES = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "blockquote", "pre", "td", "figcaption"})
_FRAMES = frozenset({"nav", "header", "footer", "aside", "form", "button"})
_PICTURE_FILE = re.compile(r"\.(?:png|jpe?g|gif|webp|svg|avif)(?:$|[?#])", re.IGNORECASE)
_LEAST_SIDE = 48
"""Pictures known to be smaller, in pixels, are icons."""


def key(text: str) -> str:
    """Return text without white space, to compare what two parsers make of one passage."""
    return _SPACE.sub("", text)


def put_back_pictures(body: Element, tree: Element) -> None:
    """Insert into `body`, the main text, the pictures that stand among its passages in `tree`, with their captions.

    Passages of the same words are taken in order. A picture before the first passage is taken if it is a figure; one
    behind the last passage is not.
    """
    passages: dict[str, deque[Element]] = {}
    for element in body.iter(*_PASSAGES):
        passages.setdefault(key("".join(element.itertext())), deque()).append(element)
    passages.pop("", None)
    kept = key("".join(body.itertext()))
    last: Element | None = None
    waiting: list[tuple[Element | None, Element]] = []
    for element in tree.iter(*_PASSAGES, "img"):
        if element.tag == "img":
            if belongs(element) and (last is not None or figure_of(element) is not None):
                waiting.append((last, element))
        elif equal := passages.get(key("".join(element.itertext()))):
            last = equal.popleft()
            for after, image in waiting:
                _insert(body, after, image, kept)
            waiting = []


def _insert(body: Element, after: Element | None, image: Element, kept: str) -> None:
    from lxml import html  # type: ignore[import-untyped]

    figure = html.Element("figure")
    copied = html.Element("img", {name: value for name, value in image.items() if _plain_name(name)})
    figure.append(copied)
    caption = _caption(image)
    if caption and key(caption) not in kept:
        line = html.Element("figcaption")
        line.text = caption
        figure.append(line)
    place = after if after is not None else next(iter(body), None)
    while place is not None and place.getparent() is not None and place.getparent() is not body:
        place = place.getparent()
    if place is None or place.getparent() is None:
        body.append(figure)
    elif after is None:
        body.insert(0, figure)
    else:
        place.addnext(figure)
        figure.tail, place.tail = place.tail, None


def _plain_name(name: str) -> bool:
    return name in {"src", "alt", "title", "width", "height", "srcset"} or name.startswith("data-")


def belongs(image: Element) -> bool:
    """Tell whether a picture can be one of the text: not in a frame, no icon, no link to another page."""
    for name in ("width", "height"):
        value = (image.get(name) or "").removesuffix("px")
        if value.isdigit() and int(value) < _LEAST_SIDE:
            return False
    for ancestor in image.iterancestors():
        if ancestor.tag in _FRAMES:
            return False
        if ancestor.tag == "a" and not _PICTURE_FILE.search(ancestor.get("href") or ""):
            return False
    return bool(image.get("src") or image.get("data-src") or image.get("srcset"))


def figure_of(image: Element) -> Element | None:
    """Return the figure that a picture stands in, if any."""
    return next((element for element in _near(image) if element.tag == "figure"), None)


def _caption(image: Element) -> str:
    figure = figure_of(image)
    caption = figure.find(".//figcaption") if figure is not None else None
    return _SPACE.sub(" ", caption.text_content()).strip() if caption is not None else ""


def _near(image: Element) -> Iterator[Element]:
    for distance, ancestor in enumerate(image.iterancestors()):
        if distance == 4:
            return
        yield ancestor
