"""Declining: right where the documents hold no answer, wrong where they do (SQuAD 2.0, Rajpurkar et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


def abstention_accuracy(abstained: bool, answerable: bool) -> float:
    """1 if the arm declined exactly where there is no answer, or tried where there is one; else 0."""
    return float(abstained != answerable)


@dataclass(frozen=True)
class Refusals:
    """How an arm declined, over all questions: counts, and precision and recall of declining (None: undefined)."""

    declined: int
    rightly: int
    unanswerable: int
    answerable: int

    @property
    def precision(self) -> float | None:
        """Share of the refusals that were right."""
        return self.rightly / self.declined if self.declined else None

    @property
    def recall(self) -> float | None:
        """Share of the unanswerable questions that were declined."""
        return self.rightly / self.unanswerable if self.unanswerable else None

    @property
    def accuracy(self) -> float | None:
        """Share of all questions on which the arm chose rightly: declined, or tried."""
        asked = self.answerable + self.unanswerable
        return (self.rightly + self.answerable - self.wrongly) / asked if asked else None

    @property
    def wrongly(self) -> int:
        """Answerable questions that were declined."""
        return self.declined - self.rightly


def count_refusals(outcomes: Iterable[tuple[bool, bool]]) -> Refusals:
    """Count pairs of (abstained, answerable)."""
    pairs = list(outcomes)
    return Refusals(
        declined=sum(abstained for abstained, _ in pairs),
        rightly=sum(abstained and not answerable for abstained, answerable in pairs),
        unanswerable=sum(not answerable for _, answerable in pairs),
        answerable=sum(answerable for _, answerable in pairs),
    )
