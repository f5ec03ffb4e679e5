"""The structure of an HTML element in light markdown: headings, lists, tables, code, admonitions, definitions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

from data_prep.converting.html_inline import (
    SKIPPED,
    Context,
    child_text,
    children,
    classes,
    flat,
    inline,
    paragraph,
    picture,
)
from data_prep.converting.html_tables import table_blocks
from data_prep.converting.inert import inert
from data_prep.converting.result import place_mark

Element = Any
_MAX_DEPTH = 60
"""Below this many nested blocks an element gives its running text only."""
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCK_NAMES = (
    "address article aside blockquote body center dd details dir div dl dt fieldset figcaption figure footer form h1 "
    "h2 h3 h4 h5 h6 header hgroup hr html legend li main menu ol p pre section summary table tbody td tfoot th thead "
    "tr ul caption"
)
BLOCK_TAGS = frozenset(_BLOCK_NAMES.split())
"""Elements that are rendered as blocks of their own."""
_ADMONITIONS = {
    "note": "Note", "info": "Info", "tip": "Tip", "hint": "Hint", "important": "Important", "warning": "Warning",
    "caution": "Caution", "danger": "Danger", "error": "Error", "attention": "Attention", "example": "Example",
    "seealso": "See also", "abstract": "Abstract", "success": "Success", "question": "Question", "bug": "Bug",
    "todo": "Note", "deprecated": "Deprecated",
}  # fmt: skip
_ADMONITION_BOXES = frozenset({"admonition", "admonitionblock", "alert", "callout", "theme-admonition", "custom-block"})
_ADMONITION_TITLES = frozenset(
    {"admonition-title", "title", "alert-title", "callout-title", "custom-block-title", "admonition-heading"}
)
_LANGUAGE = re.compile(r"\b(?:language|lang|highlight|brush)[-:]\s?([A-Za-z0-9+#_.-]+)")
_NO_LANGUAGE = frozenset({"default", "none", "text", "plaintext", "plain", "notranslate", "highlight"})
_LINE_NUMBERS = frozenset({"linenos", "lineno", "linenodiv", "ln", "line-numbers-rows", "gutter", "rouge-gutter"})


def blocks(element: Element, context: Context, depth: int = 0) -> list[str]:
    """Return the markdown blocks of what stands inside `element`, in order."""
    if depth > _MAX_DEPTH:
        return _paragraphs(inert(" ".join("".join(element.itertext()).split())))
    found: list[str] = []
    running = inert(_spaced(element.text))
    for child in element:
        if isinstance(child.tag, str) and child.tag not in SKIPPED:
            if _is_block(child):
                found += _paragraphs(running)
                running = ""
                found += block(child, context, depth + 1)
            else:
                running += child_text(child, context)
        running += inert(_spaced(child.tail))
    return found + _paragraphs(running)


def block(element: Element, context: Context, depth: int = 0) -> list[str]:
    """Return the markdown blocks of one block element."""
    if depth <= _MAX_DEPTH and (title := _admonition_title(element)) is not None:
        return _admonition(element, title, context, depth)
    render = _RENDERERS.get(element.tag)
    return render(element, context, depth) if render else blocks(element, context, depth)


def _is_block(element: Element) -> bool:
    """Tell whether an element is a block, or an inline one (a link, a span) that has blocks inside."""
    if element.tag in BLOCK_TAGS:
        return True
    return any(inner.tag in BLOCK_TAGS for inner in element.iterdescendants() if isinstance(inner.tag, str))


def _spaced(text: str | None) -> str:
    return re.sub(r"[ \t\n\r\f]+", " ", text or "")


def _paragraphs(running: str) -> list[str]:
    text = paragraph(running)
    return [text] if text else []


def _heading(element: Element, context: Context, depth: int) -> list[str]:
    text = flat(element, context)
    if not re.sub(r"!\[\]\([^)]*\)", "", text).strip():
        return [text] if text else []
    return [f"{_anchors(element)}{'#' * _HEADINGS[element.tag]} {text}"]


def _anchors(element: Element) -> str:
    """Return the marks of the ids that lead to a heading: its own, its section's, and those of anchors in it."""
    names = [element.get("id") or element.get("name")]
    parent = element.getparent()
    while parent is not None and parent.tag in {"div", "section", "article", "header", "hgroup"}:
        first = next(iter(children(parent)), None)
        if first is not element and (first is None or element not in first.iterdescendants()):
            break
        names.append(parent.get("id"))
        parent = parent.getparent()
    names += [anchor.get("id") or anchor.get("name") for anchor in element.iterdescendants("a", "span")]
    before = element.getprevious()
    if before is not None and before.tag in {"a", "span"} and not "".join(before.itertext()).strip():
        names.append(before.get("id") or before.get("name"))
    found = next((name for name in names if name and not re.search(r"\s", name)), None)
    return place_mark(f"#{found}") if found else ""


