"""The running text of an HTML element: words, code, pictures, line breaks; links keep their text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urljoin

from lxml import html as lxml_html  # type: ignore[import-untyped]

from data_prep.converting.inert import inert, safe_target, tidy_text

_SKIPPED_NAMES = (
    "script style noscript template iframe object embed applet canvas svg head link meta base audio video source track "
    "map area input select option optgroup datalist textarea button dialog nav frameset noframes param colgroup col "
    "isindex progress meter"
)
SKIPPED = frozenset(_SKIPPED_NAMES.split())
"""Elements that hold no text of the document."""
_CODE = frozenset({"code", "tt", "samp", "kbd"})
_SPACE = re.compile(r"[ \t\n\r\f]+")
_AROUND_BREAK = re.compile(r" *\n *")
_LINE_START = re.compile(r"(?m)^(\s*)(#{1,6}\s|[>+*-]\s|```|~~~|\||(?:-{3,}|={3,}|_{3,}|\*{3,})\s*$)")
_NUMBER_START = re.compile(r"(?m)^(\s*\d{1,9})([.)]\s)")
_BACKTICKS = re.compile(r"`+")
_PILCROWS = frozenset({"¶", "#", "§", "🔗", "​"})
_LAZY_SOURCES = ("data-src", "data-original", "data-lazy-src", "src")
_MAX_DEPTH = 120
_PIXEL = re.compile(r"^[01](?:px)?$")


@dataclass(slots=True)
class Context:
    """What rendering needs to know of the page, and the embedded pictures that it finds."""

    base: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict)


def children(element: lxml_html.HtmlElement) -> list[lxml_html.HtmlElement]:
    """Return the child elements, comments and processing instructions left out."""
    return [child for child in element if isinstance(child.tag, str)]


def classes(element: lxml_html.HtmlElement) -> set[str]:
    """Return an element's classes in lower case."""
    return set((element.get("class") or "").lower().split())


def collapse(text: str) -> str:
    """Return text with every run of white space as one space; line breaks of `<br>` are told apart by the caller."""
    return _SPACE.sub(" ", text)


def flat(element: lxml_html.HtmlElement, context: Context) -> str:
    """Return an element's running text on one line."""
    return collapse(inline(element, context)).strip()


def inline(element: lxml_html.HtmlElement, context: Context, depth: int = 0) -> str:
    """Return the running text inside `element`, its own tail left out; `<br>` is a line break."""
    if depth > _MAX_DEPTH:
        return inert(collapse("".join(element.itertext())))
    pieces = [inert(collapse(element.text or ""))]
    for child in element:
        if isinstance(child.tag, str):
            pieces.append(child_text(child, context, depth))
        pieces.append(inert(collapse(child.tail or "")))
    return "".join(pieces)


def paragraph(text: str) -> str:
    """Return running text as a paragraph: spaces trimmed, and no line that markdown would take for structure."""
    if not text or text.isspace():
        return ""
    text = _AROUND_BREAK.sub("\n", _no_blank_runs(text)).strip()
    return _NUMBER_START.sub(r"\1\\\2", _LINE_START.sub(r"\1\\\2", text))


def picture(element: lxml_html.HtmlElement, context: Context) -> str:
    """Return a picture's link with its alternative text, or nothing for a spacer or a picture without address."""
    if _PIXEL.match(element.get("width") or "") or _PIXEL.match(element.get("height") or ""):
        return ""
    alt = collapse(element.get("alt") or element.get("title") or "").strip().replace("[", "(").replace("]", ")")
    source = _picture_source(element)
    if source.startswith("data:"):
        source = _embedded(source, context)
    elif source and safe_target(source):
        source = _link(source, context.base)
    else:
        source = ""
    return f"![{inert(tidy_text(alt))}]({source})" if source else inert(alt)


def code_text(text: str) -> str:
    """Return inline code in as many backticks as it needs."""
    text = collapse(text).strip()
    if not text:
        return ""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    ticks = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def is_permalink(element: lxml_html.HtmlElement) -> bool:
    """Tell whether a link is the sign beside a heading that only points to itself."""
    text = "".join(element.itertext()).strip()
    marked = classes(element) & {
        "headerlink",
        "anchor-link",
        "hash-link",
        "anchorjs-link",
        "header-anchor",
        "permalink",
    }
    return bool(marked) or (text in _PILCROWS and (element.get("href") or "").startswith("#"))


def child_text(child: lxml_html.HtmlElement, context: Context, depth: int = 0) -> str:
    """Return what one inline element says; its tail is left out."""
    tag = child.tag
    if tag in SKIPPED:
        return ""
    if tag == "br":
        return "\n"
    if tag == "img":
        return picture(child, context)
    if tag == "a" and is_permalink(child):
        return ""
    if tag in _CODE and child.find(".//img") is None:
        return code_text("".join(child.itertext()))
    if tag == "math":
        return inert(child.get("alttext") or collapse("".join(child.itertext())))
    text = inline(child, context, depth + 1)
    return f'"{text}"' if tag == "q" else f" {text} " if tag in {"p", "div", "li", "td", "th", "tr", "dd"} else text


def _picture_source(element: lxml_html.HtmlElement) -> str:
    for name in _LAZY_SOURCES:
        value = (element.get(name) or "").strip()
        if value and not value.startswith("data:image/svg"):
            return value
    return (element.get("srcset") or "").strip().split(" ")[0].rstrip(",")


def _link(source: str, base: str) -> str:
    try:
        address = urljoin(base, source)
    except ValueError:
        return ""
    return _SPACE.sub("%20", address).replace("(", "%28").replace(")", "%29").replace("<", "%3C").replace(">", "%3E")


def _embedded(source: str, context: Context) -> str:
    """Keep a picture that stands inside the page; only raster pictures, which hold no script."""
    import base64
    import hashlib

    head, _, body = source.partition(",")
    kind = re.match(r"data:image/(png|jpeg|gif|webp);base64$", head.replace(" ", ""), re.IGNORECASE)
    if kind is None:
        return ""
    try:
        data = base64.b64decode(body, validate=False)
    except ValueError:
        return ""
    name = f"{hashlib.sha256(data).hexdigest()[:12]}.{kind.group(1).lower().replace('jpeg', 'jpg')}"
    context.pictures[name] = data
    return f"embedded:{name}"


def _no_blank_runs(text: str) -> str:
    return re.sub(r" {2,}", " ", re.sub(r"\n\s*\n+", "\n", text))
