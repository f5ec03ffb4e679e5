"""What a judge said in a run: `judge.json` in the run's folder, one row for each time that it was asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from comparison_app.errors import RunError
from data_prep.atomic import write_text

FILE_NAME = "judge.json"


@dataclass(frozen=True)
class PairRow:
    """One reply on two arms. `first`: the arm that stood as A. `winner`: an arm, "" for a tie, None for a failure.

    `turn` is 0, or 1 where the judge was asked again. `same`: both answers are one, so that it was not asked at all.
    """

    question: str
    a: str
    b: str
    first: str
    turn: int
    winner: str | None
    problem: str | None = None
    same: bool = False


@dataclass(frozen=True)
class RatingRow:
    """One reply on one arm: criterion -> 1 to 5, None for a failure."""

    question: str
    arm: str
    turn: int
    ratings: Mapping[str, int] | None
    problem: str | None = None


@dataclass(frozen=True)
class JudgeRecord:
    """All that a judge said. `planned`: judgements it was to give; `stopped`: why it gave fewer, if it did."""

    judge: str
    planned: int
    judged: int
    pairs: tuple[PairRow, ...] = ()
    ratings: tuple[RatingRow, ...] = ()
    stopped: str | None = None
    estimate: Mapping[str, Any] = field(default_factory=dict)
    spent: Mapping[str, Any] = field(default_factory=dict)
    budget: float | None = None


def write_judge(folder: Path, record: JudgeRecord) -> None:
    """Write what a judge said into a run's folder, whole or not at all."""
    write_text(folder / FILE_NAME, json.dumps(asdict(record), ensure_ascii=False, indent=1) + "\n")


def read_judge(folder: Path) -> JudgeRecord | None:
    """Read what a judge said in a run; None if none was asked. Raises `RunError` that names the file and the mend."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        pairs = tuple(PairRow(**row) for row in data.pop("pairs"))
        ratings = tuple(RatingRow(**row) for row in data.pop("ratings"))
        return JudgeRecord(**data, pairs=pairs, ratings=ratings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: cannot be read ({error}); delete it and run with --resume --judge") from error
