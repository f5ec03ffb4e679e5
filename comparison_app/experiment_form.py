"""An experiment put together in a form: its TOML, the subset its adapters were trained on, what it will take."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from comparison_app.errors import ComparisonError
from comparison_app.experiment import ArmSpec, Experiment, load_experiment
from comparison_app.planning import planned_arms
from comparison_app.summary import read_summary
from comparison_app.workspace import Workspace, training_name
from data_prep.atomic import write_text
from data_prep.corpus import Corpus
from data_prep.errors import VersusError
from data_prep.questions import SLICES

UNMEASURED = ("assumed", "none", "prices, at most")
"""Where the plan has an arm's figures from when no run of it tells them."""


@dataclass(frozen=True)
class Estimate:
    """What a comparison will take. `seconds` and `cost` are those of the arms for which they are known.

    `untimed` and `unpriced` name the other arms, `assumed` those whose seconds no run tells; `at_most`: the tokens of
    some endpoint are not measured here, so the most that retrieval and the limit on answers allow was priced.
    """

    questions: int
    arms: int
    seconds: float
    cost: float
    currency: str = "USD"
    untimed: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    at_most: bool = False

    def in_words(self, label: Callable[[str], str] = str) -> str:
        """Return the estimate as a line to read, each arm by what `label` makes of its name."""

        def named(arms: Sequence[str]) -> str:
            return ", ".join(map(label, arms))

        told = f"{self.questions} questions to {self.arms} arms: {self.questions * self.arms} answers"
        if len(self.untimed) < self.arms:
            told += f"; about {self.seconds:.0f} s"
            told += f" (assumed for {named(self.assumed)})" if self.assumed else " by earlier runs"
            told += f", without {named(self.untimed)}: not run here yet" if self.untimed else ""
        else:
            told += "; how long they take is not known yet, nothing like it was run here"
        if len(self.unpriced) < self.arms:
            told += f"; {'at most' if self.at_most else 'about'} {self.cost:.4f} {self.currency}"
            told += f", without {named(self.unpriced)}" if self.unpriced else ""
        return f"{told}."


def slice_counts(corpus: Corpus) -> dict[str, int]:
    """Return how many test questions each slice has, the slices in their usual order, those without any left out."""
    counts = Counter(question.slice for question in corpus.questions("test"))
    return {name: counts[name] for name in SLICES if counts[name]}


def write_experiment(
    workspace: Workspace,
    name: str,
    corpus: Corpus,
    arms: Sequence[ArmSpec],
    sample: Mapping[str, int],
    metric: str = "token_f1",
) -> Path:
    """Write an experiment's file into the workspace and return its path; raises `VersusError` for what is wrong."""
    name = training_name(name)
    if not arms or not any(sample.values()):
        raise ComparisonError("choose at least one arm, and at least one slice with questions")
    lines = [
        f"name = {json.dumps(name)}",
        f"corpus = {json.dumps(_corpus_name(workspace, corpus))}",
        f"primary_metric = {json.dumps(metric)}",
        f"new_documents = {json.dumps(sample.get('new-document', 0) > 0)}",
    ]
    subset = subset_of(workspace, corpus, [arm.adapter for arm in arms if arm.adapter])
    lines += [f"subset = {json.dumps(subset)}"] if subset else []
    lines += ["", "[sample]", *(f"{place} = {count}" for place, count in sample.items() if count)]
    for arm in arms:
        lines += ["", "[[arms]]", *_arm_lines(arm)]
    path = workspace.path / "experiments" / f"{name}.toml"
    write_text(path, "\n".join(lines) + "\n")
    load_experiment(path)
    return path


def subset_of(workspace: Workspace, corpus: Corpus, adapters: Sequence[str]) -> str | None:
    """Return the nested subset whose facts all these adapters were trained on; None for all facts, or no adapter."""
    from finetune.run_record import read_run_record

    names = corpus.subset_names()
    if not adapters or not names:
        return None
    facts = {question.id: question.fact for question in corpus.questions("train")}
    trained = [
        {facts[name] for name in read_run_record(workspace.adapter(adapter)).trained_ids if facts.get(name)}
        for adapter in dict.fromkeys(adapters)
    ]
    for name in names:
        if all(known == set(corpus.subset(name)) for known in trained):
            return name
    return None


def estimate(workspace: Workspace, arms: Sequence[ArmSpec], count: int, currency: str = "USD") -> Estimate:
    """Estimate what `count` questions take, as `versus compare --plan` does: by earlier runs, and endpoints' prices.

    Where an arm was not run, one of its kind and model stands for it.
    """
    experiment = Experiment("form", "form", tuple(arms), (), currency=currency)
    planned = {item.arm: item for item in planned_arms(experiment, count, workspace.runs)}
    known = _measured(workspace)
    assumed: list[str] = []
    seconds: dict[str, float | None] = {}
    cost: dict[str, float | None] = {}
    for arm in arms:
        plan = planned[arm.name]
        like = known.get((arm.kind == "rag-extractive", arm.generator)) if plan.source in UNMEASURED else None
        seconds[arm.name] = plan.seconds if like is None else like[0] * count
        cost[arm.name] = like[1] * count if like is not None and plan.source != "prices, at most" else plan.cost
        assumed += [arm.name] if like is None and plan.source == "assumed" else []
    return Estimate(
        count,
        len(arms),
        sum(item for item in seconds.values() if item is not None),
        sum(item for item in cost.values() if item is not None),
        currency,
        tuple(name for name, item in seconds.items() if item is None),
        tuple(name for name, item in cost.items() if item is None),
        tuple(assumed),
        any(item.source.endswith("at most") and item.cost is not None for item in planned.values()),
    )


def _measured(workspace: Workspace) -> dict[tuple[bool, str], tuple[float, float]]:
    """Return seconds and cost per answer by generator, those of quoting apart; the newest run counts."""
    known: dict[tuple[bool, str], tuple[float, float]] = {}
    for path in sorted(workspace.runs.glob("*/summary.json"), key=lambda item: item.stat().st_mtime):
        try:
            summary = read_summary(path)
            for name, arm in summary["arms"].items():
                found = (float(arm["latency"]["p50"]), float(arm["cost"]["per_question"]))
                known[name == "rag-extractive", arm["generator"]] = found
        except (VersusError, KeyError, TypeError):
            continue
    return known


def _corpus_name(workspace: Workspace, corpus: Corpus) -> str:
    """Return a corpus's name where it is found by it, else its path."""
    try:
        found = workspace.corpus(corpus.name).path.resolve() == corpus.path.resolve()
    except VersusError:
        found = False
    return corpus.name if found else str(corpus.path.resolve())


def _arm_lines(arm: ArmSpec) -> list[str]:
    """Return the TOML lines of one arm: what differs from the defaults."""
    lines = []
    for item in fields(ArmSpec):
        value: Any = getattr(arm, item.name)
        if value is None or value in ((), {}) or (item.name == "model" and arm.kind == "rag-extractive"):
            continue
        if isinstance(value, Mapping):
            pairs = ", ".join(f"{key} = {json.dumps(inner)}" for key, inner in value.items())
            lines.append(f"{item.name} = {{ {pairs} }}")
        elif (isinstance(value, str | bool | int | float) and value != item.default) or item.name == "model":
            lines.append(f"{item.name} = {json.dumps(value)}")
    return lines
