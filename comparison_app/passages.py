"""Sources as people read them: the passage that an arm was given, what of it the answer says, where it comes from."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison_app.metrics.normalise import words
from comparison_app.metrics.support import sentences
from comparison_app.predictions import LinkedPicture, Prediction, RetrievedSpan
from data_prep.corpus import Corpus
from data_prep.places import Place, place_of

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
    """A picture of the corpus beside a source: the file, and the words for those who do not see it."""

    words: str
    file: Path

    @property
    def address(self) -> str:
        """The picture as a data address, which needs no request."""
        data = base64.b64encode(self.file.read_bytes()).decode("ascii")
        return f"data:{self.media_type};base64,{data}"

    @property
    def media_type(self) -> str:
        """What kind of picture it is, say image/png."""
        return f"image/{_TYPES[self.file.suffix.lower()]}"


@dataclass(frozen=True)
class Passage:
    """A source: `pieces` are its text in order, each with whether the answer rests on it.

    `link` opens the page it came from, at the section or the page of a PDF where that is known; None where it came from
    a file. `page` is counted from 1. `start` and `end` are characters of the document.
    """

    document: str
    title: str
    section: str
    page: int | None
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

    @property
    def where(self) -> str:
        """Title, section and page in words."""
        named = f"{self.title} › {self.section}" if self.section else self.title
        return f"{named}, page {self.page}" if self.page else named


def passages(prediction: Prediction, corpus: Corpus, text_of: Callable[[str], str], most: int = 3) -> list[Passage]:
    """Return the first `most` sources of an answer; `text_of` gives a document's text by its id, as it was indexed."""
    spans = prediction.documents[:most]
    texts = {span.document: text_of(span.document) for span in spans}
    shown = _pictures(prediction.pictures, spans, texts)
    return [
        _passage(span, prediction, corpus, texts[span.document], linked)
        for span, linked in zip(spans, shown, strict=True)
    ]


def _passage(
    span: RetrievedSpan, prediction: Prediction, corpus: Corpus, document: str, linked: Sequence[LinkedPicture]
) -> Passage:
    text = document[span.start : span.end]
    marks = carried(prediction, span) if prediction.sentences else quoted(text, prediction.answer)
    opening = _HEADING.match(text)
    first = span.start + (marks[0][0] if marks else opening.end() if opening else 0)
    entry = corpus.manifest.get(span.document)
    place = place_of(entry, first) if entry else Place()
    pictures = [picture for item in linked if (picture := corpus_picture(corpus, item.path, item.title))]
    return Passage(
        document=span.document,
        title=(entry.title if entry else "") or span.title or span.document,
        section=section_at(document, first),
        page=place.page,
        link=place.link,
        start=span.start,
        end=span.end,
        score=span.score,
        pieces=_shown(text, marks),
        pictures=tuple(pictures if prediction.pictures else pictures_of(text, corpus)),
    )


def carried(prediction: Prediction, span: RetrievedSpan) -> list[tuple[int, int]]:
    """Return where, in the text of `span`, the sentences stand that carry the answer's."""
    found = [each.span for each in prediction.sentences if each.span and each.span[0] == span.document]
    inside = [(max(start, span.start) - span.start, min(end, span.end) - span.start) for _, start, end in found]
    return _merged([(start, end) for start, end in inside if start < end])


def _pictures(
    pictures: Sequence[LinkedPicture], spans: Sequence[RetrievedSpan], texts: Mapping[str, str]
) -> list[list[LinkedPicture]]:
    """Return the pictures beside each of `spans`: at the source that links to it, else the first of its section."""
    shown: list[list[LinkedPicture]] = [[] for _ in spans]
    for picture in pictures:
        own = [place for place, span in enumerate(spans) if span.document == picture.document]
        within = [place for place in own if spans[place].start <= picture.start < spans[place].end]
        section = section_at(texts.get(picture.document, ""), picture.start)
        beside = [place for place in own if section_at(texts[picture.document], spans[place].end - 1) == section]
        for place in (within or beside or own)[:1]:
            shown[place].append(picture)
    return shown


def clipped(pieces: Sequence[tuple[str, bool]], longest: int) -> list[tuple[str, bool]]:
    """Return the first `longest` characters of a text in pieces."""
    found, left = [], longest
    for text, marked in pieces:
        found.append((text[:left], marked))
        left = max(0, left - len(text))
    return [(text, marked) for text, marked in found if text]


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
    links = dict.fromkeys(_PICTURE.findall(text))
    return [found for words_, link in links if (found := corpus_picture(corpus, f"documents/{link}", words_))]


def corpus_picture(corpus: Corpus, path: str, words_: str = "") -> Picture | None:
    """Return the picture at `path`, relative to the corpus's folder; None unless it lies in `assets/` and is shown."""
    if "://" in path or "\0" in path or path.removeprefix("documents/").startswith(("/", "data:")):
        return None
    file = (corpus.path / path).resolve()
    inside = file.is_relative_to((corpus.path / "assets").resolve()) and file.is_file()
    if not inside or file.suffix.lower() not in _TYPES or file.stat().st_size > _LARGEST_PICTURE:
        return None
    return Picture(words_, file)


def excerpt(text: str, most: int = 260) -> str:
    """Return how a passage begins, as running text: without its headings, a table's cells with dots between them."""
    from rag.extractive import plain_text

    body = re.sub(r"(?m)^#{1,6}[ \t].*$|^\|[ \t:|\-]+\|[ \t]*$", "", text)
    body = re.sub(r"(?m)^\|(.*)\|[ \t]*$", lambda row: " · ".join(map(str.strip, row[1].split("|"))) + ";", body)
    said = plain_text(body) or plain_text(text)
    if len(said) <= most:
        return said
    return f"{(said[:most].rsplit(maxsplit=1) or [said])[0][:most]} …"
