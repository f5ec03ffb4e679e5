"""`report.html`: one self-contained page, all text escaped, no script, no outside request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from comparison_app.evaluation import Evaluation, Pair, cluster_of
from comparison_app.experiment import OVERALL
from comparison_app.metrics.abstention import Refusals, count_refusals
from comparison_app.metrics.scoring import ABSTENTION, RETRIEVAL_METRICS
from comparison_app.prices import money_in_words
from comparison_app.provenance import flat_rows
from comparison_app.report.abstention import declining, without_curves
from comparison_app.report.charts import Dot, Spot, difference_bar, dot_chart, scatter
from comparison_app.report.directions import directions_section
from comparison_app.report.examples import ERRORS, disagreements, failures
from comparison_app.report.judge import judge_section
from comparison_app.report.markdown import CAUTIOUS, CAUTIOUS_NOTE, span
from comparison_app.report.trainings import learning_curves, seed_spreads
from comparison_app.statistics import Estimate, PairedDifference, paired_differences
from comparison_app.verdict import METRIC_WORDS, SLICE_WORDS, findings, recommendation, sight, signed, standings

if TYPE_CHECKING:
    from jinja2 import Template

SLICE_MEANING = {
    "trained": "fact and wording were trained: memory",
    "paraphrase": "fact trained, wording new: knowledge taken in",
    "trained-page": "page trained, this fact not: coverage of the training questions",
    "unseen-page": "nothing of the page was trained: new ground",
    "new-document": "indexed after training: freshness",
    "unanswerable": "no answer in the documents: declining is right",
    OVERALL: "all slices",
}


@dataclass(frozen=True)
class SliceChart:
    """One chart of scores: a slice, what it shows, and how many questions and documents stand behind it."""

    heading: str
    meaning: str
    metric: str
    questions: int
    documents: int
    drawing: Markup
    note: str


def render_html(evaluation: Evaluation, summary: Mapping[str, Any]) -> str:
    """Return the whole page."""
    models = summary["environment"].get("models")
    return _template().render(
        summary=summary,
        experiment=evaluation.experiment,
        evaluation=evaluation,
        style=Markup(_file("style.css")),
        findings=findings(evaluation, models),
        recommendation=recommendation(evaluation, summary["arms"]),
        timed_alone=_timed_alone(summary),
        overview=_overview(evaluation, summary),
        charts=_charts(evaluation),
        tables=_tables(evaluation),
        cautious_note=CAUTIOUS_NOTE,
        retrieval=_table(evaluation, RETRIEVAL_METRICS, OVERALL),
        pairs=_pairs(evaluation),
        matrix=_matrix(evaluation),
        pair_slices=(OVERALL, *evaluation.slices),
        pair_table=_pair_table(evaluation),
        spreads=seed_spreads(evaluation),
        curves=learning_curves(evaluation, summary["environment"]),
        quality_by_time=_by_time(evaluation, summary),
        quality_by_cost=_by_cost(evaluation, summary),
        break_evens=_break_evens(summary),
        groups=disagreements(evaluation),
        failures=failures(evaluation),
        failure_count=sum(arm["errors"] for arm in summary["arms"].values()),
        most_failures=ERRORS,
        refusals=_refusals(evaluation),
        declining=declining(summary),
        directions=directions_section(summary),
        judge=judge_section(summary, evaluation.experiment.currency),
        primary=METRIC_WORDS[evaluation.experiment.primary_metric],
        provenance=flat_rows(without_curves(summary["environment"])),
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["points"] = lambda share: "–" if share is None else f"{100 * share:.0f}"
    environment.filters["signed"] = signed
    environment.filters["seconds"] = _seconds
    environment.filters["money"] = money_in_words
    environment.filters["p"] = lambda value: f"{value:.3f}" if value >= 0.001 else "< 0.001"
    return environment.from_string(_file("template.html"))


def _file(name: str) -> str:
    return resources.files("comparison_app.report").joinpath(name).read_text(encoding="utf-8")


def _seconds(value: float | None) -> str:
    """Write seconds as people read them."""
    if value is None:
        return "–"
    if value >= 90:
        return f"{value / 60:.1f} min"
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"


def _overview(evaluation: Evaluation, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per arm, best first: worth, primary metric, declining, speed, errors."""
    rows = []
    metric = evaluation.experiment.primary_metric
    for standing in standings(evaluation):
        arm = standing.arm
        rows.append(
            {
                "arm": arm,
                "colour": evaluation.arms.index(arm) % 8,
                "generator": summary["arms"][arm]["generator"],
                "standing": standing,
                "primary": span(evaluation.estimates.get((metric, OVERALL), {}).get(arm)),
                "abstention": span(evaluation.estimates.get((ABSTENTION, OVERALL), {}).get(arm)),
                "times": _times(summary, arm),
                "errors": summary["arms"][arm]["errors"],
            }
        )
    return rows


