"""Answers quoted from the documents, without a model that writes: the sentences, list items or table rows that fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from rag.lexical import Tokenizer
from rag.markdown import Block, block_parts, count_words, scan_blocks
from rag.prompts import heading_line
from rag.remembering import remembered_vectors

if TYPE_CHECKING:
    from haystack import Document

    from rag.embedding import Embedder

_Part = tuple[int, int, str, int, str, int]

IdfOf = Callable[[str], dict[str, float]]
"""From a question to the inverse document frequency of each of its index terms."""

_MOST_EMBEDDED = 8
"""Quotes per question that are compared by embedding: the best by words."""

_WORDS, _COSINE, _COSINE_WITH_HEADING = 0.5, 0.2, 0.3
"""Weights of a quote's parts, chosen on the training questions of the sample manual: the question's words that it or
its headings hold, its cosine with the question, and that cosine with the headings before the quote."""

_NEARLY = 0.93
"""A second quote of the same chunk is added where it scores at least this share of the best."""

_STEPS = re.compile(r"\b(how (do|does|can|should|to)|steps?|procedure|what should|как)\b", re.IGNORECASE)
_AMOUNT = re.compile(r"\b(how (many|much|long|far|often|fast|high|old|big|heavy)|сколько|как часто|как долго)\b", re.I)
_VALUE = re.compile(
    r"\b(what|which) [\w ,-]*\b(pressure|torque|capacity|speed|limit|voltage|temperature|weight|size|height|"
    r"width|length|interval|distance|number|rating|range|version|port|value|timeout|default)\b",
    re.IGNORECASE,
)
_KIND_READ = 500
"""Characters of a question that tell what kind of answer it wants; patterns would take long over a pasted file."""
_MARKUP = re.compile(r"(\*\*|__|`+)")
_ITEM_MARK = re.compile(r"^\s*(?:[-*+•]|\d{1,9}[.)])\s+")


@dataclass(frozen=True)
class Quote:
    """One sentence, list item or table row: its span in the document, and its text without markup."""

    document: str
    start: int
    end: int
    text: str
    block: int
    """Number of the block it is part of, within its chunk."""
    chunk: int
    """Rank of its chunk, from 0."""
    kind: str
    words: int


@dataclass(frozen=True)
class ExtractiveAnswer:
    """Quoted text, where each quote stands, and how well the best one fits the question, 0 to 1."""

    text: str
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    confidence: float = 0.0
    quotes: list[Quote] = field(default_factory=list)
    pieces: list[tuple[int, int]] = field(default_factory=list)
    """Start and end of each quote in `text`."""


@dataclass(frozen=True)
class Excerpt:
    """What is shown of one chunk for a question: its text, and the document, start and end where that stands."""

    chunk: Document
    text: str
    span: tuple[str, int, int]


@dataclass(frozen=True)
class RankedQuote:
    """A quote under its headings, how well it fits the question, and its own cosine with it, headings left out."""

    quote: Quote
    heading: str
    score: float
    cosine: float = 0.0


class ExtractiveGenerator:
    """Quotes at most `max_words` words from the chunks given.

    Quotes are ranked by the question's words they hold (weighted by `idf` where given), by the cosine between question
    and quote (where `embedder` is given), and by their chunk's rank; amounts are preferred where an amount is asked.
    """

    def __init__(
        self, embedder: Embedder | None = None, idf: IdfOf | None = None, language: str = "en", max_words: int = 45
    ) -> None:
        self.embedder = embedder
        self.idf = idf
        self.max_words = max_words
        self._tokenizer = Tokenizer(language)
        self._terms = lru_cache(maxsize=16_384)(lambda text: frozenset(self._tokenizer(text)))

    def answer(self, question: str, chunks: Sequence[Document]) -> ExtractiveAnswer:
        """Return the quotes of `chunks` (best first) that answer `question`; empty where there is nothing to quote."""
        return self.answer_many([question], [chunks])[0]

    def answer_many(self, questions: Sequence[str], chunks: Sequence[Sequence[Document]]) -> list[ExtractiveAnswer]:
        """Answer several questions, each from its own chunks; the quotes are embedded together."""
        return self.composed(questions, self.ranked(questions, chunks), chunks)

    def composed(
        self,
        questions: Sequence[str],
        pools: Sequence[Sequence[RankedQuote]],
        chunks: Sequence[Sequence[Document]],
    ) -> list[ExtractiveAnswer]:
        """Answer each question from its quotes as `ranked` gave them for `chunks`."""
        return [
            self._compose(question, pool, found) for question, pool, found in zip(questions, pools, chunks, strict=True)
        ]

    def excerpts_many(
        self, questions: Sequence[str], chunks: Sequence[Sequence[Document]], count: int
    ) -> list[list[Excerpt]]:
        """Return of each question's chunks the `count` best sentences, list items or table rows; see `excerpts`."""
        pools = self.ranked(questions, chunks)
        return [excerpts(pool, found, count) for pool, found in zip(pools, chunks, strict=True)]

    def ranked(self, questions: Sequence[str], chunks: Sequence[Sequence[Document]]) -> list[list[RankedQuote]]:
        """Return the quotes of each question's chunks, best first; they are embedded together."""
        pools = [self._by_words(question, found) for question, found in zip(questions, chunks, strict=True)]
        return self._with_cosines(questions, pools)

    def _by_words(self, question: str, chunks: Sequence[Document]) -> list[RankedQuote]:
        """Return the quotes ranked by words alone, best first."""
        weights = self._weights(question)
        opening = question[:_KIND_READ]
        asks_amount = bool(_AMOUNT.search(opening) or _VALUE.search(opening))
        scored = []
        for rank, chunk in enumerate(chunks):
            heading = heading_line(chunk)
            held = self._terms(heading)
            for quote in quotes_of(chunk, rank):
                score = _coverage(self._terms(quote.text) | held, weights) - 0.03 * rank
                if asks_amount:
                    score += 0.1 if re.search(r"\d", quote.text) else 0.0
                if quote.words < 4 or quote.text.endswith("?"):
                    score -= 0.2
                scored.append(RankedQuote(quote, heading, score))
        return sorted(scored, key=lambda item: (-item.score, item.quote.chunk, item.quote.start))

    def _weights(self, question: str) -> dict[str, float]:
        if self.idf is not None:
            return self.idf(question)
        return dict.fromkeys(self._tokenizer(question), 1.0)

    def _with_cosines(self, questions: Sequence[str], pools: list[list[RankedQuote]]) -> list[list[RankedQuote]]:
        """Return each pool's best quotes, their scores the mean of words and cosine."""
        pools = [_distinct(pool)[:_MOST_EMBEDDED] for pool in pools]
        items = [item for pool in pools for item in pool]
        if self.embedder is None or not items:
            return pools
        asked = self.embedder.embed_queries(list(questions))
        texts = [item.quote.text for item in items]
        headed_texts = [f"{item.heading}\n{item.quote.text}" for item in items]
        vectors = remembered_vectors(self.embedder).of([*texts, *headed_texts], self.embedder)
        ranked, first = [], 0
        for vector, pool in zip(asked, pools, strict=True):
            last = first + len(pool)
            alone = vectors[first:last] @ vector
            headed = vectors[len(items) + first : len(items) + last] @ vector
            scores = _COSINE * alone + _COSINE_WITH_HEADING * headed
            mixed = [
                replace(item, score=_WORDS * item.score + float(score), cosine=float(own))
                for item, score, own in zip(pool, scores, alone, strict=True)
            ]
            ranked.append(sorted(mixed, key=lambda item: -item.score))
            first = last
        return ranked

    def _compose(self, question: str, pool: Sequence[RankedQuote], chunks: Sequence[Document]) -> ExtractiveAnswer:
        if not pool:
            return ExtractiveAnswer("")
        best = pool[0]
        quotes = self._completed(question, best.quote, chunks) or self._with_second(pool)
        said = [_as_sentence(quote.text) for quote in quotes]
        starts = [sum(len(each) + 1 for each in said[:place]) for place in range(len(said))]
        pieces = [(start, start + len(each)) for start, each in zip(starts, said, strict=True)]
        spans = [(quote.document, quote.start, quote.end) for quote in quotes]
        return ExtractiveAnswer(" ".join(said), spans, max(0.0, min(1.0, best.score)), quotes, pieces)

    def _completed(self, question: str, best: Quote, chunks: Sequence[Document]) -> list[Quote]:
        """Return the list that `best` introduces, or, where steps are asked for, the steps it is one of."""
        siblings = quotes_of(chunks[best.chunk], best.chunk)
        place = siblings.index(best)
        if best.text.endswith(":"):
            return self._while_short([best, *_run(siblings, place + 1)])
        if best.kind == "step" and _STEPS.search(question[:_KIND_READ]):
            start = place
            while start > 0 and siblings[start - 1].block == best.block:
                start -= 1
            steps = _run(siblings, start)
            return steps if sum(quote.words for quote in steps) <= self.max_words else []
        return []

    def _while_short(self, quotes: list[Quote]) -> list[Quote]:
        kept, words = quotes[:1], quotes[0].words
        for quote in quotes[1:]:
            words += quote.words
            if words > self.max_words:
                break
            kept.append(quote)
        return kept

    def _with_second(self, pool: Sequence[RankedQuote]) -> list[Quote]:
        """Return the best quote, and a runner-up of the same chunk that fits nearly as well, in reading order."""
        best = pool[0].quote
        for item in pool[1:4]:
            short = item.quote.words + best.words <= self.max_words
            if item.quote.chunk == best.chunk and short and item.score >= _NEARLY * pool[0].score:
                return sorted((best, item.quote), key=lambda quote: quote.start)
        return [best]


