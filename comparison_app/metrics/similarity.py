"""How near an answer's meaning is to the gold answer's, by a sentence embedder that is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Embed = Callable[[list[str]], NDArray[np.floating]]
"""Texts to vectors of shape (n, d); any length, not nought."""


def semantic_similarity(answers: Sequence[str], golds: Sequence[Sequence[str]], embed: Embed) -> list[float]:
    """Return, per answer, the best cosine to its gold answers, at least 0 (Reimers and Gurevych 2019, 1908.10084).

    Every distinct text is embedded once. An empty answer scores 0.
    """
    texts = list(dict.fromkeys([answer for answer in answers if answer.strip()] + [g for some in golds for g in some]))
    if not texts:
        return [0.0] * len(answers)
    vectors = np.asarray(embed(texts), dtype=np.float64)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    place = {text: row for row, text in enumerate(texts)}
    return [_best(answer, some, vectors, place) for answer, some in zip(answers, golds, strict=True)]


def _best(answer: str, golds: Sequence[str], vectors: NDArray[np.float64], place: dict[str, int]) -> float:
    if not answer.strip() or not golds:
        return 0.0
    cosines = vectors[[place[gold] for gold in golds]] @ vectors[place[answer]]
    return float(min(1.0, max(0.0, cosines.max())))