def _list(element: Element, context: Context, depth: int) -> list[str]:
    numbered, number, items = element.tag == "ol", _start(element), []
    for child in children(element):
        if child.tag in SKIPPED:
            continue
        marker = f"{number}. " if numbered else "- "
        inner = blocks(child, context, depth + 1) if child.tag == "li" else block(child, context, depth + 1)
        if inner:
            items.append(hang(marker, inner))
            number += 1
    return ["\n".join(items)] if items else []


def _start(element: Element) -> int:
    value = (element.get("start") or "").strip()
    return int(value) if value.isdigit() and len(value) < 7 else 1


def hang(marker: str, inner: list[str]) -> str:
    """Return blocks as one list item: the first behind its marker, the rest indented under it."""
    pad = " " * len(marker)
    text = inner[0]
    for before, after in itertools.pairwise(inner):
        tight = after.lstrip().startswith(("- ", "1. ")) and not before.lstrip().startswith(("- ", "```"))
        text += ("\n" if tight else "\n\n") + after
    lines = text.split("\n")
    return "\n".join([marker + lines[0]] + [pad + line if line else "" for line in lines[1:]])


def _definitions(element: Element, context: Context, depth: int) -> list[str]:
    """Return a definition list as a list of `- **Term**: definition`."""
    items: list[str] = []
    terms: list[str] = []
    rows = [inner for child in children(element) for inner in (children(child) if child.tag == "div" else [child])]
    for row in rows:
        if row.tag == "dt":
            terms.append((_anchors(row) if row.get("id") else "") + f"**{flat(row, context)}**")
        elif row.tag not in SKIPPED:
            inner = blocks(row, context, depth + 1) if row.tag == "dd" else block(row, context, depth + 1)
            label = ", ".join(terms)
            terms = []
            items += [hang("- ", _labelled(label, inner))] if inner or label else []
    items += [f"- {', '.join(terms)}"] if terms else []
    return ["\n".join(items)] if items else []


def _labelled(label: str, inner: list[str]) -> list[str]:
    if not label:
        return inner
    plain = bool(inner) and not inner[0].startswith(("```", "- ", "|", "> ", "#"))
    return [f"{label}: {inner[0]}", *inner[1:]] if plain else [f"{label}:" if inner else label, *inner]


def _code(element: Element, context: Context, depth: int) -> list[str]:
    text = _code_lines(element)
    if not text.strip():
        return []
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{_language(element)}\n{text}\n{fence}"]


def _code_lines(element: Element) -> str:
    return "".join(_walk(element)).replace("\t", "    ").replace("\r", "").strip("\n").rstrip()


def _walk(element: Element) -> list[str]:
    """Return the text of a code block piece by piece, line numbers left out and `<br>` as a line end."""
    from lxml import etree  # type: ignore[import-untyped]

    pieces: list[str] = []
    skipping: Element = None
    for event, node in etree.iterwalk(element, events=("start", "end")):
        if event == "start" and skipping is None:
            if (
                not isinstance(node.tag, str)
                or node.tag in {"button", "script", "style"}
                or classes(node) & _LINE_NUMBERS
            ):
                skipping = node
            else:
                pieces.append("\n" if node.tag == "br" else node.text or "")
        elif event == "end":
            if node is skipping:
                skipping = None
            if skipping is None and node is not element:
                pieces.append(node.tail or "")
    return pieces


def _language(element: Element) -> str:
    holders = [element, *element.iterdescendants("code"), *list(element.iterancestors())[:3]]
    for holder in holders:
        named = holder.get("data-lang") or holder.get("data-language") or ""
        found = _LANGUAGE.search(holder.get("class") or "")
        name = (named or (found.group(1) if found else "")).lower()
        if name and name not in _NO_LANGUAGE and re.fullmatch(r"[a-z0-9+#_.-]{1,20}", name):
            return name
    return ""


