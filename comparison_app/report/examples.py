"""Which questions a report shows, chosen by rule and not by eye, and the sources that each arm read, marked up."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from comparison_app.evaluation import Evaluation
from comparison_app.metrics.scoring import declined
from comparison_app.metrics.support import sentences
from comparison_app.passages import Picture, carried, clipped, passages
from comparison_app.predictions import Prediction, RetrievedSpan
from data_prep.questions import Question

LONGEST = 1_200
"""Characters of an answer that the page shows."""
LONGEST_SOURCE = 700
LARGEST_PICTURE = 60_000
"""Bytes of a picture that the page holds; of larger ones it says the words."""
SOURCES = 3
GAPS = 3
"""Largest differences shown per pair and direction."""
AGREEMENTS = 2
ALIKE = 0.05
"""Two answers whose worth differs by no more are alike."""
ERRORS = 100
"""Failed questions listed; the others are counted and stand in questions.csv."""
_BLANK_LINES = re.compile(r"\n\s*\n")
_HIDDEN = {code: None for code in range(32) if code not in (9, 10)}


@dataclass(frozen=True)
class ShownPicture:
    """A picture beside a source; `address` holds it as data, "" where it is too large for the page."""

    words: str
    address: str


@dataclass(frozen=True)
class Source:
    """A span that an arm read, as marked-up text: evidence, and what the answer quotes or rests on, are marked.

    `link` opens the place in the source where it has an address. `pictures` are those of its section.
    """

    title: str
    document: str
    text: Markup
    link: str | None = None
    pictures: tuple[ShownPicture, ...] = ()


@dataclass(frozen=True)
class Reply:
    """One arm's answer to the example's question, the sentences that no source carries marked.

    `credit` in points, None where no metric applies.
    """

    arm: str
    colour: int
    answer: Markup
    note: str
    credit: int | None
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Example:
    """One question with the arms' answers."""

    question: Question
    golds: tuple[str, ...]
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Group:
    """Examples under one heading that says by which rule they were chosen."""

    heading: str
    examples: tuple[Example, ...]


def readable(text: str, longest: int = LONGEST) -> str:
    """Return `text` without control characters, cut to `longest` with a word on its length."""
    clean = text.translate(_HIDDEN)
    if len(clean) <= longest:
        return clean
    return f"{clean[:longest]} … ({len(clean):,} characters in all)"


def disagreements(evaluation: Evaluation) -> list[Group]:
    """Return the examples: per declared pair the largest differences both ways, and agreements drawn at random."""
    pairs = dict.fromkeys((pair.comparison.a, pair.comparison.b) for pair in evaluation.declared())
    return [group for a, b in pairs for group in (*_both_ways(evaluation, a, b), *_agreements(evaluation, a, b))]


def _both_ways(evaluation: Evaluation, a: str, b: str) -> Iterable[Group]:
    gaps = evaluation.credit[:, evaluation.arms.index(a)] - evaluation.credit[:, evaluation.arms.index(b)]
    lot = np.random.default_rng(evaluation.experiment.seed).random(len(gaps))  # among equals, the lot decides
    for winner, loser, signed in ((a, b, gaps), (b, a, -gaps)):
        ranked = [row for row in np.lexsort((lot, -np.nan_to_num(signed))) if signed[row] > 0][:GAPS]
        if ranked:
            found = tuple(example(evaluation, int(row), (winner, loser)) for row in ranked)
            yield Group(f"{winner} far better than {loser}", found)


def _agreements(evaluation: Evaluation, a: str, b: str) -> Iterable[Group]:
    """Draw questions on which two arms earned nearly the same, by the experiment's seed."""
    gaps = evaluation.credit[:, evaluation.arms.index(a)] - evaluation.credit[:, evaluation.arms.index(b)]
    alike = [int(row) for row in np.flatnonzero(np.abs(gaps) <= ALIKE)]
    drawn = random.Random(evaluation.experiment.seed).sample(alike, min(AGREEMENTS, len(alike)))
    if drawn:
        found = tuple(example(evaluation, row, (a, b)) for row in sorted(drawn))
        yield Group(f"{a} and {b} alike (drawn at random)", found)


