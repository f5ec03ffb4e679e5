"""Errors of the package `comparison_app`.

data_prep.errors.VersusError
└── ComparisonError
    ├── ExperimentError    an experiment file that is missing, unreadable or wrong; lists every mistake in it
    ├── PredictionError    a line of predictions.jsonl that is wrong; names file and line
    ├── RunError           a run folder that cannot be started, continued or read
    └── StatisticsError    scores from which no statement can be made: empty, uneven, not a number
"""

from __future__ import annotations

from data_prep.errors import VersusError


class ComparisonError(VersusError):
    """Something in `comparison_app` that the user can mend."""


class ExperimentError(ComparisonError):
    """An experiment file that is missing, unreadable or wrong; the message lists every mistake in it."""


class PredictionError(ComparisonError):
    """A line of `predictions.jsonl` that is wrong; the message names file and line."""


class RunError(ComparisonError):
    """A run folder that cannot be started, continued or read."""


class StatisticsError(ComparisonError):
    """Scores from which no statement can be made: none, of uneven length, or not a number."""
