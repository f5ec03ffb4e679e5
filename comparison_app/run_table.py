"""A finished run question by question: who won, what failed. Read from the run's own files."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison_app.errors import RunError

TIE = "tie"
NOBODY = "nobody"
_ALIKE = 0.05
"""Two answers whose worth differs by no more are alike; an answer worth no more is wrong."""


@dataclass(frozen=True)
class Cell:
    """One arm's answer to one question; `credit` is its worth, 0 to 1, None where no metric applies."""

    answer: str
    credit: float | None
    declined: bool
    error: str
    seconds: float


@dataclass(frozen=True)
class Row:
    """One question with every arm's answer. `winner`: an arm, "tie" where the best are alike, "nobody" if all fail."""

    id: str
    slice: str
    question: str
    gold: str
    cells: Mapping[str, Cell]
    winner: str


def read_rows(run: Path) -> list[Row]:
    """Read `questions.csv` of a run; raises `RunError` if it has none yet."""
    path = run / "questions.csv"
    csv.field_size_limit(10_000_000)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        groups: dict[str, list[dict[str, str]]] = {}
        for line in lines:
            groups.setdefault(line["question_id"], []).append(line)
        return [_row(group) for group in groups.values()]
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); finish the run, or `versus report`") from error
    except (KeyError, ValueError, csv.Error) as error:
        raise RunError(f"{path}: not a table of questions ({error}); write it again with `versus report`") from error


def chosen(
    rows: Sequence[Row], *, slices: Sequence[str] = (), winner: str | None = None, errors: bool = False, text: str = ""
) -> list[Row]:
    """Return the rows of these slices, won by `winner`, with an error if `errors`, whose question holds `text`."""
    return [
        row
        for row in rows
        if (not slices or row.slice in slices)
        and (winner is None or row.winner == winner)
        and (not errors or any(cell.error for cell in row.cells.values()))
        and text.casefold() in row.question.casefold()
    ]


def summary_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a run's scores as rows: arm, each slice's mean of the primary metric, refusals, seconds, errors."""
    metric = summary["primary_metric"]
    rows = []
    for name, arm in summary["arms"].items():
        row: dict[str, Any] = {"arm": name, "overall": _mean(arm["overall"], metric)}
        for slice_name, measures in arm["slices"].items():
            wanted = "abstention_accuracy" if slice_name == "unanswerable" else metric
            row[slice_name] = _mean(measures, wanted)
        rows.append({**row, "seconds (p50)": arm["latency"]["p50"], "errors": arm["errors"]})
    return rows


def _row(group: Sequence[Mapping[str, str]]) -> Row:
    first = group[0]
    cells = {line["arm"]: _cell(line) for line in group}
    return Row(first["question_id"], first["slice"], first["question"], first["gold"], cells, _winner(cells))


def _cell(line: Mapping[str, str]) -> Cell:
    credit = float(line["credit"]) if line.get("credit") else None
    declined = line["declined"] == "True"
    return Cell(line["answer"], credit, declined, line["error"], float(line["seconds"]))


def _winner(cells: Mapping[str, Cell]) -> str:
    worth = {arm: cell.credit if cell.credit is not None else math.nan for arm, cell in cells.items()}
    scored = {arm: value for arm, value in worth.items() if not math.isnan(value)}
    best = max(scored.values(), default=0.0)
    if best <= _ALIKE:
        return NOBODY
    leaders = [arm for arm, value in scored.items() if value >= best - _ALIKE]
    return leaders[0] if len(leaders) == 1 else TIE


def _mean(measures: Mapping[str, Any], metric: str) -> float | None:
    found = measures.get(metric)
    return None if found is None else float(found["mean"])
