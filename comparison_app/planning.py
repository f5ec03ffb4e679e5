"""Before a run: what it could see, how many questions a difference needs, how long it will take and what it will cost.

The spread that decides what can be seen, and the seconds and tokens of an answer, are taken from earlier runs of the
workspace that hold the same arms; without one they are assumed, and that is said. With standard error s / sqrt(n), a
difference d is found in 80 % of runs at two-sided p < 0.05 if d >= (z(0.975) + z(0.8)) s / sqrt(n), so the questions
needed for d are n (detectable / d)², where `detectable` is what n questions could see (Cohen 1988, chapter 2). Several
declared comparisons ask for more: p < 0.05 / their number, the first step of Holm's adjustment.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comparison_app.errors import RunError
from comparison_app.evaluation import cluster_of, slice_rows
from comparison_app.experiment import ArmSpec, Comparison, Experiment
from comparison_app.metrics.scoring import ABSTENTION
from comparison_app.planned_trainings import PlannedTraining
from comparison_app.power import can_decide, holm_share, planned_detectable
from comparison_app.statistics import FEWEST_CLUSTERS
from comparison_app.summary import read_summary
from data_prep.questions import Question

ASSUMED_SPREAD = 0.45
"""Standard deviation of a paired difference of graded scores where no run tells it."""
ASSUMED_LIKENESS = 0.1
"""Correlation of the differences of two questions about one document, where no run tells it."""
ASSUMED_SECONDS = {
    "base": 0.05,
    "finetuned": 0.04,
    "rag": 0.11,
    "finetuned-rag": 0.11,
    "raft": 0.11,
    "rag-extractive": 0.05,
}
"""Seconds of an answer where no run tells them: pocket in batches, by kind of arm, as RESULTS.md has them for the demo
on two cores."""
TOKENS_A_WORD = 1.4
_PROMPT_WORDS = 60
"""Words of instruction and question around what was retrieved."""


@dataclass(frozen=True)
class PlannedComparison:
    """A declared comparison: the questions it will have, what they can see, and how many `difference` needs.

    Figures are None where there are too few documents for any interval, or for any decision among the declared
    comparisons. `source`: the run they come from, or "assumed".
    """

    a: str
    b: str
    slice: str
    metric: str
    questions: int
    documents: int
    detectable: float | None
    needed: int | None
    source: str


@dataclass(frozen=True)
class PlannedArm:
    """An arm's share of the run: seconds and money for all questions; None where nothing tells them.

    `source`: the run they come from, "assumed" (see `ASSUMED_SECONDS`), "prices, at most", or "none".
    """

    arm: str
    seconds: float | None
    cost: float | None
    source: str


@dataclass(frozen=True)
class Plan:
    """What a run would ask, see, take and cost, the trainings that it begins with included.

    Totals leave out what is not known; `unknown` names those arms and adapters. `indexing`: seconds that the last whole
    build of the indexes took, which the run takes at most again; None where there was none.
    """

    experiment: str
    questions: int
    slices: Mapping[str, int]
    difference: float
    comparisons: tuple[PlannedComparison, ...]
    arms: tuple[PlannedArm, ...]
    seconds: float
    cost: float
    currency: str
    unknown: tuple[str, ...]
    trainings: tuple[PlannedTraining, ...] = ()
    indexing: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON holds it."""
        return asdict(self)


def make_plan(
    experiment: Experiment,
    questions: Sequence[Question],
    runs: Path,
    difference: float = 0.1,
    trainings: Sequence[PlannedTraining] = (),
    indexing: float | None = None,
) -> Plan:
    """Plan a run of `experiment` over `questions`; `runs` is the folder of earlier runs, `difference` a share of 1.

    `indexing`: seconds that building the arms' indexes took, where that is known.
    """
    earlier = earlier_summaries(runs, experiment)
    arms = planned_arms(experiment, len(questions), runs)
    parts: list[PlannedArm | PlannedTraining] = [*arms, *trainings]
    return Plan(
        experiment=experiment.name,
        questions=len(questions),
        slices=dict(Counter(str(question.slice) for question in questions)),
        difference=difference,
        comparisons=tuple(
            _comparison(item, questions, earlier, difference, len(experiment.comparisons))
            for item in experiment.comparisons
        ),
        arms=arms,
        seconds=sum(part.seconds or 0.0 for part in parts) + (indexing or 0.0),
        cost=sum(part.cost or 0.0 for part in parts) + (indexing or 0.0) * experiment.machine_price / 3600,
        currency=experiment.currency,
        unknown=(
            *(arm.arm for arm in arms if arm.seconds is None or arm.cost is None),
            *(f"training {item.adapter}" for item in trainings if item.seconds is None),
        ),
        trainings=tuple(trainings),
        indexing=indexing,
    )


