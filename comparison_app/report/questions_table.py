"""`questions.csv`: one row per question and arm, with every score, for a spreadsheet."""

from __future__ import annotations

import csv
import io

import numpy as np

from comparison_app.evaluation import Evaluation, cluster_of
from comparison_app.metrics.scoring import declined

_COLUMNS = ("question_id", "slice", "document", "question", "gold", "arm", "answer", "declined", "error", "seconds")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render_csv(evaluation: Evaluation) -> str:
    """Return the table. A text that a spreadsheet would run as a formula is given a leading apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_COLUMNS, *evaluation.metrics, "credit"])
    for row in range(len(evaluation.questions)):
        for arm in evaluation.arms:
            writer.writerow(_row(evaluation, row, arm))
    return out.getvalue()


def _row(evaluation: Evaluation, row: int, arm: str) -> list[object]:
    """Return one line: a question, an arm's answer, its scores."""
    question, prediction = evaluation.questions[row], evaluation.predictions[arm][row]
    column = evaluation.arms.index(arm)
    return [
        question.id,
        question.slice,
        cluster_of(question),
        _harmless(question.question),
        _harmless(" | ".join(question.answers)),
        arm,
        _harmless(prediction.answer),
        declined(prediction),
        _harmless(prediction.error or ""),
        f"{prediction.seconds:.4f}",
        *(_cell(evaluation.scores[metric][row, column]) for metric in evaluation.metrics),
        _cell(evaluation.credit[row, column]),
    ]


def _cell(score: float) -> str:
    return "" if np.isnan(score) else f"{score:.4f}"


def _harmless(text: str) -> str:
    clean = text.replace("\x00", "")
    return f"'{clean}" if clean.startswith(_FORMULA) else clean
