"""The frame of a page: what its elements, roles, styles and class names say is no text of the document."""

from __future__ import annotations

import re
from typing import Any

Element = Any
_FRAME_WORDS = re.compile(
    r"(?:^|[\s_-])(?:cookies?|consent|gdpr|breadcrumbs?|pagination|pager|share|social|newsletter|subscribe|sidebar|"
    r"skip(?:-?link|-to)|menu|navbar|navigation|advert\w*|popup|modal|related-posts|site-footer|site-header)(?:$|[\s_-])",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_FRAME_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "dialog", "alertdialog", "menu", "tablist"})


def drop_frame(root: Element, *, words: bool) -> None:
    """Remove from `root` what is never text of a document; with `words`, also what its class says is frame."""
    for element in list(root.iterdescendants()):
        if element.getparent() is None or not isinstance(element.tag, str):
            continue
        named = f"{element.get('class') or ''} {element.get('id') or ''}" if words else ""
        hidden = element.get("hidden") is not None or _HIDDEN.search(element.get("style") or "")
        framed = element.tag in {"nav", "form"} or element.get("role") in _FRAME_ROLES
        if hidden or framed or (named.strip() and _FRAME_WORDS.search(named) and element.tag not in {"body", "main"}):
            drop(element)


def drop(element: Element) -> None:
    """Take an element out of its page; the text behind it stays."""
    if element.getparent() is not None:
        element.drop_tree()
