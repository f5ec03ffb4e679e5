"""Text that is safe to stand in markdown: no tag of it comes to life, no link of it runs.

Text of pages is data. Outside code, whatever a markdown renderer could take for HTML is written with `&lt;`; a bare
placeholder such as `<name>` stays as people wrote it.
"""

from __future__ import annotations

import html
import re
import unicodedata

MARK_OPEN, MARK_CLOSE = "\ue000", "\ue001"
"""Private characters around a note on a place (an anchor, a page) until offsets are known; no input keeps them."""

HTML_NAMES = (
    "a|abbr|address|applet|area|article|aside|audio|b|base|bdi|bdo|blockquote|body|br|button|canvas|caption|center|cite|"
    "code|col|colgroup|data|datalist|dd|del|details|dfn|dialog|dir|div|dl|dt|em|embed|fieldset|figcaption|figure|font|"
    "footer|form|frame|frameset|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|isindex|kbd|label|legend|li|link|main|"
    "map|mark|marquee|math|menu|meta|meter|nav|noscript|object|ol|optgroup|option|output|p|param|picture|plaintext|pre|"
    "progress|q|s|samp|script|section|select|slot|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|"
    "td|template|textarea|tfoot|th|thead|time|title|tr|track|tt|u|ul|var|video|wbr|xmp"
)
_ALIVE = re.compile(
    rf"<(?=[!?]|(?:javascript|vbscript|data):|/?(?:{HTML_NAMES})(?:[\s/>]|$)|/?[A-Za-z][^\s<>]*[\s/]+[^<>]*=)",
    re.IGNORECASE,
)
_TARGET = re.compile(r"(\]\(\s*<?|^ {0,3}\[[^\]\n]+\]:\s*<?)([^)\s>]+)", re.MULTILINE)
_SCHEME = re.compile(r"[\s\x00-\x20]*([a-z][a-z0-9+.\-\s]*?)\s*:", re.IGNORECASE)
_SAFE_SCHEMES = frozenset({"http", "https", "mailto", "tel"})
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ue000\ue001]")
_LINE_ENDS = re.compile(r"\r\n?|[\u2028\u2029\x85]")


def inert(text: str) -> str:
    """Return `text` with everything that could be read as live HTML written out."""
    return _ALIVE.sub("&lt;", text) if "<" in text else text


def safe_links(markdown: str) -> str:
    """Return `markdown` with the targets of links that run code emptied."""

    def checked(match: re.Match[str]) -> str:
        return match.group() if safe_target(html.unescape(match.group(2))) else match.group(1)

    return _TARGET.sub(checked, markdown)


def safe_target(target: str) -> bool:
    """Tell whether a link target is relative or of a scheme that only fetches or writes a message."""
    scheme = _SCHEME.match(target)
    return scheme is None or scheme.group(1).lower() in _SAFE_SCHEMES


def tidy_text(text: str) -> str:
    """Return text in NFC with one kind of line ends, without control characters, lone surrogates and our own marks."""
    text = _CONTROLS.sub("", _LINE_ENDS.sub("\n", text).removeprefix("\ufeff"))
    return unicodedata.normalize("NFC", text)
