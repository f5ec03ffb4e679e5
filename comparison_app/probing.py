"""How long an arm takes for a question asked by itself: what one user waits, not a share of a batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import numpy as np

from comparison_app.predictions import AnswerSystem, Prediction
from data_prep.questions import Question

PROBE_SECONDS = 4.0
"""After so long no further question is asked of an arm to time it."""
FEWEST_FOR_TAIL = 10
"""With fewer timed questions there is no 95th percentile."""


def spaced(questions: Sequence[Question], count: int) -> list[Question]:
    """Return at most `count` of `questions` at equal distances, so that every slice has its share."""
    places = np.linspace(0, len(questions), min(count, len(questions)), endpoint=False).astype(int)
    return [questions[place] for place in places]


def alone(
    system: AnswerSystem, questions: Sequence[Question], seconds: float = PROBE_SECONDS
) -> dict[str, float | None]:
    """Stream single questions to a system, for `seconds` at most, and return what one took.

    `alone_p50` and `alone_p95`: a whole answer; `first_token_p50`: until its first piece. None where none came, or too
    few for the 95th percentile. The first question is asked once more before, so that nothing is loaded while timed.
    """
    whole, first = [], []
    began = time.perf_counter()
    for place, question in enumerate([*questions[:1], *questions]):
        times = _one(system, question)
        if place == 0:
            began = time.perf_counter()
            continue
        if times is not None:
            first.append(times[0])
            whole.append(times[1])
        if time.perf_counter() - began > seconds:
            break
    return {
        "alone_p50": float(np.median(whole)) if whole else None,
        "alone_p95": float(np.quantile(whole, 0.95)) if len(whole) >= FEWEST_FOR_TAIL else None,
        "first_token_p50": float(np.median(first)) if first else None,
    }


def _one(system: AnswerSystem, question: Question) -> tuple[float, float] | None:
    """Return the seconds to the first piece of an answer and to its end; None if it failed."""
    started = time.perf_counter()
    arrived: float | None = None
    with contextlib.suppress(Exception):  # an arm that cannot stream has no such time, and no other harm
        for piece in system.stream(question):
            if isinstance(piece, Prediction) and piece.error is not None:
                return None
            arrived = arrived or time.perf_counter() - started
        if arrived is not None:
            return arrived, time.perf_counter() - started
    return None
