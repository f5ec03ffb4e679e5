"""What a converter gives back, and how it notes places while it writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from data_prep.converting.inert import MARK_CLOSE, MARK_OPEN

_MARK = re.compile(f"{MARK_OPEN}([^{MARK_OPEN}{MARK_CLOSE}]*){MARK_CLOSE}")
_PICTURE_LINK = re.compile(r"!\[[^\]]*\]\(([^)\s]*)(?:\s+\"[^\"]*\")?\)")
_TRAILING = re.compile(r"(?<![ \t])[ \t]+\n")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that lies inside a file; the markdown links to it as `embedded:<name>`."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Converted:
    """A document as light markdown.

    `part` names a part of a file that holds several documents (a chapter of a book). `pages` holds the character
    offset at which each page begins; `anchors` pairs of a character offset and the id that a link can name.
    `notes` says what could not be read of a document that was otherwise converted.
    """

    title: str
    markdown: str
    part: str = ""
    pages: tuple[int, ...] | None = None
    anchors: tuple[tuple[int, str], ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


def place_mark(note: str) -> str:
    """Return a mark to write where `note` holds; `split_marks` takes it out again."""
    return f"{MARK_OPEN}{note}{MARK_CLOSE}" if MARK_OPEN not in note and MARK_CLOSE not in note else ""


def split_marks(marked: str) -> tuple[str, list[tuple[int, str]]]:
    """Return the text without its marks, and each mark's note with the character offset where it stood."""
    marked = _TRAILING.sub("\n", marked).strip()
    pieces: list[str] = []
    notes: list[tuple[int, str]] = []
    length = position = 0
    for mark in _MARK.finditer(marked):
        pieces.append(marked[position : mark.start()])
        length += mark.start() - position
        notes.append((length, mark.group(1)))
        position = mark.end()
    pieces.append(marked[position:])
    text = "".join(pieces)
    return (text + "\n" if text.strip() else ""), notes


def relinked(converted: Converted, target_of: Callable[[str], str | None]) -> Converted:
    """Return the document with the targets of its pictures replaced where `target_of` gives another.

    Page and anchor offsets move along.
    """
    pieces: list[str] = []
    moved: list[tuple[int, int]] = []
    position = 0
    for match in _PICTURE_LINK.finditer(converted.markdown):
        target = target_of(match.group(1))
        if target is not None and target != match.group(1):
            pieces += [converted.markdown[position : match.start(1)], target]
            position = match.end(1)
            moved.append((match.end(1), len(target) - len(match.group(1))))

    def shifted(offset: int) -> int:
        return offset + sum(by for end, by in moved if end <= offset)

    return replace(
        converted,
        markdown="".join(pieces) + converted.markdown[position:],
        pages=None if converted.pages is None else tuple(map(shifted, converted.pages)),
        anchors=tuple((shifted(offset), name) for offset, name in converted.anchors),
    )


def without_marks(text: str) -> str:
    """Return `text` without marks."""
    return _MARK.sub("", text)
