"""What an arm costs: per question, to set up, per correct answer, and where one arm becomes cheaper than another.

Money is what an endpoint charges, or seconds times the machine's price; all in the experiment's currency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from comparison_app.experiment import ArmSpec, Experiment
from comparison_app.predictions import Prediction

NEW_DOCUMENTS = 100
"""How many new documents the cost of staying fresh is given for."""


@dataclass(frozen=True)
class SetupTimes:
    """Measured seconds before an arm can answer, and to take in the run's new documents. None: not measured.

    `update_documents` is the number of documents that `update_seconds` took in.
    """

    training_seconds: float | None = None
    indexing_seconds: float | None = None
    update_seconds: float | None = None
    update_documents: int | None = None


@dataclass(frozen=True)
class Learning:
    """What it takes an arm to know `NEW_DOCUMENTS` more documents: seconds and money, by "re-indexing" or "training".

    Re-indexing is scaled from the documents that the run took in; training is the whole training once more, as long as
    the last one was.
    """

    how: str
    seconds: float
    cost: float


@dataclass(frozen=True)
class ArmCost:
    """An arm's costs. `per_correct` is money per right answer (Erol et al. 2025, "Cost-of-Pass"); None if none is.

    `setup` is None where an arm needs training or an index and what that took is not known: not measured is not free.
    """

    per_question: float
    total: float
    setup: float | None
    per_correct: float | None
    currency: str


def setup_times(experiment: Experiment, record: Mapping[str, Any]) -> dict[str, SetupTimes]:
    """Return each arm's set-up times as `run.json` tells them.

    Read are `adapters` (adapter -> {"seconds"}), `indexing` ({"arms": arm -> seconds}) and `update` ({"arms",
    "documents"}, the re-indexing of new documents); what is not there was not measured. Runs made before each arm's
    index was timed by itself have "seconds" of all indexes together.
    """
    adapters, indexing, update = (record.get(key) or {} for key in ("adapters", "indexing", "update"))
    return {
        arm.name: SetupTimes(
            training_seconds=(adapters.get(arm.adapter) or {}).get("seconds"),
            indexing_seconds=_of_arm(indexing, arm),
            update_seconds=_of_arm(update, arm),
            update_documents=update.get("documents") if arm.retrieves else None,
        )
        for arm in experiment.arms
    }


def _of_arm(table: Mapping[str, Any], arm: ArmSpec) -> float | None:
    """Return the seconds that the index of `arm` took; None if it reads none, or that is not known."""
    if not arm.retrieves:
        return None
    return table["arms"].get(arm.name) if "arms" in table else table.get("seconds")


def question_cost(prediction: Prediction, spec: ArmSpec, machine_price: float) -> float:
    """Return what one answer cost: as the arm says, or tokens at the endpoint's price, or seconds at `machine_price`.

    `machine_price` is money per hour.
    """
    if prediction.cost is not None:
        return prediction.cost
    if spec.input_price is not None or spec.output_price is not None:
        read = (prediction.prompt_tokens or 0) * (spec.input_price or 0.0)
        written = (prediction.completion_tokens or 0) * (spec.output_price or 0.0)
        return (read + written) / 1e6
    return prediction.seconds * machine_price / 3600


def arm_cost(
    predictions: Sequence[Prediction],
    spec: ArmSpec,
    correct: float,
    setup: SetupTimes,
    *,
    machine_price: float,
    currency: str,
    training_price: float | None = None,
) -> ArmCost:
    """Add up an arm's costs; `correct` is the sum of its scores, so a half-right answer counts half.

    Prices are money per hour; training takes `machine_price` where `training_price` is None.
    """
    total = sum(question_cost(prediction, spec, machine_price) for prediction in predictions)
    return ArmCost(
        per_question=total / len(predictions) if predictions else 0.0,
        total=total,
        setup=_setup_cost(spec, setup, machine_price, machine_price if training_price is None else training_price),
        per_correct=total / correct if correct > 0 else None,
        currency=currency,
    )


def _setup_cost(spec: ArmSpec, setup: SetupTimes, machine_price: float, training_price: float) -> float | None:
    """Return the money for the training and the index that an arm needs; None if the time of one is not known."""
    parts = []
    if spec.adapter and not spec.endpoint:
        parts.append((setup.training_seconds, training_price))
    if spec.retrieves:
        parts.append((setup.indexing_seconds, machine_price))
    known = [seconds * price for seconds, price in parts if seconds is not None]
    return sum(known) / 3600 if len(known) == len(parts) else None


def break_even(one: ArmCost, other: ArmCost) -> int | None:
    """Return the number of questions from which `one` is the cheaper in all, set-up included.

    None if it never is, or a set-up is not known.
    """
    if one.setup is None or other.setup is None:
        return None
    gap = other.setup - one.setup
    if one.per_question >= other.per_question:
        return 0 if gap > 0 and one.per_question == other.per_question else None
    return max(0, ceil(-gap / (other.per_question - one.per_question)))


def break_evens(costs: Mapping[str, ArmCost]) -> dict[str, dict[str, int]]:
    """Return, for each arm that costs more to set up than others, from which question on it is cheaper than each."""
    found: dict[str, dict[str, int]] = {arm: {} for arm in costs}
    for one, first in costs.items():
        for other, second in costs.items():
            if one == other or first.setup is None or second.setup is None or first.setup <= second.setup:
                continue
            count = break_even(first, second)
            if count is not None:
                found[one][other] = count
    return found


def learning(spec: ArmSpec, setup: SetupTimes, machine_price: float, training_price: float | None) -> Learning | None:
    """Return what `NEW_DOCUMENTS` new documents cost an arm; None where that was not measured, or it never learns."""
    if spec.retrieves:
        if not setup.update_documents or setup.update_seconds is None:
            return None
        seconds = setup.update_seconds * NEW_DOCUMENTS / setup.update_documents
        return Learning("re-indexing", seconds, seconds * machine_price / 3600)
    if setup.training_seconds is None:
        return None
    price = machine_price if training_price is None else training_price
    return Learning("training", setup.training_seconds, setup.training_seconds * price / 3600)
