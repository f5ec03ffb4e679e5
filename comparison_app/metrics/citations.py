"""Whether the sources that an answer names are the ones that hold it.

Citation precision and recall, after Gao et al. 2023 (ALCE, arXiv 2305.14627).
Cited are the spans whose bracketed numbers stand in the answer; where it holds none, all spans that the arm used.
Judged against the question's evidence spans, not by a model.
"""

from __future__ import annotations

from collections.abc import Sequence

from comparison_app.metrics.normalise import cited_numbers
from comparison_app.metrics.retrieval import found_at
from comparison_app.predictions import RetrievedSpan
from data_prep.questions import Evidence


def cited_spans(answer: str, spans: Sequence[RetrievedSpan]) -> list[RetrievedSpan]:
    """Return the spans that `answer` cites as [1], [2] …, or all of them if it cites none."""
    numbers = cited_numbers(answer)
    if not numbers:
        return list(spans)
    return [spans[number - 1] for number in numbers if 1 <= number <= len(spans)]


def citation_precision(answer: str, spans: Sequence[RetrievedSpan], evidence: Sequence[Evidence]) -> float:
    """Share of the answer's citations that touch evidence; a number that names no span counts against it."""
    named = len(cited_numbers(answer)) or len(spans)
    right = sum(any(_touches(span, item) for item in evidence) for span in cited_spans(answer, spans))
    return right / named if named else 0.0


def citation_recall(answer: str, spans: Sequence[RetrievedSpan], evidence: Sequence[Evidence]) -> float:
    """Share of the evidence spans that the cited spans hold, by the rule of `found_at`."""
    cited = cited_spans(answer, spans)
    return sum(found_at(item, cited) is not None for item in evidence) / len(evidence)


def _touches(span: RetrievedSpan, evidence: Evidence) -> bool:
    """Tell whether `span` shares a character with `evidence`."""
    if span.document != evidence.document:
        return False
    return evidence.start is None or evidence.end is None or (span.start < evidence.end and evidence.start < span.end)
