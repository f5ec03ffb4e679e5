"""`report.md`: the verdict and the tables, to paste into an issue or a mail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comparison_app.evaluation import Evaluation
from comparison_app.experiment import OVERALL
from comparison_app.metrics.scoring import ABSTENTION
from comparison_app.report.directions import directions_markdown
from comparison_app.report.judge import judge_markdown
from comparison_app.statistics import Estimate
from comparison_app.verdict import METRIC_WORDS, SLICE_WORDS


def render_markdown(evaluation: Evaluation, summary: Mapping[str, Any]) -> str:
    """Return the report as markdown."""
    metric = evaluation.experiment.primary_metric
    parts = [
        f"# {_cell(evaluation.experiment.name)}: run {_cell(str(summary['run']))}",
        str(summary["verdict"]),
        f"## {METRIC_WORDS[metric]} by slice, with 95 % intervals",
        _slices(evaluation),
        "## Declared comparisons",
        _pairs(summary),
        "## Speed and cost",
        _costs(summary),
        *(["## Published findings, tested here", directions_markdown(summary)] if "directions" in summary else []),
        "## The judge",
        judge_markdown(summary),
    ]
    return "\n\n".join(parts) + "\n"


def span(estimate: Estimate | None) -> str:
    """Write a mean with its interval in points."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.mean:.0f} (n = {estimate.n}: no interval)"
    return f"{100 * estimate.mean:.0f} ({100 * estimate.low:.0f}–{100 * estimate.high:.0f})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """Keep a text from breaking a table or starting markup."""
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")


def _slices(evaluation: Evaluation) -> str:
    metric = evaluation.experiment.primary_metric
    rows = []
    for place in (OVERALL, *evaluation.slices):
        shown = ABSTENTION if place == "unanswerable" else metric
        found = evaluation.estimates.get((shown, place), {})
        name = f"{SLICE_WORDS[place]} (declined)" if place == "unanswerable" else SLICE_WORDS[place]
        rows.append([name, *(span(found.get(arm)) for arm in evaluation.arms)])
    return _table(["slice", *evaluation.arms], rows)


def _pairs(summary: Mapping[str, Any]) -> str:
    rows = []
    for pair in summary["pairs"]:
        if pair["adjusted_p"] is not None:
            low, high = pair["low"], pair["high"]
            reach = "no interval" if low is None else f"{100 * low:+.0f} to {100 * high:+.0f}"
            rows.append(
                [
                    f"{pair['a']} − {pair['b']}",
                    pair["slice"],
                    METRIC_WORDS[pair["metric"]],
                    str(pair["n"]),
                    f"{100 * pair['difference']:+.0f}",
                    reach,
                    f"{pair['adjusted_p']:.3f}",
                    "yes" if pair["decisive"] else "no",
                ]
            )
    return _table(["pair", "slice", "metric", "n", "points", "95 %", "adjusted p", "decisive"], rows)


def _costs(summary: Mapping[str, Any]) -> str:
    rows = []
    for arm, found in summary["arms"].items():
        seconds, cost = found["latency"], found["cost"]
        times = [f"{seconds[key]:.2g}" if seconds[key] is not None else "–" for key in ("p50", "p95")]
        rows.append([arm, *times, f"{cost['per_question']:.2g} {cost['currency']}", str(found["errors"])])
    return _table(["arm", "p50 s", "p95 s", "cost a question", "errors"], rows)
