"""One file of somebody's documents to light markdown: headings, paragraphs, lists, tables, code, links; no HTML."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from data_prep.corpus import title_of
from data_prep.errors import DataError

MARKDOWN_SUFFIXES = frozenset({".md", ".markdown", ".mdx"})
TEXT_SUFFIXES = frozenset({".txt", ".text"})
MAX_BYTES = 20_000_000

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE)
_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^(?P=fence)[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_ACTIVE = re.compile(r"<(script|style|iframe|object|template)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:a|abbr|b|blockquote|body|br|button|center|cite|code|dd|del|details|div|dl|dt|em|embed|figcaption|figure|font|"
    r"footer|form|h[1-6]|head|header|hr|html|i|img|input|ins|kbd|li|link|main|mark|meta|nav|ol|p|picture|pre|q|s|samp|"
    r"section|small|source|span|strong|sub|summary|sup|svg|table|tbody|td|tfoot|th|thead|tr|u|ul|var|video)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Converted:
    """A document as light markdown, with its title."""

    title: str
    markdown: str


def convert_file(path: Path) -> Converted:
    """Convert one markdown or text file.

    Raises `DataError` that names the file when it is of another kind, too large, empty, or not text in UTF-8.
    """
    suffix = path.suffix.lower()
    if suffix not in MARKDOWN_SUFFIXES | TEXT_SUFFIXES:
        raise DataError(f"{path}: files of kind {suffix or 'without ending'} cannot be read; give markdown or text")
    text = _read(path)
    converted = convert_markdown(text, path.stem) if suffix in MARKDOWN_SUFFIXES else _convert_text(text, path.stem)
    if not converted.markdown.strip():
        raise DataError(f"{path}: holds no text")
    return converted


def convert_markdown(text: str, fallback_title: str) -> Converted:
    """Drop front matter, comments, scripts and HTML tags from markdown; code fences stay as they are."""
    text = _tidy(text)
    front = _FRONT_MATTER.match(text)
    stated = _FRONT_TITLE.search(front.group(1)) if front else None
    body = _without_html(text[front.end() :] if front else text)
    title = stated.group(1) if stated else title_of(body, fallback_title)
    return Converted(title, body if _opens_with_heading(body) else f"# {title}\n\n{body}" if body else "")


def _convert_text(text: str, fallback_title: str) -> Converted:
    body = _tidy(text).strip() + "\n"
    title = title_of("", fallback_title)
    return Converted(title, f"# {title}\n\n{body}" if body.strip() else "")


def _opens_with_heading(body: str) -> bool:
    return body.lstrip().startswith("# ")


def _without_html(text: str) -> str:
    pieces, position = [], 0
    for fence in _FENCE.finditer(text):
        pieces += [_strip_tags(text[position : fence.start()]), fence.group()]
        position = fence.end()
    pieces.append(_strip_tags(text[position:]))
    body = _BLANK_LINES.sub("\n\n", "".join(pieces)).strip()
    return body + "\n" if body else ""


def _strip_tags(text: str) -> str:
    return _TAG.sub("", _ACTIVE.sub("", _COMMENT.sub("", text)))


def _tidy(text: str) -> str:
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff"))
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cs"})


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: larger than {MAX_BYTES // 1_000_000} MB; split it")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
