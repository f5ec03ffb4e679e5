"""Does a passage carry what an answer says? By its words, its numbers and, where those do not tell, its meaning.

Each sentence of the answer is held against the passage. It is carried if all its numbers stand in the passage (or in
the question), and either at least `CARRIED` of its content words do (stemmed), or its embedding is at least `SIMILAR`
to that of a sentence of the passage or of two that follow each other. After the faithfulness measure of Es et al. 2023
(arXiv 2309.15217), with rules and an embedder in the judge's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from data_prep.checks import content_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]
"""Texts to unit vectors, one a row."""

CARRIED = 0.6
SIMILAR = 0.7

_STEMMERS = {
    "en": "english", "ru": "russian", "de": "german", "fr": "french", "es": "spanish", "it": "italian",
    "pt": "portuguese", "nl": "dutch", "sv": "swedish", "da": "danish", "no": "norwegian", "fi": "finnish",
    "hu": "hungarian", "ro": "romanian", "tr": "turkish",
}  # fmt: skip
_NUMBER_WORDS = {
    word: str(value)
    for value, words in enumerate(
        ["two два две двух", "three три трёх трех", "four четыре четырёх", "five пять пяти", "six шесть шести",
         "seven семь семи", "eight восемь восьми", "nine девять девяти", "ten десять десяти", "eleven одиннадцать",
         "twelve двенадцать"],
        start=2,
    )
    for word in words.split()
}  # fmt: skip
_SENTENCE = re.compile(r"[^\n]+?(?:[.!?…](?=\s)|(?=\n)|\Z)")
_LIST_NUMBER = re.compile(r"(?m)^\s*\(?\d{1,2}[.)]\s+")
_NUMBER = re.compile(r"(?<![\w.,])\d{1,3}(?:[ ,\u00a0]\d{3})+(?![\d.,]\d)|\d+(?:[.,]\d+)?")
_WORD = re.compile(r"\w+")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return the spans of a text's sentences and lines that hold a word, in order."""
    spans = []
    for match in _SENTENCE.finditer(text):
        inside = match.group()
        if _WORD.search(inside):
            start = match.start() + len(inside) - len(inside.lstrip())
            spans.append((start, match.end() - (len(inside) - len(inside.rstrip()))))
    return spans


def numbers(text: str) -> frozenset[str]:
    """Return the numbers of a text in one form: "1,000" and "1 000" are 1000, "2,50" is 2.5, "three" is 3.

    Numbers of list items at the start of a line are none.
    """
    body = _LIST_NUMBER.sub("", text)
    found = {_plain(match.group()) for match in _NUMBER.finditer(body)}
    return frozenset(found | {_NUMBER_WORDS[word] for word in _WORD.findall(body.casefold()) if word in _NUMBER_WORDS})


def _plain(number: str) -> str:
    if re.fullmatch(r"\d{1,3}(?:[ ,\u00a0]\d{3})+", number):
        return re.sub(r"\D", "", number)
    whole, _, part = number.replace(",", ".").partition(".")
    return (whole.lstrip("0") or "0") + (f".{part.rstrip('0')}" if part.rstrip("0") else "")


def stems(text: str, language: str = "en") -> frozenset[str]:
    """Return the stems of a text's content words (Snowball, where it has the language)."""
    return frozenset(_stem(word, language) for word in content_words(text))


@lru_cache(maxsize=200_000)
def _stem(word: str, language: str) -> str:
    name = _STEMMERS.get(language)
    return str(_stemmer(name).stemWord(word)) if name else word


@lru_cache(maxsize=4)
def _stemmer(name: str) -> Any:
    import Stemmer

    return Stemmer.Stemmer(name)


def missing_numbers(answer: str, passage: str, question: str = "") -> frozenset[str]:
    """Return the numbers of the answer that stand neither in the passage nor in the question."""
    return numbers(answer) - numbers(passage) - numbers(question)


def carried_share(sentence: str, passage: str, language: str = "en") -> float:
    """Return the share of a sentence's content words that stand in the passage; 1 if it has none."""
    words = stems(sentence, language)
    return len(words & stems(passage, language)) / len(words) if words else 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """One answer to one question, and the passage that should carry it."""

    question: str
    answer: str
    passage: str


