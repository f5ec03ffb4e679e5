"""Markdown and plain text to light markdown: front matter, HTML and scripts out, code fences as they are."""

from __future__ import annotations

import re

from data_prep.converting.inert import inert, safe_links, tidy_text
from data_prep.converting.result import Converted
from data_prep.corpus import title_of

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE)
_FENCE_LINE = re.compile(r" {0,3}(`{3,}|~{3,})")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_ACTIVE_OPEN = re.compile(r"<(script|style|iframe|object|template|svg|noscript)(?=[\s>/])", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|body|br|button|center|cite|code|dd|del|details|div|dl|dt|em|embed|figcaption|figure|"
    r"font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|li|link|main|mark|meta|nav|object|ol|p|picture|"
    r"pre|q|s|samp|script|section|small|source|span|strong|style|sub|summary|sup|svg|table|tbody|td|template|tfoot|th|thead|"
    r"tr|tt|u|ul|var|video)(?=[\s/>])(?:[^<>]*)>",
    re.IGNORECASE,
)
_IMAGE_TAG = re.compile(r"<img\s[^<>]*>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""\b(src|alt)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""", re.IGNORECASE)
_ANCHOR = re.compile(r"(?<![ \t])[ \t]*\{[ \t]?#[\w.:-]+[^{}\n]*\}[ \t]*$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")


def convert_markdown(text: str, fallback_title: str) -> Converted:
    """Drop front matter, comments, scripts and HTML tags from markdown; code fences stay as they are."""
    text = tidy_text(text)
    front = _FRONT_MATTER.match(text)
    stated = _FRONT_TITLE.search(front.group(1)) if front else None
    body = _without_html(text[front.end() :] if front else text)
    title = stated.group(1) if stated else title_of(body, fallback_title)
    return Converted(title, body if _opens_with_heading(body) else f"# {inert(title)}\n\n{body}" if body else "")


def convert_text(text: str, fallback_title: str) -> Converted:
    """Make a document of plain text: a title from the file's name, and the text with nothing in it that could run."""
    body = safe_links(inert(tidy_text(text).replace("\f", "\n"))).strip() + "\n"
    title = title_of("", fallback_title)
    return Converted(title, f"# {inert(title)}\n\n{body}" if body.strip() else "")


def _opens_with_heading(body: str) -> bool:
    return body.lstrip().startswith("# ")


def _without_html(text: str) -> str:
    body = _BLANK_LINES.sub("\n\n", "".join(piece if code else _strip(piece) for piece, code in _pieces(text))).strip()
    return body + "\n" if body else ""


def _pieces(text: str) -> list[tuple[str, bool]]:
    """Cut a text at its code fences, in one pass; a fence that is never closed reaches to the end."""
    pieces: list[tuple[str, bool]] = []
    lines: list[str] = []
    fence = ""
    for line in text.splitlines(keepends=True):
        found = _FENCE_LINE.match(line)
        if not fence and found:
            pieces.append(("".join(lines), False))
            lines, fence = [line], found.group(1)
        elif fence and found and found.group(1).startswith(fence) and not line.strip().strip(fence[0]):
            pieces.append(("".join([*lines, line]), True))
            lines, fence = [], ""
        else:
            lines.append(line)
    return [*pieces, ("".join(lines), bool(fence))]


def _strip(text: str) -> str:
    """Remove HTML outside code; what is left of it afterwards, tag in tag, is written out as text."""
    if "<" in text:
        text = _without_active(_COMMENT.sub("", text))
        text = _TAG.sub("", _IMAGE_TAG.sub(_image, text))
    return safe_links(inert(_ANCHOR.sub("", text)))


def _without_active(text: str) -> str:
    """Remove elements that hold code with all that stands in them; in one pass, whatever is opened and never closed."""
    lower = text.lower()
    pieces: list[str] = []
    position = 0
    while found := _ACTIVE_OPEN.search(text, position):
        pieces.append(text[position : found.start()])
        close = lower.find(f"</{found.group(1).lower()}", found.end())
        end = text.find(">", close) if close >= 0 else -1
        position = end + 1 if end >= 0 else len(text)
    return "".join(pieces) + text[position:]


def _image(match: re.Match[str]) -> str:
    """Write an HTML picture as a markdown one."""
    values = {found.group(1).lower(): _value(found) for found in _ATTRIBUTE.finditer(match.group())}
    source = re.sub(r"\s", "%20", values.get("src", ""))
    return f"![{values.get('alt', '')}]({source})" if source else values.get("alt", "")


def _value(found: re.Match[str]) -> str:
    return next((group for group in found.groups()[1:] if group is not None), "")