def excerpts(pool: Sequence[RankedQuote], chunks: Sequence[Document], count: int) -> list[Excerpt]:
    """Return of `chunks` the `count` best quotes of `pool`, as ranked: best first, each by itself.

    This is extractive context compression (RECOMP; Xu, Shi and Choi 2023, arXiv 2310.04408). The order tells a small
    model more than the text beside a sentence does: measured in benchmarks/RESULTS.md.
    """
    quotes = [item.quote for item in pool[:count]]
    return [
        Excerpt(chunks[quote.chunk], _as_sentence(quote.text), (quote.document, quote.start, quote.end))
        for quote in quotes
    ]


def _coverage(terms: frozenset[str], weights: dict[str, float]) -> float:
    """Return the share of the question's weight whose terms are among `terms`."""
    whole = sum(weights.values())
    return sum(weight for term, weight in weights.items() if term in terms) / whole if whole else 0.0


def _run(quotes: list[Quote], first: int) -> list[Quote]:
    """Return the quotes from `first` on that share its block."""
    if first >= len(quotes):
        return []
    return [quote for quote in quotes[first:] if quote.block == quotes[first].block]


def _distinct(pool: list[RankedQuote]) -> list[RankedQuote]:
    """Drop quotes whose text occurred before (chunks may overlap)."""
    return list({item.quote.text: item for item in reversed(pool)}.values())[::-1]