def support_shares(claims: Sequence[Claim], embed: Embed | None = None, language: str = "en") -> list[float]:
    """Return, for each claim, the share of its answer's sentences that its passage carries, from 0 to 1.

    `embed` is asked once, for all sentences that words do not decide; without it those are not carried.
    """
    verdicts = [[_by_words(text, claim, language) for text in _sentences(claim.answer)] for claim in claims]
    if embed is not None:
        _by_meaning(claims, verdicts, embed)
    return [sum(verdict is True for verdict in row) / len(row) if row else 0.0 for row in verdicts]


def _by_words(sentence: str, claim: Claim, language: str) -> bool | None:
    """Tell whether words and numbers decide: True carried, False a number is missing, None they do not."""
    if missing_numbers(sentence, claim.passage, claim.question):
        return False
    share = carried_share(sentence, f"{claim.question} {claim.passage}", language)
    own = carried_share(sentence, claim.passage, language)
    return True if own >= CARRIED or (share >= 0.9 and own >= CARRIED / 2) else None


def _by_meaning(claims: Sequence[Claim], verdicts: list[list[bool | None]], embed: Embed) -> None:
    """Settle what words left open by the embeddings of sentences and of the passages' windows."""
    asked: list[tuple[int, int, str]] = []
    for row, claim in enumerate(claims):
        for place, text in enumerate(_sentences(claim.answer)):
            if verdicts[row][place] is None:
                asked.append((row, place, text))
    if not asked:
        return
    windows = {row: _windows(claims[row].passage) for row, _, _ in asked}
    texts = list(dict.fromkeys([text for _, _, text in asked] + [text for group in windows.values() for text in group]))
    vector = dict(zip(texts, embed(texts), strict=True))
    for row, place, text in asked:
        best = max((float(vector[text] @ vector[window]) for window in windows[row]), default=0.0)
        verdicts[row][place] = best >= SIMILAR


def _windows(passage: str) -> list[str]:
    parts = _sentences(passage)
    return parts + [f"{first} {second}" for first, second in pairwise(parts)]


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


def best_window(
    question: str, answer: str, text: str, *, language: str = "en", most: int = 1_200
) -> tuple[int, int] | None:
    """Return the span of up to `most` characters whose sentences carry most of an answer's words and numbers.

    The shortest of equals, the first of equally short ones; None where no sentence shares a content word with the
    answer. For answers that came with a document and no quote.
    """
    wanted, figures, asked = stems(answer, language), numbers(answer), stems(question, language)
    spans, parts = _parts(text, language)
    best: tuple[float, int, int, int] | None = None
    for first in range(len(spans)):
        if not parts[first][0] & wanted and not parts[first][1] & figures:
            continue
        words: frozenset[str] = frozenset()
        found: frozenset[str] = frozenset()
        for last in range(first, len(spans)):
            length = spans[last][1] - spans[first][0]
            if length > most and last > first:
                break
            words, found = words | parts[last][0], found | parts[last][1]
            score = _window_score(wanted, figures, asked, words, found)
            rank = (score, -length, -first, last)
            if score > 0 and (best is None or rank > best):
                best = rank
    return None if best is None else (spans[-best[2]][0], spans[best[3]][1])


@lru_cache(maxsize=16)
def _parts(text: str, language: str) -> tuple[list[tuple[int, int]], list[tuple[frozenset[str], frozenset[str]]]]:
    """Return the spans of a document's sentences, and the stems and numbers of each; a document is asked of often."""
    spans = sentence_spans(text)
    return spans, [(stems(text[start:end], language), numbers(text[start:end])) for start, end in spans]


def _window_score(
    wanted: Iterable[str], figures: frozenset[str], asked: frozenset[str], words: frozenset[str], found: frozenset[str]
) -> float:
    """Count the answer's words; a number counts as three, a word that the question has too as half."""
    shared = sum(0.5 if word in asked else 1.0 for word in wanted if word in words)
    return shared + 3.0 * len(figures & found)