def _admonition_title(element: Element) -> str | None:
    """Return the title of an admonition, or None if the element is none."""
    if element.tag not in {"div", "aside", "section", "details", "blockquote", "table", "p"}:
        return None
    names = classes(element)
    kind = next((_ADMONITIONS[name] for name in names if name in _ADMONITIONS), None)
    kind = kind or next(
        (_ADMONITIONS[part] for name in names for part in name.split("-")[1:] if part in _ADMONITIONS), None
    )
    boxed = bool(names & _ADMONITION_BOXES) or "admonition" in (element.get("data-type") or "")
    role = element.get("role") in {"note", "alert"} and kind is not None
    plain = bool(names & _ADMONITIONS.keys() - {"example"}) and element.tag in {"div", "aside", "section", "p"}
    return (kind or "Note") if (boxed and (kind or "admonition" in names)) or role or plain else None


def _admonition(element: Element, kind: str, context: Context, depth: int) -> list[str]:
    heading = _title_element(element)
    title = flat(heading, context) if heading is not None else ""
    if heading is not None:
        _drop(heading)
    if element.tag == "table":
        inner = [part for cell in element.iter("td") for part in blocks(cell, context, depth + 1)]
    else:
        inner = blocks(element, context, depth + 1)
    if not inner:
        return [f"> **{title or kind}**"] if title else []
    label = f"**{(title or kind).rstrip(':')}:**"
    plain = not inner[0].startswith(("```", "- ", "|", ">", "#", "1. "))
    text = "\n\n".join([f"{label} {inner[0]}", *inner[1:]] if plain else [label, *inner])
    return ["\n".join(f"> {line}".rstrip() for line in text.split("\n"))]


def _title_element(element: Element) -> Element | None:
    """Return what names an admonition: an element of a title's class, or a heading or bold line it begins with."""
    for inner in list(element.iterdescendants())[:12]:
        if isinstance(inner.tag, str) and (classes(inner) & _ADMONITION_TITLES or inner.tag == "summary"):
            return inner
    first: Any = next(iter(children(element)), None)
    leads = first is not None and not (element.text or "").strip() and len("".join(first.itertext())) < 60
    return first if leads and first.tag in {"h2", "h3", "h4", "h5", "h6"} else None


def _drop(element: Element) -> None:
    """Take an element out and leave the text behind it; trees that trafilatura made have no `drop_tree`."""
    parent, before = element.getparent(), element.getprevious()
    if before is not None:
        before.tail = (before.tail or "") + (element.tail or "")
    else:
        parent.text = (parent.text or "") + (element.tail or "")
    parent.remove(element)


def _quote(element: Element, context: Context, depth: int) -> list[str]:
    inner = blocks(element, context, depth + 1)
    return ["\n".join(f"> {line}".rstrip() for line in "\n\n".join(inner).split("\n"))] if inner else []


def _figure(element: Element, context: Context, depth: int) -> list[str]:
    found = blocks(element, context, depth + 1)
    if not any("![" in part for part in found):
        lazy = [picture(image, context) for image in element.iter("img")]
        found = [part for part in lazy if part][:1] + found
    return found


def _details(element: Element, context: Context, depth: int) -> list[str]:
    summary = element.find("summary")
    if summary is None:
        return blocks(element, context, depth + 1)
    title = flat(summary, context)
    _drop(summary)
    return [f"**{title}**", *blocks(element, context, depth + 1)] if title else blocks(element, context, depth + 1)


def _table(element: Element, context: Context, depth: int) -> list[str]:
    return table_blocks(element, context, lambda cell: blocks(cell, context, depth + 1))


def _rule(element: Element, context: Context, depth: int) -> list[str]:
    return []


def _running(element: Element, context: Context, depth: int) -> list[str]:
    if any(inner.tag in BLOCK_TAGS for inner in element.iterdescendants() if isinstance(inner.tag, str)):
        return blocks(element, context, depth + 1)
    return _paragraphs(inline(element, context))


_RENDERERS: dict[str, Callable[[Element, Context, int], list[str]]] = {
    **dict.fromkeys(_HEADINGS, _heading),
    **dict.fromkeys(("ul", "ol", "menu", "dir"), _list),
    "dl": _definitions,
    "pre": _code,
    "blockquote": _quote,
    "figure": _figure,
    "details": _details,
    "table": _table,
    "hr": _rule,
    "p": _running,
}
