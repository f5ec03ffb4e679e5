"""Adapters that an experiment brings along: trained before its arms are asked, unless they are there already.

    [[training]]
    adapter = "directions-two"      # the name that arms use
    recipe = "pocket-live"
    wordings = 2                    # of each fact, at most; all of them where it is left out
    rewordings = 0                  # made-up wordings beside them (see finetune.rewording)
    max_seconds = 150               # the wall time that it may take
    leave_out_long = true           # train without questions that the model cannot hold

An adapter is trained again only if its recipe, its questions or its base model changed since.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from comparison_app.demo import KEY_FILE
from comparison_app.device_lock import only_training
from comparison_app.errors import ComparisonError, ExperimentError
from comparison_app.experiment import Experiment
from comparison_app.training import data_key, passages_for, training_questions
from comparison_app.workspace import Workspace
from data_prep.atomic import write_text
from data_prep.corpus import Corpus
from data_prep.errors import VersusError
from data_prep.questions import Question

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from finetune.config import Recipe
    from finetune.forgetting import MultipleChoice
    from finetune.training import TrainingStep

    LiveLoss = Callable[[str], AbstractContextManager[Callable[[TrainingStep], None]]]

GENERAL_CHECKS = ("fairfold-listings", "general-knowledge")
"""The corpus and the kind of its checks that tell what a training makes a model forget."""
_WHOLE = {"wordings": 1, "rewordings": 0, "seed": 0}


@dataclass(frozen=True)
class Training:
    """One adapter to be made, checked. What is None is as the recipe, or the experiment, says."""

    adapter: str
    recipe: str
    model: str | None = None
    subset: str | None = None
    wordings: int | None = None
    rewordings: int | None = None
    max_seconds: float | None = None
    seed: int | None = None
    leave_out_long: bool | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{key} must be a non-empty string"
            for key in ("adapter", "recipe", "model", "subset")
            if not ((value := getattr(self, key)) is None and key not in ("adapter", "recipe"))
            and not (isinstance(value, str) and value.strip())
        ]
        for key, least in _WHOLE.items():
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                problems.append(f"{key} must be a whole number of at least {least}")
        seconds = self.max_seconds
        if seconds is not None and (not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds <= 0):
            problems.append("max_seconds must be a number above 0")
        if self.leave_out_long not in (None, True, False):
            problems.append("leave_out_long must be true or false")
        if problems:
            raise ExperimentError(f"[[training]] {self.adapter}: {'; '.join(problems)}")


def trainings_of(experiment: Experiment) -> list[Training]:
    """Return the adapters that an experiment brings along; raises `ExperimentError` for a mistake in a table."""
    known = {item.name for item in fields(Training)}
    found = []
    for number, table in enumerate(experiment.training, start=1):
        place = f"[[training]] {table.get('adapter') or number}"
        unknown = sorted(set(table) - known)
        missing = [key for key in ("adapter", "recipe") if key not in table]
        if unknown or missing:
            problems = [f"unknown key {key}" for key in unknown] + [f"{key} is missing" for key in missing]
            raise ExperimentError(f"{place}: {'; '.join(problems)}; allowed are {', '.join(sorted(known))}")
        found.append(Training(**table))
    names = [training.adapter for training in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ExperimentError(f"[[training]]: {', '.join(twice)} is declared twice")
    return found


def prepare_adapters(
    experiment: Experiment,
    corpus: Corpus,
    workspace: Workspace,
    live_loss: LiveLoss,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Train the adapters that an experiment brings along; those made from the same are used again."""
    from finetune.config import load_recipe
    from finetune.models import base_fingerprint

    for training in trainings_of(experiment):
        recipe = fitted_recipe(load_recipe(training.recipe), training, corpus)
        questions = questions_for(training, experiment, corpus)
        key = data_key(recipe, questions, base_fingerprint(recipe.model.name))
        folder = workspace.adapters / training.adapter
        if made_from(folder) == key:
            say(f"adapter {training.adapter} is as it was: used again")
            continue
        say(f"training {training.adapter} by recipe {training.recipe} on {len(questions)} questions")
        with live_loss(f"  {training.adapter}") as on_step:
            _train(recipe, questions, corpus, workspace, folder, on_step)
        write_text(folder / KEY_FILE, json.dumps({"key": key}) + "\n")


def fitted_recipe(recipe: Recipe, training: Training, corpus: Corpus) -> Recipe:
    """Return `recipe` with what an experiment's table changes in it."""
    data: dict[str, Any] = {"language": corpus.language}
    optimisation: dict[str, Any] = {}
    if training.rewordings is not None:
        data["rewordings"] = training.rewordings
    if training.leave_out_long is not None:
        data["leave_out_long"] = training.leave_out_long
    if training.max_seconds is not None:
        optimisation["max_seconds"] = training.max_seconds
    if training.seed is not None:
        optimisation["seed"] = training.seed
    model = recipe.model if training.model is None else replace(recipe.model, name=training.model)
    return replace(
        recipe,
        data=replace(recipe.data, **data),
        optimisation=replace(recipe.optimisation, **optimisation),
        model=model,
    )


def questions_for(training: Training, experiment: Experiment, corpus: Corpus) -> list[Question]:
    """Return what an adapter is trained on: its subset's questions, at most so many wordings of each fact."""
    questions = training_questions(corpus, training.subset or experiment.subset)
    return questions if training.wordings is None else first_wordings(questions, training.wordings)


def first_wordings(questions: Sequence[Question], count: int) -> list[Question]:
    """Return at most `count` questions of each fact, those of the lowest ids, in the order of `questions`."""
    of_fact: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        of_fact[question.fact or question.id].append(question.id)
    kept = {name for names in of_fact.values() for name in sorted(names)[:count]}
    return [question for question in questions if question.id in kept]


def general_checks(workspace: Workspace, language: str = "en") -> list[MultipleChoice]:
    """Return general multiple-choice questions in `language`; none if the corpus that holds them is not there."""
    from finetune.forgetting import read_multiple_choice

    name, kind = GENERAL_CHECKS
    try:
        path = workspace.corpus(name).path / "checks.jsonl"
        return read_multiple_choice(path, kind=kind, language=language)
    except (VersusError, OSError, ValueError):
        return []


def _train(
    recipe: Recipe,
    questions: Sequence[Question],
    corpus: Corpus,
    workspace: Workspace,
    folder: Path,
    on_step: Callable[[TrainingStep], None],
) -> None:
    from finetune.models import default_device
    from finetune.training import taught_questions, train_adapter

    if not questions:
        raise ComparisonError(f"there are no questions to train {folder.name} on")
    shown = taught_questions(questions, recipe)
    with only_training(workspace, default_device(), folder.name):
        train_adapter(
            recipe,
            questions,
            folder,
            on_step=on_step,
            resume="if same",
            passages=passages_for(recipe, shown, corpus, workspace) if recipe.data.context else None,
            general=general_checks(workspace, corpus.language),
        )


def made_from(folder: Path) -> str | None:
    """Return what an adapter was made from; None if it is not whole."""
    try:
        key = json.loads((folder / KEY_FILE).read_text(encoding="utf-8")).get("key")
    except (OSError, ValueError, AttributeError):
        return None
    return str(key) if (folder / "run_record.json").is_file() else None
