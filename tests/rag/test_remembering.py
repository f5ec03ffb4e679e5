"""Vectors of sentences are computed once, forgotten when there are too many, and shared by an embedder's users."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rag.remembering import RememberedVectors, remembered_vectors


class _Counting:
    """Embeds a text as its length, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a row of two for each text."""
        self.asked += texts
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


def test_a_text_is_embedded_once_and_the_order_is_kept() -> None:
    """Repeated and known texts cost nothing; rows stand as the texts do."""
    embedder, memory = _Counting(), RememberedVectors()
    assert memory.of(["aa", "b", "aa"], embedder)[:, 0].tolist() == [2, 1, 2]  # type: ignore[arg-type]
    assert memory.of(["ccc", "b"], embedder)[:, 0].tolist() == [3, 1]  # type: ignore[arg-type]
    assert embedder.asked == ["aa", "b", "ccc"]


def test_what_was_used_longest_ago_is_forgotten() -> None:
    """Never more than so many are kept, those used last."""
    embedder, memory = _Counting(), RememberedVectors(most=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        memory.of([text], embedder)  # type: ignore[arg-type]
    assert embedder.asked == ["a", "b", "c", "b"]


def test_an_embedder_has_one_memory() -> None:
    """Two users of an embedder share it; another embedder has its own."""
    one, other = _Counting(), _Counting()
    assert remembered_vectors(one) is remembered_vectors(one)  # type: ignore[arg-type]
    assert remembered_vectors(one) is not remembered_vectors(other)  # type: ignore[arg-type]
