"""Sources as people read them: the passage that an arm was given, what of it the answer says, where it comes from."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison_app.metrics.normalise import words
from comparison_app.metrics.support import sentences
from comparison_app.predictions import RetrievedSpan
from data_prep.corpus import Corpus

LONGEST = 900
"""Characters of a passage that are shown, around what is marked."""
_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*\s*$", re.MULTILINE)
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)[^)]*\)")
_TYPES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp", ".svg": "svg+xml"}
_LARGEST_PICTURE = 2_000_000
_SENTENCE = re.compile(r"(?:[^.!?\n|]|[.!?](?=\S)|\n(?!\s*(?:\n|[-*|#>\d])))+[.!?]*")
_ALIKE = 0.7
"""Share of the words of an answer's sentence that one sentence of the passage must hold to be marked."""


@dataclass(frozen=True)
class Picture:
    """A picture that a passage links to, as a data address that needs no request; `words` is its alternative text."""

    words: str
    address: str


@dataclass(frozen=True)
class Passage:
    """A source: `pieces` are its text in order, each with whether the answer rests on it.

    `link` is the address of the page it came from, None where it came from a file. `start` and `end` are characters of
    the document.
    """

    document: str
    title: str
    section: str
    link: str | None
    start: int
    end: int
    score: float
    pieces: tuple[tuple[str, bool], ...]
    pictures: tuple[Picture, ...] = ()

    @property
    def text(self) -> str:
        """The whole text that is shown."""
        return "".join(text for text, _ in self.pieces)


def passages(
    spans: Sequence[RetrievedSpan], answer: str, corpus: Corpus, text_of: Callable[[str], str], most: int = 3
) -> list[Passage]:
    """Return the first `most` sources of an answer; `text_of` gives a document's text by its id, as it was indexed."""
    return [_passage(span, answer, corpus, text_of(span.document)) for span in spans[:most]]


def _passage(span: RetrievedSpan, answer: str, corpus: Corpus, document: str) -> Passage:
    entry = corpus.manifest.get(span.document)
    source = entry.source if entry else None
    text = document[span.start : span.end]
    marks = quoted(text, answer)
    opening = _HEADING.match(text)
    first = marks[0][0] if marks else (opening.end() if opening else 0)
    return Passage(
        document=span.document,
        title=(entry.title if entry else "") or span.title or span.document,
        section=section_at(document, span.start + first),
        link=source if source and re.match(r"https?://", source) else None,
        start=span.start,
        end=span.end,
        score=span.score,
        pieces=_shown(text, marks),
        pictures=tuple(pictures_of(text, corpus)),
    )


def section_at(document: str, place: int) -> str:
    """Return the heading, below the title, under which the character at `place` stands; "" if there is none."""
    headings = [m.group(2) for m in _HEADING.finditer(document, 0, max(0, place + 1)) if len(m.group(1)) > 1]
    return headings[-1] if headings else ""


def quoted(text: str, answer: str) -> list[tuple[int, int]]:
    """Return the spans of `text` that the answer rests on: what it says word for word, else its nearest sentence."""
    found = []
    candidates = [(m.start(), m.end(), set(words(m.group()))) for m in _SENTENCE.finditer(text)]
    for sentence in sentences(answer[:4000]):
        start = text.find(sentence)
        said = set(words(sentence))
        if start >= 0 and len(sentence) > 15:
            found.append((start, start + len(sentence)))
        elif len(said) >= 3 and candidates:
            start, end, own = max(candidates, key=lambda item: len(said & item[2]) - len(item[2]) / 1000)
            if len(said & own) >= _ALIKE * len(said):
                found.append((start + len(text[start:end]) - len(text[start:end].lstrip()), end))
    return _merged(found)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _shown(text: str, marks: list[tuple[int, int]]) -> tuple[tuple[str, bool], ...]:
    """Return `text` in marked and unmarked pieces, cut to `LONGEST` around the first mark."""
    first = max(0, min((start for start, _ in marks), default=0) - LONGEST // 3) if len(text) > LONGEST else 0
    last = min(len(text), first + LONGEST)
    pieces: list[tuple[str, bool]] = [("… ", False)] if first else []
    place = first
    for start, end in marks:
        start, end = max(start, first), min(end, last)
        if start < end:
            pieces += [(text[place:start], False), (text[start:end], True)]
            place = end
    pieces += [(text[place:last], False), (" …" if last < len(text) else "", False)]
    return tuple((piece, marked) for piece, marked in pieces if piece)


def pictures_of(text: str, corpus: Corpus) -> list[Picture]:
    """Return the corpus's own pictures that markdown links to; pictures elsewhere are not fetched."""
    found = []
    for words_, link in dict.fromkeys(_PICTURE.findall(text)):
        path = _inside(corpus.path, link)
        kind = _TYPES.get(Path(link).suffix.lower())
        if path is not None and kind and path.stat().st_size <= _LARGEST_PICTURE:
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            found.append(Picture(words_, f"data:image/{kind};base64,{data}"))
    return found


def _inside(corpus: Path, link: str) -> Path | None:
    """Return the file of the corpus's `assets/` that a document's relative link names, else None."""
    if "://" in link or link.startswith(("/", "data:")):
        return None
    path = (corpus / "documents" / link).resolve()
    return path if path.is_relative_to((corpus / "assets").resolve()) and path.is_file() else None