def _charts(evaluation: Evaluation) -> list[SliceChart]:
    """Return a chart of the primary metric per slice; of declining for unanswerable questions."""
    return [chart for place in (OVERALL, *evaluation.slices) if (chart := _chart(evaluation, place))]


def _chart(evaluation: Evaluation, place: str) -> SliceChart | None:
    metric = ABSTENTION if place == "unanswerable" else evaluation.experiment.primary_metric
    found = evaluation.estimates.get((metric, place))
    if not found:
        return None
    dots = [
        Dot(arm, found[arm].mean, found[arm].low, found[arm].high, column)
        for column, arm in enumerate(evaluation.arms)
        if arm in found
    ]
    one = next(iter(found.values()))
    words = SLICE_WORDS[place]
    return SliceChart(
        heading=words[0].upper() + words[1:],
        meaning=SLICE_MEANING[place],
        metric=METRIC_WORDS[metric],
        questions=one.n,
        documents=one.clusters,
        drawing=dot_chart(f"{METRIC_WORDS[metric]} on {words}", dots),
        note=_note(found.values()),
    )


def _note(estimates: Iterable[Estimate]) -> str:
    """Say what a chart's intervals are not."""
    estimates = list(estimates)
    if estimates[0].low is None:
        return "Too few documents for an interval."
    return (
        "Lines of arms that are hardly ever wrong, or right, are cautious."
        if any(e.cautious for e in estimates)
        else ""
    )