def failures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return (arm, question, error) of every failure, up to `ERRORS`."""
    found = [
        (arm, question.question, readable(prediction.error, 300))
        for arm, rows in evaluation.predictions.items()
        for question, prediction in zip(evaluation.questions, rows, strict=True)
        if prediction.error is not None
    ]
    return found[:ERRORS]


def example(evaluation: Evaluation, row: int, arms: Sequence[str]) -> Example:
    """Return one question with the replies of `arms`."""
    question = evaluation.questions[row]
    return Example(
        question=question,
        golds=tuple(readable(gold) for gold in question.answers),
        replies=tuple(_reply(evaluation, row, arm) for arm in arms),
    )


def _reply(evaluation: Evaluation, row: int, arm: str) -> Reply:
    prediction = evaluation.predictions[arm][row]
    column = evaluation.arms.index(arm)
    credit = evaluation.credit[row, column]
    note = f"failed: {readable(prediction.error, 300)}" if prediction.error is not None else ""
    if declined(prediction):
        note = "declined"
    question = evaluation.questions[row]
    return Reply(
        arm=arm,
        colour=column,
        answer=_said(prediction),
        note=note,
        credit=None if np.isnan(credit) else round(100 * float(credit)),
        sources=_sources(evaluation, question, prediction),
    )


def _said(prediction: Prediction) -> Markup:
    """Return an answer escaped and cut to `LONGEST`, with the sentences marked that no source carries."""
    if not any(unsupported for _, unsupported in prediction.pieces):
        return escape(readable(prediction.answer))
    mark = Markup('<span class="unsupported">{}<small> not in the sources</small></span>')
    shown = [
        mark.format(text.translate(_HIDDEN)) if unsupported else escape(text.translate(_HIDDEN))
        for text, unsupported in clipped(prediction.pieces, LONGEST)
    ]
    rest = f" … ({len(prediction.answer):,} characters in all)" if len(prediction.answer) > LONGEST else ""
    return Markup("").join([*shown, escape(rest)])


def _sources(evaluation: Evaluation, question: Question, prediction: Prediction) -> tuple[Source, ...]:
    """Return the first sources of an answer, each with its place and its pictures where the corpus is known."""
    spans, corpus = prediction.documents[:SOURCES], evaluation.texts.corpus
    texts = [evaluation.texts.text(span, question) for span in spans]
    marks = [
        [*_evidence_marks(question, span, len(text)), *_answer_marks(prediction, span, text)]
        for span, text in zip(spans, texts, strict=True)
    ]
    shown = [_marked(text, found) for text, found in zip(texts, marks, strict=True)]
    if corpus is None:
        return tuple(Source(s.title or s.document, s.document, text) for s, text in zip(spans, shown, strict=True))
    places = passages(prediction, corpus, lambda name: evaluation.texts.content(name, question) or "", SOURCES)
    return tuple(
        Source(place.where, place.document, text, place.link, tuple(_shown_picture(each) for each in place.pictures))
        for place, text in zip(places, shown, strict=True)
    )


def _shown_picture(picture: Picture) -> ShownPicture:
    small = picture.file.stat().st_size <= LARGEST_PICTURE
    return ShownPicture(picture.words or picture.file.name, picture.address if small else "")


def _answer_marks(prediction: Prediction, span: RetrievedSpan, text: str) -> list[tuple[int, int, str]]:
    """Return where the answer stands in a source: what carries its sentences, else what it says word for word."""
    if prediction.sentences:
        return [(start, end, "quote") for start, end in carried(prediction, span)]
    return _quote_marks(text, prediction.answer)


def _evidence_marks(question: Question, span: RetrievedSpan, length: int) -> list[tuple[int, int, str]]:
    """Return where the question's evidence lies in the span's text."""
    marks = []
    for item in question.evidence:
        if item.document == span.document and item.start is not None and item.end is not None:
            start, end = max(0, item.start - span.start), min(length, item.end - span.start)
            if start < end:
                marks.append((start, end, "evidence"))
    return marks


def _quote_marks(text: str, answer: str) -> list[tuple[int, int, str]]:
    """Return where sentences of the answer stand word for word in the span's text."""
    places = [(text.find(part), len(part)) for part in sentences(answer[:LONGEST]) if len(part) > 15]
    return [(start, start + length, "quote") for start, length in places if start >= 0]


def _marked(text: str, marks: Sequence[tuple[int, int, str]]) -> Markup:
    """Return `text` escaped, with `marks` wrapped; cut to `LONGEST_SOURCE` around the first mark."""
    kinds = [""] * len(text)
    for start, end, kind in marks:
        for place in range(start, end):
            kinds[place] = kind if kinds[place] in ("", kind) else "both"
    begin = max(0, min((start for start, _, _ in marks), default=0) - 200) if len(text) > LONGEST_SOURCE else 0
    stop = min(len(text), begin + LONGEST_SOURCE)
    pieces = [Markup("… ") if begin else Markup("")]
    place = begin
    while place < stop:
        end = place
        while end < stop and kinds[end] == kinds[place]:
            end += 1
        piece = _BLANK_LINES.sub("\n", text[place:end].translate(_HIDDEN))
        wrap = '<mark class="{}">{}</mark>' if kinds[place] else "{1}"
        pieces.append(Markup(wrap).format(kinds[place], piece))
        place = end
    pieces.append(Markup(" …") if stop < len(text) else Markup(""))
    return Markup("").join(pieces)