def _as_sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", ":", ";", "…", "»", '"', ")")) else text + "."


def quotes_of(chunk: Document, rank: int = 0) -> list[Quote]:
    """Return what can be quoted of `chunk`, in reading order: sentences, list items, table rows, code blocks."""
    offset, document = int(chunk.meta.get("start", 0)), str(chunk.meta.get("document", chunk.id))
    return [
        Quote(document, offset + start, offset + end, text, block, rank, kind, words)
        for start, end, text, block, kind, words in _parts(
            chunk.content or "", str(chunk.meta.get("table_header") or "")
        )
    ]


@lru_cache(maxsize=8192)
def _parts(text: str, table_header: str) -> tuple[_Part, ...]:
    """Return the parts of a chunk's text: start, end, plain words, number of the block, kind, how many words."""
    found: list[_Part] = []
    for number, block in enumerate(scan_blocks(text)):
        if block.kind == "table":
            found.extend(_rows(text, block, number, table_header))
        elif block.kind in ("paragraph", "list"):
            kind = "step" if re.match(r"\s*\d", text[block.start : block.end]) else block.kind
            for start, end in block_parts(block, text):
                found.extend(_part(text, start, end, number, kind))
        elif block.kind == "code" and count_words(text[block.start : block.end]) <= 30:
            found.extend(_part(text, block.start, block.end, number, "code"))
    return tuple(found)


def _part(text: str, start: int, end: int, number: int, kind: str, rendered: str | None = None) -> list[_Part]:
    """Return that span of a chunk's text without the space around it, or nothing where it holds no words."""
    raw = text[start:end]
    said = plain_text(raw) if rendered is None else rendered
    words = count_words(said)
    first = start + len(raw) - len(raw.lstrip())
    return [(first, first + len(raw.strip()), said, number, kind, words)] if words else []


def plain_text(markdown: str) -> str:
    """Return `markdown` as one line of plain words: no marks of lists, quotes, links, emphasis or code."""
    lines = [re.sub(r"^\s*(>\s?)+", "", line) for line in markdown.splitlines() if not re.match(r"\s*(```|~~~)", line)]
    text = " ".join(_ITEM_MARK.sub("", line).strip() for line in lines)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<br\s*/?>", " ", text)
    text = re.sub(r"(?<!\w)\*([^*\s][^*]*)\*(?!\w)", r"\1", _MARKUP.sub("", text))
    return re.sub(r"\s+", " ", text).strip()


def _rows(text: str, block: Block, number: int, table_header: str) -> list[_Part]:
    """Return the table's rows, each read with the header of its columns."""
    parts = block_parts(block, text)
    lines = text[block.start : block.end].split("\n", 2)
    has_header = len(lines) > 1 and bool(re.fullmatch(r"[\s|:\-]+", lines[1]))
    header = cells(lines[0]) if has_header else cells(table_header)
    found: list[_Part] = []
    for start, end in parts[1:] if has_header else parts:
        rendered = row_text(header, cells(text[start:end]))
        found.extend(_part(text, start, end, number, "table", rendered))
    return found


def cells(row: str) -> list[str]:
    """Return the cells of a markdown table row as plain text."""
    return [plain_text(cell) for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))] if row.strip() else []


def row_text(header: Sequence[str], row: Sequence[str]) -> str:
    """Return a table row as words: the first cell, then each other cell after its column's name."""
    named = [
        f"{header[index]}: {cell}" if index and index < len(header) and header[index] else cell
        for index, cell in enumerate(row)
        if cell
    ]
    if len(named) < 2:
        return "".join(named)
    return f"{named[0]} — {', '.join(named[1:])}"
