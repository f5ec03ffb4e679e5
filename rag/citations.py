"""Generated answers checked against what was retrieved: each sentence, its citations, and the span that carries it.

A sentence is carried by a passage that holds at least half of its words, all its numbers and all its names, with the
same number of negations in the sentence of the passage that is nearest to it. This is a check of words: it finds what
was made up or altered, not what was misunderstood.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from data_prep.conversations import is_refusal
from rag.extractive import Quote, quotes_of
from rag.lexical import Tokenizer
from rag.markdown import sentence_starts
from rag.prompts import cited_numbers, without_citations

if TYPE_CHECKING:
    from haystack import Document

QuoteTerms = tuple[Quote, frozenset[str]]
"""A quote and its index terms."""

SUPPORTED, UNSUPPORTED, UNCITED = "supported", "unsupported", "uncited"

MARK = " [unsupported]"
"""What `marked` puts behind a sentence that nothing carries."""

_NEGATION = re.compile(
    r"\b(not|no|never|none|neither|nor|cannot|without|не|нет|ни|никогда|нельзя|без)\b|n['’]t\b", re.I
)
_NAME = re.compile(r"(?<=[^\s.!?:\"“»] )[A-ZА-ЯЁ][\w-]+")
_ONLY_CITATIONS = re.compile(r"[\s\[\]\d,.;]*")


@dataclass(frozen=True)
class CheckedSentence:
    """One sentence of an answer: characters `start` to `end` of it."""

    text: str
    """Without its citations."""
    start: int
    end: int
    citations: tuple[int, ...]
    """Numbers of passages that exist, from 1."""
    unknown: tuple[int, ...]
    """Numbers that name no passage."""
    status: str
    """`supported`: carried by what it cites, or `uncited` but carried by some passage; else `unsupported`."""
    span: tuple[str, int, int] | None
    """Document, start and end of the sentence that carries it, or None."""


def check_answer(
    answer: str, passages: Sequence[str], chunks: Sequence[Document], tokenizer: Tokenizer
) -> list[CheckedSentence]:
    """Check every sentence of `answer`; passage number n is `passages[n - 1]`, shown of `chunks[n - 1]`.

    Citations that stand behind a sentence's full stop belong to it.
    """
    quotes = [
        [(quote, frozenset(tokenizer(quote.text))) for quote in quotes_of(chunk, rank)]
        for rank, chunk in enumerate(chunks)
    ]
    return [_checked(answer, start, end, passages, quotes, tokenizer) for start, end in _sentences(answer)]


def citation_notes(
    answer: str, passages: Sequence[str], chunks: Sequence[Document], tokenizer: Tokenizer
) -> dict[str, Any]:
    """Return what `check_answer` found, for an answer's metadata.

    `sentences`: every `CheckedSentence` as a mapping; `citations`: numbers of passages that exist; `unknown_citations`:
    numbers that name none; `unsupported`: sentences that nothing carries; `marked`: the answer with these marked;
    `cited_spans`: document, start and end of what carries the others. An answer that declines is not checked.
    """
    sentences = [] if is_refusal(without_citations(answer)) else check_answer(answer, passages, chunks, tokenizer)
    numbers = [number for number in cited_numbers(answer) if 0 < number <= len(passages)]
    return {
        "sentences": [asdict(sentence) for sentence in sentences],
        "citations": numbers,
        "unknown_citations": [number for number in cited_numbers(answer) if number not in numbers],
        "unsupported": unsupported(sentences),
        "marked": marked(answer, sentences),
        "cited_spans": [sentence.span for sentence in sentences if sentence.span],
    }


def quoted_notes(text: str, pieces: Sequence[tuple[int, int]], quotes: Sequence[Quote]) -> dict[str, Any]:
    """Return the metadata of an answer put together of `quotes`, which stand at `pieces` (start, end) of its `text`.

    Each is carried by the very words that it quotes.
    """
    sentences = [
        CheckedSentence(
            text[start:end],
            start,
            end,
            (quote.chunk + 1,),
            (),
            SUPPORTED,
            (quote.document, quote.start, quote.end),
        )
        for (start, end), quote in zip(pieces, quotes, strict=True)
    ]
    return {"sentences": [asdict(sentence) for sentence in sentences]}


def unsupported(sentences: Sequence[CheckedSentence]) -> list[str]:
    """Return the sentences that nothing retrieved carries, in order."""
    return [sentence.text for sentence in sentences if sentence.status == UNSUPPORTED]


def marked(answer: str, sentences: Sequence[CheckedSentence], mark: str = MARK) -> str:
    """Return `answer` with `mark` behind each unsupported sentence."""
    for sentence in sorted(sentences, key=lambda each: -each.end):
        if sentence.status == UNSUPPORTED:
            end = sentence.start + len(answer[sentence.start : sentence.end].rstrip())
            answer = answer[:end] + mark + answer[end:]
    return answer


def _sentences(answer: str) -> list[tuple[int, int]]:
    """Return the spans of the sentences; a piece of nothing but citations is joined to the one before it."""
    starts = sentence_starts(answer)
    spans: list[tuple[int, int]] = []
    for start, end in zip(starts, [*starts[1:], len(answer)], strict=True):
        lead = re.match(r"(?:\s*\[\d[\d,\s]*\][.,;]?)+\s*", answer[start:end])
        if lead and spans:
            spans[-1] = (spans[-1][0], start + lead.end())
            start += lead.end()
        if answer[start:end].strip():
            spans.append((start, end))
    return spans


def _checked(
    answer: str,
    start: int,
    end: int,
    passages: Sequence[str],
    quotes: Sequence[Sequence[QuoteTerms]],
    tokenizer: Tokenizer,
) -> CheckedSentence:
    text = without_citations(answer[start:end])
    numbers = cited_numbers(answer[start:end])
    known = tuple(number for number in numbers if 0 < number <= len(passages))
    looked_at = [number - 1 for number in known] if numbers else list(range(len(passages)))
    held = " ".join(passages[place] for place in looked_at)
    nearest = _nearest(text, [quote for place in looked_at for quote in quotes[place]], tokenizer)
    if _ONLY_CITATIONS.fullmatch(text) or not tokenizer.words(text):
        status = SUPPORTED if known or not numbers else UNSUPPORTED
    elif _is_carried(text, held, nearest, tokenizer):
        status = SUPPORTED if known else UNCITED
    else:
        status = UNSUPPORTED
    span = (nearest.document, nearest.start, nearest.end) if nearest and status != UNSUPPORTED else None
    unknown = tuple(number for number in numbers if number not in known)
    return CheckedSentence(text, start, end, known, unknown, status, span)


def _nearest(sentence: str, quotes: Sequence[QuoteTerms], tokenizer: Tokenizer) -> Quote | None:
    """Return the quote that shares the most words with `sentence`, the shorter one of two; None where none does."""
    words = set(tokenizer.words(sentence))
    best = max(quotes, key=lambda each: (len(words & each[1]), -each[0].words), default=None)
    return best[0] if best is not None and words & best[1] else None


def _is_carried(sentence: str, held: str, nearest: Quote | None, tokenizer: Tokenizer) -> bool:
    words = set(tokenizer.words(sentence))
    found = words.intersection(tokenizer(held))
    must = {word for word in words if word[0].isdigit()}
    must |= {term for name in _NAME.findall(sentence) for term in tokenizer.words(name)}
    if not must <= found or 2 * len(found) < len(words):
        return False
    return nearest is None or _negations(sentence) == _negations(nearest.text)


def _negations(text: str) -> bool:
    return len(_NEGATION.findall(text)) % 2 == 1