def planned_arms(experiment: Experiment, count: int, runs: Path) -> tuple[PlannedArm, ...]:
    """Return what each arm's `count` answers will take and cost, by the earlier runs of the folder `runs`."""
    earlier = earlier_summaries(runs, experiment)
    return tuple(_arm(spec, experiment, count, earlier) for spec in experiment.arms)


def earlier_summaries(runs: Path, experiment: Experiment) -> list[dict[str, Any]]:
    """Return the summaries of the workspace's runs, those of the same experiment first, each newest first."""
    found = []
    for path in sorted(runs.glob("*/summary.json"), key=lambda item: -item.stat().st_mtime):
        try:
            found.append(read_summary(path))
        except RunError:  # a damaged summary of another run is no obstacle to planning this one
            continue
    return sorted(found, key=lambda summary: summary.get("experiment") != experiment.name)


def _comparison(
    item: Comparison,
    questions: Sequence[Question],
    earlier: Sequence[Mapping[str, Any]],
    difference: float,
    declared: int,
) -> PlannedComparison:
    rows = [questions[row] for row in slice_rows(questions, item.slice)]
    if item.metric != ABSTENTION:
        rows = [question for question in rows if question.answerable]
    documents = Counter(cluster_of(question) for question in rows)
    detectable, source = _seen_before(item, len(rows), earlier)
    if len(documents) < FEWEST_CLUSTERS or not can_decide(len(documents), declared):
        detectable, source = None, "too few documents"
    elif detectable is None:
        detectable, source = planned_detectable(list(documents.values()), ASSUMED_SPREAD, ASSUMED_LIKENESS), "assumed"
    if detectable is not None:
        detectable *= holm_share(declared)
    needed = None if detectable is None else math.ceil(len(rows) * (detectable / difference) ** 2)
    return PlannedComparison(
        item.a, item.b, item.slice, item.metric, len(rows), len(documents), detectable, needed, source
    )


def _seen_before(item: Comparison, count: int, earlier: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
    """Return what `count` questions could see by the spread of an earlier run of the same pair, and that run's name."""
    for summary in earlier:
        declared = sum(pair["adjusted_p"] is not None for pair in summary.get("pairs", ()))
        for pair in summary.get("pairs", ()):
            same = (pair["metric"], pair["slice"]) == (item.metric, item.slice)
            if same and {pair["a"], pair["b"]} == {item.a, item.b} and pair["detectable"] and count:
                share = holm_share(declared) if pair["adjusted_p"] is not None else 1.0
                return float(pair["detectable"]) / share * math.sqrt(pair["n"] / count), str(summary["run"])
    return None, "assumed"


def _arm(spec: ArmSpec, experiment: Experiment, count: int, earlier: Sequence[Mapping[str, Any]]) -> PlannedArm:
    """Return an arm's seconds and money, from an earlier run with the same arm, else from prices alone."""
    for summary in earlier:
        found = summary["arms"].get(spec.name)
        if found and (found["model"], found["generator"]) == (spec.model, spec.generator) and found["latency"]["p50"]:
            seconds = count * float(found["latency"]["p50"])
            money = _priced(spec, count, found, int(summary["questions"]))
            return PlannedArm(
                spec.name,
                seconds,
                seconds * experiment.machine_price / 3600 if money is None else money,
                str(summary["run"]),
            )
    if not spec.endpoint and spec.model in (None, "pocket"):
        seconds = count * ASSUMED_SECONDS[spec.kind]
        return PlannedArm(spec.name, seconds, seconds * experiment.machine_price / 3600, "assumed")
    return PlannedArm(spec.name, None, _priced(spec, count, None, 0), "prices, at most" if spec.input_price else "none")


def _priced(spec: ArmSpec, count: int, found: Mapping[str, Any] | None, asked: int) -> float | None:
    """Return the money for `count` answers at an endpoint by its prices; None for an arm on this machine.

    Tokens are those of an earlier run, else at most what retrieval and the limit on answers allow.
    """
    if spec.input_price is None and spec.output_price is None:
        return None
    if found is not None and asked:
        read, written = found["tokens"]["prompt"] / asked, found["tokens"]["completion"] / asked
    else:
        read, written = float(_prompt_tokens(spec)), float(spec.max_new_tokens)
    money: float = read * (spec.input_price or 0.0) + written * (spec.output_price or 0.0)
    return count * money / 1e6


def _prompt_tokens(spec: ArmSpec) -> int:
    """Return about how many tokens a prompt of the arm has."""
    words = _PROMPT_WORDS
    if spec.retrieves:
        from comparison_app.indexes import rag_config

        config = rag_config(spec.preset, dict(spec.rag))
        words += config.top_k * config.chunk_words
    return math.ceil(TOKENS_A_WORD * words)
