"""A web page to light markdown: what is the document and what is frame, then its structure.

A page that a site profile fits, or that is plain (no frame around its text), is converted whole from its own elements.
Of any other page trafilatura finds the main text, and the structure of what it found is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from data_prep.converting.html_blocks import blocks
from data_prep.converting.html_frame import drop, drop_frame
from data_prep.converting.html_inline import Context, children, collapse
from data_prep.converting.html_main import main_blocks
from data_prep.converting.html_pictures import key
from data_prep.converting.inert import MARK_CLOSE, MARK_OPEN, inert, tidy_text
from data_prep.converting.profiles import Profile, matching
from data_prep.converting.result import Converted, Picture, split_marks, without_marks
from data_prep.errors import DataError

Element = Any
_XML_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>", re.IGNORECASE)
_FRAME_TAGS = ("nav", "aside", "header", "footer", "form", "script", "iframe")
_TITLE_TAIL = re.compile(r"\s+[|·•—–»]\s+[^|·•—–»]*$|\s+-\s+[^-]{1,40}$")
_LONGEST_TITLE = 300
_PLAIN_LINK_SHARE = 0.4
_PLAIN_FRAME_PARTS = 1


def convert_html(text: str, fallback_title: str, *, url: str | None = None, own: Sequence[Profile] = ()) -> Converted:
    """Convert a page to light markdown; raises `DataError` for one without text and one nested beyond all use.

    `url` resolves the addresses of pictures; `own` profiles are tried before those that come with Versus.
    """
    tree = parse(text)
    context = Context(_base(tree, url))
    title = _title(tree) or fallback_title
    profile = matching(tree, own)
    parts = _by_profile(tree, profile, context) if profile else []
    if not parts:
        parts = _plain(tree, context) if _is_plain(tree) else main_blocks(tree, context) or _plain(tree, context)
    return _result(parts, title, context)


def parse(text: str) -> Element:
    """Parse a page; raises `DataError` if there is no element in it or the nesting is deeper than 2,048."""
    from lxml import etree, html  # type: ignore[import-untyped]

    parser = html.HTMLParser(huge_tree=True, remove_comments=True, remove_pis=True)
    # lxml's own choice of a class runs in Python for every element that is looked at: a quarter of the time of a page
    parser.set_element_class_lookup(etree.ElementDefaultClassLookup(element=html.HtmlElement))
    body = _XML_DECLARATION.sub("", tidy_text(text))
    try:
        tree = html.document_fromstring(body, parser=parser) if body.strip() else None
    except (etree.LxmlError, ValueError, AssertionError) as error:
        raise DataError(f"not a page: {error}") from error
    if tree is None or (tree.find(".//body") is None and len(tree) == 0):
        raise DataError("holds no text")
    if any("xcessive depth" in fault.message for fault in parser.error_log):
        raise DataError("its elements are nested more than 2,048 deep; nothing of use is written like that")
    return tree


def render(element: Element, fallback_title: str, url: str | None = None) -> Converted:
    """Convert one element as it stands, nothing taken for frame: for pages made by a converter or by a book."""
    context = Context(url or "")
    return _result(blocks(element, context), fallback_title, context)


def fragment_markdown(text: str) -> str:
    """Return a piece of HTML (a description in a feed, say) as markdown blocks; nothing if it has no text."""
    try:
        tree = parse(f"<html><body>{text}</body></html>")
    except DataError:
        return ""
    markdown, _ = split_marks("\n\n".join(blocks(tree, Context())))
    return re.sub(r"(?m)^#{1,2} ", "### ", markdown).strip()


def _result(parts: list[str], title: str, context: Context) -> Converted:
    parts = _title_first(parts, title)
    body = "\n\n".join(parts)
    first = without_marks(parts[0]) if parts else ""
    if first.startswith("# "):
        title = first.removeprefix("# ").split("\n")[0].strip() or title
    elif parts:
        body = f"# {inert(title)}\n\n{body}"
    markdown, marks = split_marks(body)
    if not re.sub(r"!\[[^\]]*\]\([^)]*\)", "", "\n".join(parts)).strip():
        raise DataError("holds no text")
    anchors = tuple((offset, note[1:]) for offset, note in marks if note.startswith("#"))
    pictures = tuple(Picture(name, data) for name, data in context.pictures.items() if f"embedded:{name}" in markdown)
    return Converted(_plain_title(title), markdown, anchors=anchors, pictures=pictures)


def _title_first(parts: list[str], title: str) -> list[str]:
    """Return the blocks with a first heading that is the page's title made one of the first level."""
    heading = re.match(rf"({MARK_OPEN}[^{MARK_CLOSE}]*{MARK_CLOSE})?#{{2,6}} (.*)", parts[0]) if parts else None
    if heading is None or key(heading.group(2)).replace("`", "") != key(inert(title)).replace("`", ""):
        return parts
    return [f"{heading.group(1) or ''}# {heading.group(2)}", *parts[1:]]


def _plain_title(title: str) -> str:
    return re.sub(r"!\[[^\]]*\]\([^)]*\)|`", "", title).replace("&lt;", "<").strip() or "Untitled"


def _by_profile(tree: Element, profile: Profile, context: Context) -> list[str]:
    main = profile.main(tree)
    if main is None:
        return []
    for element in profile.dropped(main):
        drop(element)
    for element in profile.notes(main):
        element.set("class", f"admonition note {element.get('class') or ''}")
    drop_frame(main, words=False)
    return blocks(main, context)


def _is_plain(tree: Element) -> bool:
    """Tell whether a page is all text: no frame elements to speak of, few words in links."""
    body = tree.find("body")
    if body is None:
        return True
    frame = sum(1 for tag in _FRAME_TAGS for _ in body.iter(tag))
    if frame > _PLAIN_FRAME_PARTS:
        return False
    linked = sum(len(link.text_content()) for link in body.iter("a"))
    return linked <= _PLAIN_LINK_SHARE * max(len(body.text_content()), 1)


def _plain(tree: Element, context: Context) -> list[str]:
    body = tree.find("body")
    root = tree if body is None else body
    drop_frame(root, words=True)
    return blocks(root, context)


def _base(tree: Element, url: str | None) -> str:
    base = tree.find(".//base[@href]")
    return (base.get("href") if base is not None and not url else url) or ""


def _title(tree: Element) -> str | None:
    """Return the title: of the only first-level heading, of the metadata, of the head without the site's name."""
    headings = [heading for heading in tree.iter("h1") if heading.text_content().strip()]
    if len(headings) == 1 and len(text := collapse(headings[0].text_content()).strip(" ¶#")) < 200:
        return text.strip() or None
    for meta in tree.iter("meta"):
        if meta.get("property") == "og:title" and (meta.get("content") or "").strip():
            return collapse(meta.get("content")).strip()[:_LONGEST_TITLE]
    head = tree.find(".//title")
    text = collapse(head.text_content()).strip()[:_LONGEST_TITLE] if head is not None and not children(head) else ""
    return (_TITLE_TAIL.sub("", text) or text) or None
