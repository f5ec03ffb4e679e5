"""Before a run: which of the adapters that an experiment brings along will be trained, how long, and at what cost.

Seconds are those of an adapter of the same recipe and base model in the workspace, scaled by questions and epochs; at
most what the experiment or the recipe allows. Without such an adapter only that limit is known, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comparison_app.experiment import Experiment
from comparison_app.preparing import Training, fitted_recipe, made_from, questions_for, trainings_of
from comparison_app.training import data_key
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus
from data_prep.errors import VersusError

if TYPE_CHECKING:
    from finetune.config import Recipe
    from finetune.run_record import RunRecord


@dataclass(frozen=True)
class PlannedTraining:
    """An adapter of an experiment: whether the run will train it, and what that takes; None where nothing tells.

    `source`: the adapter whose rate is taken, "limit, at most", "there already", or "none".
    """

    adapter: str
    recipe: str
    model: str
    questions: int
    needed: bool
    seconds: float | None
    cost: float | None
    source: str


def plan_trainings(experiment: Experiment, corpus: Corpus, workspace: Workspace) -> tuple[PlannedTraining, ...]:
    """Return what each adapter of the experiment's `[[training]]` tables will take; nothing is trained or written."""
    found = trainings_of(experiment)
    records = _records(workspace) if found else []
    return tuple(_planned(training, experiment, corpus, workspace, records) for training in found)


def _planned(
    training: Training, experiment: Experiment, corpus: Corpus, workspace: Workspace, records: Sequence[RunRecord]
) -> PlannedTraining:
    from finetune.config import load_recipe

    recipe = fitted_recipe(load_recipe(training.recipe), training, corpus)
    count = len(questions := questions_for(training, experiment, corpus))
    made = made_from(workspace.adapters / training.adapter)
    if made is not None and made == data_key(recipe, questions, _fingerprint(recipe)):
        return PlannedTraining(
            training.adapter, training.recipe, recipe.model.name, count, False, 0.0, 0.0, "there already"
        )
    seconds, source = _seconds(recipe, count, records)
    price = experiment.machine_price if experiment.training_price is None else experiment.training_price
    cost = None if seconds is None else seconds * price / 3600
    return PlannedTraining(training.adapter, training.recipe, recipe.model.name, count, True, seconds, cost, source)


def _fingerprint(recipe: Recipe) -> str:
    from finetune.models import base_fingerprint

    return base_fingerprint(recipe.model.name)


def _records(workspace: Workspace) -> list[RunRecord]:
    """Return the records of the workspace's adapters, newest first; damaged ones are left out."""
    from finetune.run_record import read_run_record

    found = []
    for name in workspace.adapter_names():
        try:
            found.append(read_run_record(workspace.adapter(name)))
        except VersusError:
            continue
    return sorted(found, key=lambda record: record.finished, reverse=True)


def _seconds(recipe: Recipe, questions: int, records: Sequence[RunRecord]) -> tuple[float | None, str]:
    """Return how long a training will take, and what tells it."""
    limit, epochs = recipe.optimisation.max_seconds, recipe.optimisation.epochs
    for record in records:
        seen = len(record.trained_ids) * record.epochs
        if epochs is None or not seen or record.recipe.get("name") != recipe.name:
            continue
        if record.base_model == recipe.model.name:
            seconds = record.seconds * questions * epochs / seen
            return (seconds if limit is None else min(limit, seconds)), f"an earlier training by {recipe.name}"
    return (limit, "limit, at most") if limit is not None else (None, "none")
