"""An experiment put together in a form: its TOML, the subset its adapters were trained on, what it will take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from comparison_app.errors import ComparisonError
from comparison_app.experiment import ArmSpec, load_experiment
from comparison_app.jobs import training_name
from comparison_app.summary import read_summary
from comparison_app.workspace import Workspace
from data_prep.atomic import write_text
from data_prep.corpus import Corpus
from data_prep.errors import VersusError


@dataclass(frozen=True)
class Estimate:
    """What a comparison will take: answers, seconds and money; None where nothing like it was measured here."""

    answers: int
    seconds: float | None
    cost: float | None
    currency: str = "USD"


def slice_counts(corpus: Corpus) -> dict[str, int]:
    """Return how many test questions each slice has."""
    counts: dict[str, int] = {}
    for question in corpus.questions("test"):
        if question.slice is not None:
            counts[question.slice] = counts.get(question.slice, 0) + 1
    return counts


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

    path = corpus.path / "questions" / "subsets.json"
    if not adapters or not path.exists():
        return None
    facts = {question.id: question.fact for question in corpus.questions("train")}
    trained = [
        {facts[name] for name in read_run_record(workspace.adapter(adapter)).trained_ids if facts.get(name)}
        for adapter in dict.fromkeys(adapters)
    ]
    for name in json.loads(path.read_text(encoding="utf-8")):
        if all(known == set(corpus.subset(name)) for known in trained):
            return str(name)
    return None


def estimate(workspace: Workspace, arms: Sequence[ArmSpec], questions: int) -> Estimate:
    """Estimate from the runs of this workspace: each arm takes what an arm of its kind and model took there."""
    seconds, cost, currency = 0.0, 0.0, "USD"
    known = _measured(workspace)
    complete = True
    for arm in arms:
        found = known.get((arm.kind == "rag-extractive", arm.generator)) or known.get((False, arm.name))
        if found is None:
            complete = False
        else:
            seconds += found[0] * questions
            cost += found[1] * questions
            currency = found[2]
    answers = len(arms) * questions
    return Estimate(answers, seconds, cost, currency) if complete else Estimate(answers, None, None)


def _measured(workspace: Workspace) -> dict[tuple[bool, str], tuple[float, float, str]]:
    """Return seconds and cost per answer by generator and by arm, newest run last."""
    known: dict[tuple[bool, str], tuple[float, float, str]] = {}
    for path in sorted(workspace.runs.glob("*/summary.json"), key=lambda item: item.stat().st_mtime):
        try:
            summary = read_summary(path)
            for name, arm in summary["arms"].items():
                cost = arm["cost"]
                found = (float(arm["latency"]["p50"]), float(cost["per_question"]), str(cost["currency"]))
                known[name == "rag-extractive", arm["generator"]] = known[False, name] = found
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
