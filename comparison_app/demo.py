"""The whole job on the sample corpus: train live, ask all six arms, report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from comparison_app.comparison import Comparison, Hooks
from comparison_app.experiment import find_experiment
from comparison_app.training import data_key, train_on_corpus, training_questions
from comparison_app.workspace import Workspace
from data_prep.atomic import write_text
from data_prep.corpus import SAMPLE_CORPUS, Corpus

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from finetune.training import TrainingStep

LiveLoss = Callable[[str], "AbstractContextManager[Callable[[TrainingStep], None]]"]
KEY_FILE = "made_from.json"


@dataclass(frozen=True, slots=True)
class DemoAdapter:
    """An adapter of the demo: its name, its recipe, and the subset of the facts that it is trained on."""

    name: str
    recipe: str
    subset: str | None = None


LIVE = DemoAdapter("tern-live", "pocket-live", subset="60")
BUNDLED = (DemoAdapter("tern-full", "pocket"), DemoAdapter("tern-raft", "pocket-raft"))


def run_demo(
    workspace: Workspace,
    *,
    train_all: bool,
    live_loss: LiveLoss,
    hooks: Hooks,
    live_seconds: float | None = None,
) -> Path:
    """Run the demo and return the run's folder; whatever has not changed since the last time is used again.

    `live_seconds` shortens or lengthens the live training; None leaves the recipe's own time.
    """
    corpus = workspace.corpus(SAMPLE_CORPUS)
    _train(LIVE, corpus, workspace, live_loss, hooks, live_seconds)
    for adapter in BUNDLED if train_all else ():
        _train(adapter, corpus, workspace, live_loss, hooks)
    comparison = Comparison.prepare(find_experiment("manual-demo"), workspace)
    return comparison.run(_run_name(comparison), resume=True, hooks=hooks)


def _train(
    adapter: DemoAdapter,
    corpus: Corpus,
    workspace: Workspace,
    live_loss: LiveLoss,
    hooks: Hooks,
    seconds: float | None = None,
) -> None:
    """Train one adapter, unless it was trained before from the same recipe, questions and base model."""
    from finetune.config import load_recipe
    from finetune.models import base_fingerprint

    recipe = load_recipe(adapter.recipe)
    if seconds is not None:
        recipe = replace(recipe, optimisation=replace(recipe.optimisation, max_seconds=seconds))
    folder = workspace.adapters / adapter.name
    key = data_key(recipe, training_questions(corpus, adapter.subset), base_fingerprint(recipe.model.name))
    if _made_from(folder) == key:
        hooks.stage(f"adapter {adapter.name} is as it was: used again")
        return
    hooks.stage(f"training {adapter.name} by recipe {adapter.recipe}")
    with live_loss(f"  {adapter.name}") as on_step:
        train_on_corpus(
            recipe, corpus, workspace, adapter.name, subset=adapter.subset, resume="if same", on_step=on_step
        )
    write_text(folder / KEY_FILE, json.dumps({"key": key}) + "\n")


def _made_from(folder: Path) -> str | None:
    path = folder / KEY_FILE
    return str(json.loads(path.read_text(encoding="utf-8")).get("key")) if path.exists() else None


def _run_name(comparison: Comparison) -> str:
    """Name the run by all that its answers depend on: the same demo finds its own run again."""
    digest = hashlib.sha256(comparison.path.read_bytes())
    digest.update(comparison.corpus.fingerprint(include_new=True).encode())
    digest.update(json.dumps([question.id for question in comparison.questions]).encode())
    for spec in comparison.experiment.arms:
        if spec.adapter:
            folder = comparison.workspace.adapter(spec.adapter)
            digest.update((folder / "adapter_model.safetensors").read_bytes())
    return f"demo-{digest.hexdigest()[:8]}"
