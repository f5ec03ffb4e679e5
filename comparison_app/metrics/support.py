"""Do the passages that an arm read carry what it says? A rule-based stand-in for entailment.

Each sentence of the answer is held against every sentence of the passages and its two neighbours. It is carried if

- at least `CARRIED` of its content words (stemmed, stop words left out) stand there,
- all its quantities stand there,
- all its names (capitalised words inside a sentence, codes) stand there, and
- it denies where the passage denies, and affirms where it affirms.

After the "faithfulness" of Es et al. 2023 (RAGAS, arXiv 2309.15217), with rules in the judge's place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from comparison_app.metrics.normalise import without_citations, words
from comparison_app.metrics.numbers import Quantity, all_stand_in, quantities

CARRIED = 0.6
"""The score from which a sentence counts as carried."""

_OTHER_NUMBER, _OTHER_NAME, _DENIED = 0.4, 0.5, 0.5


def _set(listed: str) -> frozenset[str]:
    """Return the words of `listed`."""
    return frozenset(listed.split())


_SENTENCE = re.compile(r"(?<=[.!?…])[\"»”)]?\s+(?=[\"«“(]?[A-ZА-ЯЁ0-9])|\n+")
_CYRILLIC = re.compile(r"[а-яё]", re.IGNORECASE)
_NAME = re.compile(r"(?<=[\w,;:] )[A-ZА-ЯЁ][\w-]+")
_NEGATIONS = _set(
    "no not never none neither nor cannot without nothing nobody don doesn didn isn aren wasn weren won shouldn mustn "
    "wouldn couldn не нет ни нельзя никогда без"
)
_STOP = _set(
    "a an the and or but if then than that this these those it its is are was were be been being do does did have has "
    "had will would can could may might must shall should to of in on at by for from with as into about over under up "
    "out so such there here you your yours we our they their them he she his her i my me what which who when where "
    "how why all any each both more most some only also just very t s "
    "и или а но если то что это этот эта эти в на по с со к ко о об от до из за для при как так же бы ли у его ее их "
    "он она оно они вы ваш ваша ваше мы наш быть есть был была было были может можно нужно все также"
)


@dataclass(frozen=True)
class _Claim:
    """What one stretch of text says, taken apart."""

    stems: frozenset[str]
    numbers: frozenset[Quantity]
    names: frozenset[str]
    denies: bool


def sentences(text: str) -> list[str]:
    """Split `text` into sentences and lines that hold a word."""
    return [part for part in _SENTENCE.split(without_citations(text)) if words(part)]


def sentence_support(sentence: str, passages: Sequence[str]) -> float:
    """Return how far `passages` carry `sentence`, 0 to 1.

    The share of its content words that stand there, cut for a number, name or denial that does not.
    """
    claim = _claim(sentence)
    stretches = [stretch for passage in passages for stretch in _stretches(passage)]
    if not stretches:
        return 0.0
    nearest = max((own for _, own in stretches), key=lambda own: _shared(claim, own))
    score = max(_carried(claim, window) for window, _ in stretches)
    contradicted = claim.denies != nearest.denies and _shared(claim, nearest) >= CARRIED
    return score * (_DENIED if contradicted else 1.0)


def support(answer: str, passages: Sequence[str]) -> float:
    """Return the share of the answer's sentences that `passages` carry; 0 for an answer without a sentence."""
    parts = sentences(answer)
    if not parts:
        return 0.0
    return sum(sentence_support(part, passages) >= CARRIED for part in parts) / len(parts)


@lru_cache(maxsize=4_000)
def _stretches(passage: str) -> tuple[tuple[_Claim, _Claim], ...]:
    """Return, per sentence of `passage`, the claim of it with its two neighbours, and its own."""
    parts = sentences(passage)
    return tuple(
        (_claim(" ".join(parts[max(0, place - 1) : place + 2])), _claim(part)) for place, part in enumerate(parts)
    )


def _shared(claim: _Claim, other: _Claim) -> float:
    """Return the share of the claim's content words that stand in `other`."""
    return len(claim.stems & other.stems) / len(claim.stems) if claim.stems else 0.0


def _carried(claim: _Claim, window: _Claim) -> float:
    """Score `claim` against one stretch of a passage, denial apart."""
    numbers_stand = all_stand_in(claim.numbers, window.numbers)
    if not claim.stems:
        return float(bool(claim.numbers) and numbers_stand)
    score = _shared(claim, window)
    return score * (1.0 if numbers_stand else _OTHER_NUMBER) * (1.0 if claim.names <= window.stems else _OTHER_NAME)


@lru_cache(maxsize=20_000)
def _claim(text: str) -> _Claim:
    tokens = words(text)
    return _Claim(
        stems=frozenset(_stem(token) for token in tokens if token not in _STOP and token not in _NEGATIONS),
        numbers=quantities(text),
        names=frozenset(_stem(word) for name in _NAME.findall(text) for word in words(name) if word not in _STOP),
        denies=any(token in _NEGATIONS for token in tokens),
    )


@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    stem: str = _stemmer("russian" if _CYRILLIC.search(word) else "english").stemWord(word)
    return stem


@lru_cache(maxsize=2)
def _stemmer(language: str) -> Any:
    import Stemmer

    return Stemmer.Stemmer(language)