def _tables(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return a table of all other metrics per slice."""
    shown = tuple(metric for metric in evaluation.metrics if metric not in RETRIEVAL_METRICS)
    return [
        {"slice": SLICE_WORDS[place], **_table(evaluation, shown, place)} for place in (OVERALL, *evaluation.slices)
    ]


def _table(evaluation: Evaluation, metrics: Sequence[str], place: str) -> dict[str, Any]:
    """Return the rows (metric, one cell per arm) of those metrics that apply on a slice."""
    rows = []
    for metric in metrics:
        found = evaluation.estimates.get((metric, place), {})
        if found:
            rows.append((METRIC_WORDS[metric], [span(found.get(arm)) for arm in evaluation.arms]))
    return {"rows": rows}


def _pairs(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the declared comparisons, each with its bar."""
    declared = evaluation.declared()
    bounds = [abs(b) for pair in declared for b in (pair.found.difference, pair.found.low, pair.found.high) if b]
    reach = max([0.1, *bounds])
    rows = []
    for pair in declared:
        found, names = pair.found, pair.comparison
        colour = evaluation.arms.index(names.a if found.difference >= 0 else names.b)
        title = f"{names.a} minus {names.b} on {SLICE_WORDS[names.slice]}"
        rows.append(
            {
                "pair": pair,
                "slice": SLICE_WORDS[names.slice],
                "metric": METRIC_WORDS[names.metric],
                "sight": "" if pair.decisive else sight(found, len(declared)),
                "bar": difference_bar(title, found.difference, found.low, found.high, colour, reach),
            }
        )
    return rows


def _pair_table(evaluation: Evaluation) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return rows of (pair, cells): each pair's difference on each slice, by what decides there."""
    primary = evaluation.experiment.primary_metric
    found: dict[frozenset[str], dict[str, Pair]] = {}
    for pair in evaluation.pairs:
        names = pair.comparison
        if names.metric == (ABSTENTION if names.slice == "unanswerable" else primary):
            found.setdefault(frozenset((names.a, names.b)), {})[names.slice] = pair
    families = {arm.name: arm.family or arm.name for arm in evaluation.experiment.arms}
    places = (OVERALL, *evaluation.slices)
    return [
        (f"{a} − {b}", [_difference_cell(cells.get(place), a) for place in places])
        for a, b in combinations(evaluation.arms, 2)
        if families[a] != families[b] and (cells := found.get(frozenset((a, b))))
    ]


def _difference_cell(pair: Pair | None, first: str) -> tuple[str, str]:
    """Return the difference of arm `first` from the other with its interval, and how it is coloured."""
    if pair is None:
        return "–", "even"
    found, sign = pair.found, 1 if pair.comparison.a == first else -1
    if found.low is None or found.high is None:
        return f"{signed(sign * found.difference)} (no interval)", "even"
    low, high = sorted((sign * found.low, sign * found.high))
    mark = CAUTIOUS if found.cautious else ""
    text = f"{signed(sign * found.difference)} ({signed(low)} to {signed(high)}){mark}"
    if found.p_value < 0.05 and found.excludes_zero:
        return text, "win" if sign * found.difference > 0 else "loss"
    return text, "even"


def _matrix(evaluation: Evaluation) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return rows of (arm, cells): the row arm's worth minus the column arm's, and whether it is likely real."""
    arms = evaluation.arms
    found: dict[tuple[int, int], PairedDifference] = {}
    rows = np.flatnonzero(~np.isnan(evaluation.credit).any(axis=1))
    sides = list(combinations(range(len(arms)), 2))
    if sides:
        credit = evaluation.credit[rows]
        differences = paired_differences(
            credit[:, [a for a, _ in sides]],
            credit[:, [b for _, b in sides]],
            [cluster_of(evaluation.questions[row]) for row in rows],
            weights=evaluation.weights[rows],
            seed=evaluation.experiment.seed,
        )
        found = dict(zip(sides, differences, strict=True))
    return [(arm, [_matrix_cell(found, i, j) for j in range(len(arms))]) for i, arm in enumerate(arms)]


def _matrix_cell(found: Mapping[tuple[int, int], PairedDifference], row: int, column: int) -> tuple[str, str]:
    if row == column:
        return "", "self"
    sign = 1 if row < column else -1
    difference = found[min(row, column), max(row, column)]
    text = signed(sign * difference.difference)
    if difference.p_value < 0.05 and difference.excludes_zero:
        return text, "win" if sign * difference.difference > 0 else "loss"
    return text, "even"


def _timed_alone(summary: Mapping[str, Any]) -> bool:
    """Tell whether every arm was asked single questions: only then are those times set side by side."""
    return all(arm["latency"].get("alone_p50") is not None for arm in summary["arms"].values())


def _times(summary: Mapping[str, Any], arm: str) -> tuple[float | None, float | None]:
    """Return the median and 95th percentile of an arm's seconds: asked alone if all arms were, else in batches."""
    found, kind = summary["arms"][arm]["latency"], "alone_" if _timed_alone(summary) else ""
    return found.get(f"{kind}p50"), found.get(f"{kind}p95")


def _by_time(evaluation: Evaluation, summary: Mapping[str, Any]) -> Markup:
    times = {arm: _times(summary, arm)[0] or 0.0 for arm in evaluation.arms}
    way = "for a question asked alone" if _timed_alone(summary) else "per answer in batches"
    return scatter("Quality against time", f"median seconds {way} (log scale)", _spots(evaluation, times))


def _by_cost(evaluation: Evaluation, summary: Mapping[str, Any]) -> Markup:
    costs = {arm: 1000 * summary["arms"][arm]["cost"]["per_question"] for arm in evaluation.arms}
    unit = f"{evaluation.experiment.currency} per 1,000 answers (log scale)"
    return scatter("Quality against cost", unit, _spots(evaluation, costs))


def _spots(evaluation: Evaluation, across: Mapping[str, float]) -> list[Spot]:
    columns = {arm: column for column, arm in enumerate(evaluation.arms)}
    return [
        Spot(found.arm, across[found.arm], found.mean, found.low, found.high, columns[found.arm])
        for found in standings(evaluation)
    ]


def _break_evens(summary: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Return (one, other, questions) where an arm that costs more to set up becomes the cheaper one."""
    return [
        (one, other, count)
        for one, found in summary["arms"].items()
        for other, count in found["cost"]["cheaper_from"].items()
    ]


def _refusals(evaluation: Evaluation) -> list[tuple[str, Refusals]]:
    answerable = [question.answerable for question in evaluation.questions]
    return [(arm, count_refusals(zip(evaluation.refused(arm), answerable, strict=True))) for arm in evaluation.arms]
