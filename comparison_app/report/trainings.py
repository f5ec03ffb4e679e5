"""What several trainings show: how far seeds lie apart, and what more training questions bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from comparison_app.evaluation import Evaluation
from comparison_app.experiment import OVERALL, ArmSpec
from comparison_app.metrics.scoring import ABSTENTION
from comparison_app.report.charts import Curve, Spot, Strip, line_chart, strip_chart


@dataclass(frozen=True)
class Drawn:
    """One chart with its heading and what stands below it."""

    heading: str
    drawing: Markup
    note: str


def seed_spreads(evaluation: Evaluation) -> list[Drawn]:
    """Return a chart for each family of trainings: its members' means, slice by slice, none averaged away."""
    found = []
    for place, (family, members) in enumerate(evaluation.experiment.families.items()):
        strips = [
            Strip(name, tuple(values))
            for name in (OVERALL, *evaluation.slices)
            if (values := _means(evaluation, members, name))
        ]
        widest = max(strips, key=lambda strip: max(strip.values) - min(strip.values))
        gap = 100 * (max(widest.values) - min(widest.values))
        note = (
            f"{len(members)} trainings that differ only in the seed: {', '.join(members)}. They lie up to {gap:.0f} "
            f"points apart ({widest.label}); a smaller difference from another arm may be the seed's."
        )
        found.append(Drawn(family, strip_chart(f"Trainings of {family}", strips, place + 1), note))
    return found


def _means(evaluation: Evaluation, members: tuple[str, ...], place: str) -> list[float]:
    """Return the members' means of what decides on a slice."""
    metric = ABSTENTION if place == "unanswerable" else evaluation.experiment.primary_metric
    found = evaluation.estimates.get((metric, place), {})
    return [found[member].mean for member in members if member in found]


def learning_curves(evaluation: Evaluation, record: Mapping[str, Any]) -> list[Drawn]:
    """Return a chart for each kind of arm that was trained on several numbers of questions.

    `record`: what `run.json` holds; its "adapters" tell on how many questions each was trained (`trained_questions`).
    """
    adapters = record.get("adapters") or {}
    groups: dict[tuple[object, ...], list[tuple[int, ArmSpec]]] = {}
    for arm in evaluation.experiment.arms:
        size = (adapters.get(arm.adapter) or {}).get("trained_questions") if arm.adapter else None
        if size:
            key = (arm.kind, arm.model, arm.quantization, arm.preset, repr(sorted(arm.rag.items())))
            groups.setdefault(key, []).append((int(size), arm))
    return [
        _curve(evaluation, str(key[0]), sorted(arms, key=lambda item: item[0]))
        for key, arms in groups.items()
        if len({size for size, _ in arms}) > 1
    ]


def _curve(evaluation: Evaluation, kind: str, arms: list[tuple[int, ArmSpec]]) -> Drawn:
    curves = []
    for colour, place in enumerate(evaluation.slices):
        metric = ABSTENTION if place == "unanswerable" else evaluation.experiment.primary_metric
        found = evaluation.estimates.get((metric, place), {})
        spots = tuple(
            Spot(arm.name, float(size), found[arm.name].mean, found[arm.name].low, found[arm.name].high, colour)
            for size, arm in arms
            if arm.name in found
        )
        if spots:
            curves.append(Curve(place, spots, colour))
    sizes = ", ".join(f"{arm.name} {size:,}" for size, arm in arms)
    drawing = line_chart(f"{kind} by number of training questions", "training questions (log scale)", curves)
    return Drawn(kind, drawing, f"Trained on: {sizes}. Asked is what belongs to the same slice for each of them.")
