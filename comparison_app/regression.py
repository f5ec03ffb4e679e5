"""What changed between two runs of one experiment: paired by question, for each arm, with the same care as within one.

Every arm is compared with itself of the other run, by worth over all questions and by what decides on each slice. All
these comparisons form one family, adjusted by Holm; a fall or rise is decisive by the rule of `statistics.is_decisive`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from comparison_app.errors import RunError
from comparison_app.evaluation import Evaluation, cluster_of, slice_rows
from comparison_app.experiment import OVERALL
from comparison_app.statistics import FEWEST_CLUSTERS, PairedDifference, holm, is_decisive, paired_differences

WORTH = "worth"
"""The metric that a question's `credit` is: the primary one, or a right refusal."""


HEADER = ("arm", "slice", "n", "then", "now", "change", "95 %", "adjusted p", "")


@dataclass(frozen=True)
class Change:
    """One arm on one slice, now minus then; `was` and `now` are the means over the questions of both runs."""

    arm: str
    slice: str
    was: float
    now: float
    found: PairedDifference
    adjusted_p: float
    decisive: bool

    @property
    def fell(self) -> bool:
        """Whether it is decisively worse than it was."""
        return self.decisive and self.found.difference < 0

    @property
    def in_words(self) -> tuple[str, ...]:
        """Its figures as people read them, in points, in the order of `HEADER`."""
        found = self.found
        reach = "–" if found.low is None or found.high is None else f"{100 * found.low:+.0f} to {100 * found.high:+.0f}"
        word = "" if not self.decisive else "fell" if self.fell else "rose"
        means = (f"{100 * self.was:.0f}", f"{100 * self.now:.0f}", f"{100 * found.difference:+.0f}")
        return (self.arm, self.slice, str(found.n), *means, reach, f"{self.adjusted_p:.3f}", word)


@dataclass(frozen=True)
class Comparison:
    """The changes from run `then` to run `now`, and what was made differently (`provenance`: key -> (then, now))."""

    then: str
    now: str
    questions: int
    changes: tuple[Change, ...]
    provenance: Mapping[str, tuple[str, str]]
    notes: tuple[str, ...]

    @property
    def falls(self) -> list[Change]:
        """The decisive falls."""
        return [change for change in self.changes if change.fell]

    @property
    def outcome(self) -> str:
        """The decisive falls in one sentence."""
        told = ", ".join(f"{change.arm} on {change.slice}" for change in self.falls)
        return f"Decisive falls: {told}." if told else "No arm fell decisively."

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {
            "run": self.now,
            "against": self.then,
            "questions": self.questions,
            "regressions": len(self.falls),
            "changes": [_row(change) for change in self.changes],
            "provenance": {key: {"then": then, "now": now} for key, (then, now) in self.provenance.items()},
            "notes": list(self.notes),
        }


def _row(change: Change) -> dict[str, Any]:
    found = change.found
    return {
        "arm": change.arm,
        "slice": change.slice,
        "was": change.was,
        "now": change.now,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "p_value": found.p_value,
        "adjusted_p": change.adjusted_p,
        "decisive": change.decisive,
    }


def compare_runs(
    then: tuple[str, Evaluation, Mapping[str, Any]], now: tuple[str, Evaluation, Mapping[str, Any]]
) -> Comparison:
    """Compare two runs, each (name, evaluation, record); raises `RunError` if they are not of one experiment."""
    (old_name, old, old_record), (new_name, new, new_record) = then, now
    _check_comparable(old_name, old, new)
    shared, notes = _shared_questions(old, new)
    arms = [arm for arm in new.arms if arm in old.arms]
    cells = [(arm, place) for arm in arms for place in (OVERALL, *new.slices)]
    found = [_difference(old, new, arm, place, shared) for arm, place in cells]
    kept = [(cell, item) for cell, item in zip(cells, found, strict=True) if item is not None]
    adjusted = holm([difference.p_value for _, (_, _, difference) in kept])
    changes = tuple(
        Change(arm, place, was, is_now, difference, p, is_decisive(difference, p))
        for ((arm, place), (was, is_now, difference)), p in zip(kept, adjusted, strict=True)
    )
    for label, only in (("then", set(old.arms) - set(arms)), ("now", set(new.arms) - set(arms))):
        notes += [f"only {label}: arm {arm}" for arm in sorted(only)]
    return Comparison(old_name, new_name, len(shared), changes, _differences(old_record, new_record), tuple(notes))


def _check_comparable(name: str, old: Evaluation, new: Evaluation) -> None:
    """Refuse runs that measure different things."""
    for key in ("name", "corpus", "primary_metric"):
        was, is_now = getattr(old.experiment, key), getattr(new.experiment, key)
        if was != is_now:
            what = "experiment" if key == "name" else key
            raise RunError(f"run {name} has {what} {was!r}, not {is_now!r}: compare runs of one experiment")
    if not set(old.arms) & set(new.arms):
        raise RunError(f"run {name} has no arm in common with this one; its arms are {', '.join(old.arms)}")


def _shared_questions(old: Evaluation, new: Evaluation) -> tuple[list[tuple[int, int]], list[str]]:
    """Return the places (then, now) of the questions that both runs asked in the same words for the same answers."""
    places = {question.id: place for place, question in enumerate(old.questions)}
    shared, changed = [], 0
    for place, question in enumerate(new.questions):
        other = places.get(question.id)
        if other is None:
            continue
        if replace(old.questions[other], evidence=()) == replace(question, evidence=()):
            shared.append((other, place))
        else:
            changed += 1
    if not shared:
        raise RunError("the two runs share no question: they cannot be compared")
    notes = []
    if changed:
        notes.append(f"{changed} questions changed between the runs and are left out")
    if len(shared) + changed < max(len(old.questions), len(new.questions)):
        notes.append(f"{len(shared)} questions were asked in both runs, of {len(old.questions)} then")
    return shared, notes


def _difference(
    old: Evaluation, new: Evaluation, arm: str, place: str, shared: Sequence[tuple[int, int]]
) -> tuple[float, float, PairedDifference] | None:
    """Return the means then and now and their difference; None where the slice has no question."""
    within = set(slice_rows(new.questions, place).tolist())
    pairs = [(then, now) for then, now in shared if now in within]
    before = old.credit[[then for then, _ in pairs], old.arms.index(arm)]
    after = new.credit[[now for _, now in pairs], new.arms.index(arm)]
    weights = new.weights[[now for _, now in pairs]] if place == OVERALL else np.ones(len(pairs))
    usable = ~(np.isnan(before) | np.isnan(after)) & (weights > 0)
    if not usable.any():
        return None
    clusters = [cluster_of(new.questions[now]) for (_, now), keep in zip(pairs, usable.tolist(), strict=True) if keep]
    before, after, weights = before[usable], after[usable], weights[usable]
    seed = new.experiment.seed
    found = paired_differences(after[:, None], before[:, None], clusters, weights=weights, seed=seed)[0]
    if found.clusters < FEWEST_CLUSTERS:
        found = replace(found, low=None, high=None, detectable=None)
    return float(np.average(before, weights=weights)), float(np.average(after, weights=weights)), found


_TIMES = ("started", "finished", "latency", "indexing", "update")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return what the records of two runs tell differently, times left out."""
    then, now = (
        {
            key: value
            for key, value in _flat(record)
            if not key.startswith(("started", "finished", "latency", "indexing", "update"))
        }
        for record in (old, new)
    )
    return {
        key: (then.get(key, "–"), now.get(key, "–"))
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and not key.endswith(".seconds")
    }


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        rows += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, str(value))]
    return rows
