"""Did the arm read the evidence? Judged on character spans of documents, so that chunking does not matter.

An evidence span is *found* at rank r if the retrieved spans of ranks 1 to r together cover at least half of its
characters; evidence that is a whole document is found by any span of that document.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from comparison_app.predictions import RetrievedSpan
from data_prep.questions import Evidence

COVER = 0.5
"""Share of an evidence span's characters that must have been read."""


def found_at(evidence: Evidence, spans: Sequence[RetrievedSpan]) -> int | None:
    """Return the rank, from 1, at which `evidence` is found among `spans` (best first), or None."""
    read: list[tuple[int, int]] = []
    for rank, span in enumerate(spans, start=1):
        if span.document != evidence.document:
            continue
        if evidence.start is None or evidence.end is None:
            return rank
        read.append((max(span.start, evidence.start), min(span.end, evidence.end)))
        if _covered(read) >= COVER * (evidence.end - evidence.start):
            return rank
    return None


def _covered(intervals: Sequence[tuple[int, int]]) -> int:
    """Return how many characters the union of `intervals` holds."""
    total, reached = 0, -1
    for start, end in sorted(intervals):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def recall_at(k: int, evidence: Sequence[Evidence], spans: Sequence[RetrievedSpan]) -> float:
    """Share of the evidence found within the first `k` retrieved spans (recall: Manning et al. 2008, section 8.4)."""
    ranks = [found_at(item, spans[:k]) for item in evidence]
    return sum(rank is not None for rank in ranks) / len(ranks)


def reciprocal_rank(evidence: Sequence[Evidence], spans: Sequence[RetrievedSpan], k: int = 10) -> float:
    """1 / rank of the first evidence found within `k`, else 0 (Voorhees 1999)."""
    ranks = [rank for item in evidence if (rank := found_at(item, spans[:k]))]
    return 1 / min(ranks) if ranks else 0.0


def ndcg(evidence: Sequence[Evidence], spans: Sequence[RetrievedSpan], k: int = 10) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen 2002) with linear gain, at most 1.

    The gain of rank r is the number of evidence spans found at r (so a passage that repeats what was read gains
    nothing), its discount log2(r + 1); the ideal finds one evidence span at each of the first ranks.
    """
    ranks = [rank for item in evidence if (rank := found_at(item, spans[:k]))]
    gained = sum(1 / math.log2(rank + 1) for rank in ranks)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(evidence), k) + 1))
    return min(1.0, gained / ideal)
