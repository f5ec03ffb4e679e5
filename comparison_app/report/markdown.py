"""`report.md`: the verdict and the tables, to paste into an issue or a mail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comparison_app.evaluation import Evaluation
from comparison_app.experiment import OVERALL
from comparison_app.metrics.scoring import ABSTENTION
from comparison_app.prices import money_in_words
from comparison_app.provenance import flat_rows
from comparison_app.report.abstention import abstention_markdown, without_curves
from comparison_app.report.directions import directions_markdown
from comparison_app.report.judge import judge_markdown
from comparison_app.statistics import Estimate, PairedDifference
from comparison_app.verdict import METRIC_WORDS, SLICE_WORDS

CAUTIOUS = "†"
CAUTIOUS_NOTE = (
    f"{CAUTIOUS} Hardly any of these answers were wrong, or hardly any right: the interval is cautious, wider than "
    "95 % asks for."
)


def render_markdown(evaluation: Evaluation, summary: Mapping[str, Any]) -> str:
    """Return the report as markdown."""
    metric = evaluation.experiment.primary_metric
    parts = [
        f"# {_cell(evaluation.experiment.name)}: run {_cell(str(summary['run']))}",
        str(summary["verdict"]),
        f"## {METRIC_WORDS[metric]} by slice, with 95 % intervals",
        _slices(evaluation),
        "## Declared comparisons",
        _pairs(evaluation),
        "## Speed and cost",
        _costs(summary),
        *(["## Published findings, tested here", directions_markdown(summary)] if "directions" in summary else []),
        "## Refusals",
        _refusals(evaluation, summary),
        *([told] if (told := abstention_markdown(summary)) else []),
        "## The judge",
        judge_markdown(summary),
        "## Provenance",
        _provenance(evaluation, summary),
    ]
    return "\n\n".join(parts) + "\n"


def span(estimate: Estimate | None) -> str:
    """Write a mean with its interval in points."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.mean:.0f} (n = {estimate.n}: no interval)"
    mark = CAUTIOUS if estimate.cautious else ""
    return f"{100 * estimate.mean:.0f} ({100 * estimate.low:.0f}–{100 * estimate.high:.0f}){mark}"


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
    return f"{_table(['slice', *evaluation.arms], rows)}\n\n{CAUTIOUS_NOTE}"


def _pairs(evaluation: Evaluation) -> str:
    """Return the declared comparisons; McNemar's test, which ignores documents, stands beside binary scores."""
    rows = []
    for pair in evaluation.declared():
        found, names = pair.found, pair.comparison
        none = found.low is None or found.high is None
        rows.append(
            [
                f"{names.a} − {names.b}",
                names.slice,
                METRIC_WORDS[names.metric],
                str(found.n),
                f"{100 * found.difference:+.0f}",
                "no interval" if none else _ends(found),
                f"{pair.adjusted_p or 0.0:.3f}",
                "yes" if pair.decisive else "no",
                "–" if found.detectable is None else f"{100 * found.detectable:.0f}",
                "–" if found.mcnemar_p is None else f"{found.mcnemar_p:.3f}",
            ]
        )
    header = ["pair", "slice", "metric", "n", "points", "95 %", "adjusted p", "decisive", "seen 4 in 5", "McNemar p"]
    note = f"\n\n{CAUTIOUS_NOTE}" if any(pair.found.cautious for pair in evaluation.declared()) else ""
    return _table(header, rows) + note


def _ends(found: PairedDifference) -> str:
    mark = CAUTIOUS if found.cautious else ""
    return f"{100 * (found.low or 0):+.0f} to {100 * (found.high or 0):+.0f}{mark}"


def _costs(summary: Mapping[str, Any]) -> str:
    rows = []
    for arm, found in summary["arms"].items():
        seconds, cost = found["latency"], found["cost"]
        times = [_two(seconds.get(key)) for key in ("p50", "p95", "alone_p50", "alone_p95", "first_token_p50")]
        fresh = cost["hundred_documents"]
        money = [money_in_words(cost["setup"]), money_in_words(1000 * cost["per_question"])]
        right = money_in_words(None if cost["per_correct"] is None else 1000 * cost["per_correct"])
        learnt = "–"
        if fresh is not None:
            learnt = f"{money_in_words(fresh['cost'])} ({fresh['how']}, {_two(fresh['seconds'])} s)"
        rows.append([arm, *times, *money, right, learnt, str(found["errors"])])
    currency = next((found["cost"]["currency"] for found in summary["arms"].values()), "")
    money = ["to set up", "1,000 answers", "1,000 right", "100 new documents"]
    header = [
        "arm",
        "p50 s in batches",
        "p95 s",
        "p50 s alone",
        "p95 s",
        "first word s",
        *(f"{name}, {currency}" for name in money),
        "errors",
    ]
    return _table(header, rows)


def _two(value: float | None) -> str:
    """Write a figure with two telling digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _refusals(evaluation: Evaluation, summary: Mapping[str, Any]) -> str:
    """Return how often every arm declined, and how often that was right."""
    closed = sum(not question.answerable for question in evaluation.questions)
    rows = []
    for arm, found in summary["arms"].items():
        counts = found["refusals"]
        shares = ["–" if counts[key] is None else f"{100 * counts[key]:.0f} %" for key in ("precision", "recall")]
        rightly = f"{counts['rightly']} of {closed}"
        wrongly = f"{counts['wrongly']} of {len(evaluation.questions) - closed}"
        rows.append([arm, str(counts["declined"]), rightly, wrongly, *shares])
    return _table(["arm", "declined", "rightly", "wrongly", "precision", "recall"], rows)


def _provenance(evaluation: Evaluation, summary: Mapping[str, Any]) -> str:
    """Return what the run was made with, but for retrieval's settings, which the page has."""
    around = without_curves(summary["environment"])
    if "arms" in around:
        around["arms"] = {
            arm: {key: value for key, value in found.items() if key != "rag"} for arm, found in around["arms"].items()
        }
    first = [("experiment", evaluation.experiment.name), ("seed", str(evaluation.experiment.seed))]
    rows = [*first, *flat_rows(around)]
    return (
        f"{_table(['what', 'value'], rows)}\n\n"
        "The matrix of all pairs, the examples with their sources and every arm's retrieval settings stand in "
        "report.html; every question with every score in questions.csv."
    )
