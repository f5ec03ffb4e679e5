"""How much of the gold answer's wording stands in the answer: exact match, token F1, ROUGE-L."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from comparison_app.metrics.normalise import normalise, words


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 if the normalised answer equals a normalised gold answer, else 0 (Rajpurkar et al. 2016)."""
    given = normalise(answer)
    return float(any(given == normalise(gold) for gold in golds))


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """Best F1 of shared tokens over the gold answers, tokens counted as often as they stand (Rajpurkar et al. 2016).

    F1 = 2 P R / (P + R), P = shared / answer tokens, R = shared / gold tokens. If one side has no token, 1 if both
    have none, else 0 (Rajpurkar et al. 2018).
    """
    return max((_f1(normalise(answer).split(), normalise(gold).split()) for gold in golds), default=0.0)


def _f1(given: list[str], gold: list[str]) -> float:
    if not given or not gold:
        return float(given == gold)
    shared = sum((Counter(given) & Counter(gold)).values())
    return 2 * shared / (len(given) + len(gold))


def rouge_l(answer: str, golds: Sequence[str]) -> float:
    """Best ROUGE-L F-measure over the gold answers (Lin 2004), by the package rouge-score.

    Words are Unicode (rouge-score's own tokenizer drops all but a-z and 0-9) and are not stemmed.
    """
    if not words(answer):
        return float(any(not words(gold) for gold in golds))
    scorer = _scorer()
    return max((float(scorer.score(gold, answer)["rougeL"].fmeasure) for gold in golds), default=0.0)


class _Words:
    """The tokenizer handed to rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        """Split `text` into folded Unicode words."""
        return words(text)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())
