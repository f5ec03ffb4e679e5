"""`summary.json`: a run's figures in the shape that DESIGN section 5 fixes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comparison_app.costs import ArmCost, Learning, SetupTimes, arm_cost, break_evens, learning, setup_times
from comparison_app.errors import RunError
from comparison_app.evaluation import Evaluation, Pair
from comparison_app.experiment import OVERALL
from comparison_app.metrics.abstention import count_refusals
from comparison_app.predictions import Prediction
from comparison_app.statistics import Estimate
from comparison_app.verdict import verdict
from data_prep.atomic import write_text


def summarise(
    run: str,
    evaluation: Evaluation,
    environment: Mapping[str, Any] | None = None,
    setup: Mapping[str, SetupTimes] | None = None,
) -> dict[str, Any]:
    """Return the summary of run `run`.

    `environment` is what `run.json` holds; its "models" (base model -> {"parameters", "fingerprint"}) tells the
    verdict how large they are. `setup`: arm -> measured times of training and indexing, if not as in `environment`
    (see `costs.setup_times`).
    """
    around = dict(environment or {})
    times = setup_times(evaluation.experiment, around) if setup is None else setup
    costs = _costs(evaluation, times)
    arms = {arm: _arm(evaluation, arm, costs[arm], (around.get("latency") or {}).get(arm)) for arm in evaluation.arms}
    if evaluation.notes:
        around["notes"] = list(evaluation.notes)
    return {
        "run": run,
        "experiment": evaluation.experiment.name,
        "questions": len(evaluation.questions),
        "arms": arms,
        "primary_metric": evaluation.experiment.primary_metric,
        "pairs": [pair_row(pair) for pair in evaluation.pairs],
        "verdict": verdict(evaluation, around.get("models"), arms),
        "environment": around,
    }


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write a summary, whole or not at all."""
    write_text(path, json.dumps(summary, ensure_ascii=False, indent=2, allow_nan=False, default=str) + "\n")


def read_summary(path: Path) -> dict[str, Any]:
    """Read a summary; raises `RunError` that names the file and the mend."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); finish the run with --resume") from error
    except ValueError as error:
        raise RunError(f"{path}: not JSON ({error}); write it again with `versus report`") from error
    if not isinstance(summary, dict) or "arms" not in summary:
        raise RunError(f"{path}: not a summary; write it again with `versus report`")
    return summary


def pair_row(pair: Pair) -> dict[str, Any]:
    """Return one entry of "pairs"; `adjusted_p` is null for what the experiment did not declare."""
    found = pair.found
    return {
        "a": pair.comparison.a,
        "b": pair.comparison.b,
        "metric": pair.comparison.metric,
        "slice": pair.comparison.slice,
        "n": found.n,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "test": found.test,
        "p_value": found.p_value,
        "adjusted_p": pair.adjusted_p,
        "decisive": pair.decisive,
        "detectable": found.detectable,
    }


def latency(
    predictions: Sequence[Prediction], alone: Mapping[str, float | None] | None = None
) -> dict[str, float | None]:
    """Return p50 and p95 of the seconds per answer, each a share of its batch, and what single questions took.

    `alone`: `alone_p50`, `alone_p95` and `first_token_p50`, of questions asked one by one and streamed (`Run.probe`).
    """
    seconds = [prediction.seconds for prediction in predictions if prediction.error is None]
    first = [p.seconds_to_first_token for p in predictions if p.seconds_to_first_token is not None]
    result: dict[str, float | None] = {
        "p50": float(np.quantile(seconds, 0.5)) if seconds else None,
        "p95": float(np.quantile(seconds, 0.95)) if seconds else None,
    }
    if first:
        result["first_token_p50"] = float(np.median(first))
    return result | dict(alone or {})


def _arm(
    evaluation: Evaluation, arm: str, cost: dict[str, Any], alone: Mapping[str, float | None] | None
) -> dict[str, Any]:
    """Return one arm's part of the summary."""
    spec = evaluation.experiment.arm(arm)
    predictions = evaluation.predictions[arm]
    return {
        "model": spec.model,
        "generator": spec.generator,
        "overall": _measures(evaluation, arm, OVERALL),
        "slices": {name: _measures(evaluation, arm, name) for name in evaluation.slices},
        "latency": latency(predictions, alone),
        "tokens": {
            "prompt": sum(prediction.prompt_tokens or 0 for prediction in predictions),
            "completion": sum(prediction.completion_tokens or 0 for prediction in predictions),
        },
        "cost": cost,
        "refusals": _refusals(evaluation, arm),
        "errors": sum(prediction.error is not None for prediction in predictions),
    }


def _measures(evaluation: Evaluation, arm: str, place: str) -> dict[str, Any]:
    """Return M: metric -> mean, low, high, n; a metric that does not apply is absent."""
    found: dict[str, Any] = {}
    for metric in evaluation.metrics:
        estimate: Estimate | None = evaluation.estimates.get((metric, place), {}).get(arm)
        if estimate is not None:
            found[metric] = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "n": estimate.n}
    return found


def _refusals(evaluation: Evaluation, arm: str) -> dict[str, Any]:
    """Return how often an arm declined, and precision and recall of declining; null where undefined."""
    answerable = (question.answerable for question in evaluation.questions)
    counts = count_refusals(zip(evaluation.refused(arm), answerable, strict=True))
    return {
        "declined": counts.declined,
        "rightly": counts.rightly,
        "wrongly": counts.wrongly,
        "precision": counts.precision,
        "recall": counts.recall,
    }


def _costs(evaluation: Evaluation, times: Mapping[str, SetupTimes]) -> dict[str, dict[str, Any]]:
    """Return what every arm costs, the measured times behind it, and from where it is cheaper than others."""
    experiment = evaluation.experiment
    machine, training = experiment.machine_price, experiment.training_price
    costs, known = {}, {}
    for column, spec in enumerate(experiment.arms):
        known[spec.name] = times.get(spec.name, SetupTimes())
        costs[spec.name] = arm_cost(
            evaluation.predictions[spec.name],
            spec,
            float(np.nansum(evaluation.credit[:, column])),
            known[spec.name],
            machine_price=machine,
            currency=experiment.currency,
            training_price=training,
        )
    crossings = break_evens(costs)
    return {
        spec.name: {
            **_cost_row(costs[spec.name], known[spec.name], learning(spec, known[spec.name], machine, training)),
            "cheaper_from": crossings[spec.name],
        }
        for spec in experiment.arms
    }


def _cost_row(cost: ArmCost, setup: SetupTimes, fresh: Learning | None) -> dict[str, Any]:
    return {
        "per_question": cost.per_question,
        "total": cost.total,
        "setup": cost.setup,
        "per_correct": cost.per_correct,
        "currency": cost.currency,
        "training_seconds": setup.training_seconds,
        "indexing_seconds": setup.indexing_seconds,
        "update_seconds": setup.update_seconds,
        "update_documents": setup.update_documents,
        "hundred_documents": None
        if fresh is None
        else {"how": fresh.how, "seconds": fresh.seconds, "cost": fresh.cost},
    }
