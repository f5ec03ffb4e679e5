"""When retrieving arms decline: their calibration on dev questions, with its ROC curve, as the run noted it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from comparison_app.abstention import described
from comparison_app.report.charts import roc_chart
from rag.abstention import AbstentionCalibration


@dataclass(frozen=True)
class Declining:
    """The calibration of arms that decline alike: their names, what was found in words, and its ROC curve."""

    arms: str
    told: str
    drawing: Markup


def calibrations(summary: Mapping[str, Any]) -> list[tuple[str, AbstentionCalibration]]:
    """Return (names of arms, calibration), arms with the same one together; none where the run noted none."""
    noted = summary["environment"].get("abstention") or {}
    found = {arm: AbstentionCalibration.from_dict(data) for arm, data in noted.items() if arm in summary["arms"]}
    together: dict[AbstentionCalibration, list[str]] = {}
    for arm, calibration in found.items():
        together.setdefault(calibration, []).append(arm)
    return [(", ".join(arms), calibration) for calibration, arms in together.items()]


def declining(summary: Mapping[str, Any]) -> list[Declining]:
    """Return what the page shows of every calibration."""
    return [
        Declining(
            arms,
            f"{described(found)}.",
            roc_chart(
                f"ROC of confidence: {arms}",
                found.roc,
                (1 - found.declined_right, found.answered_right),
                list(summary["arms"]).index(arms.split(", ")[0]),
            ),
        )
        for arms, found in calibrations(summary)
    ]


def abstention_markdown(summary: Mapping[str, Any]) -> str:
    """Return a line per calibration; empty where there is none."""
    return "\n".join(f"- {arms}: {described(found)}." for arms, found in calibrations(summary))


def without_curves(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run was made with, without the points of ROC curves, which are drawn."""
    noted = environment.get("abstention") or {}
    kept = {arm: {key: value for key, value in found.items() if key != "roc"} for arm, found in noted.items()}
    return {**environment, **({"abstention": kept} if noted else {})}
