"""What an export is told and measured with: how a model answers and how fast, and the scores of a run for its card."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comparison_app.errors import ComparisonError
from comparison_app.experiment import load_experiment
from comparison_app.metrics.overlap import token_f1
from comparison_app.summary import read_summary
from comparison_app.workspace import Workspace
from data_prep.corpus import SPLITS, Corpus
from data_prep.questions import Question

if TYPE_CHECKING:
    from finetune.model_card import Score

CARD_METRICS = ("token_f1", "exact_match", "abstention_accuracy")


@dataclass(frozen=True)
class AnswerFigures:
    """How a model answered questions closed-book: batched greedy answers, reading the prompts included."""

    questions: int
    token_f1: float
    tokens_per_second: float
    """Answer tokens a second of wall time."""
    seconds: float
    memory_bytes: int
    """Of the weights in memory."""


def measure_answers(
    model: str, questions: Sequence[Question], adapter: Path | None = None, *, fold: bool | None = None
) -> AnswerFigures:
    """Ask a local model, with an adapter or as it is, and hold the answers against the gold ones.

    `model` is `pocket`, a folder or a cached id; `fold=False` leaves the adapter beside a small base too. A first batch
    is asked unmeasured, to have everything loaded.
    """
    from finetune.answering import FinetunedAnswerer, LocalModel

    local = LocalModel(model, fold=fold)
    if adapter is not None:
        local.add_adapter("measured", adapter)
    answerer = FinetunedAnswerer(local.generator(None if adapter is None else "measured"))
    asked = [question.question for question in questions]
    answerer.answer(asked[:2])
    started = time.perf_counter()
    answers = answerer.answer(asked)
    seconds = time.perf_counter() - started
    tokens = sum(int(answer.meta["completion_tokens"] or 0) for answer in answers)
    scores = [token_f1(answer.data, question.answers) for answer, question in zip(answers, questions, strict=True)]
    return AnswerFigures(len(asked), sum(scores) / len(scores), tokens / seconds, seconds, local.memory_bytes)


def trained_questions(corpus: Corpus, trained_ids: Sequence[str], count: int) -> list[Question]:
    """Return up to `count` of the corpus's answerable questions that were trained, evenly spread; none if it has none.

    They are what an export can lose: on other questions a model that answers from memory has little to lose.
    """
    ids = set(trained_ids)
    known = [q for split in SPLITS for q in corpus.questions(split) if q.id in ids and q.answers]
    step = max(1, len(known) // count) if count else 1
    return known[::step][:count]


def card_scores(workspace: Workspace, run: str, adapter: str) -> list[Score]:
    """Return the scores that arms with `adapter` reached in a run, by slice; raises ComparisonError if it had none.

    The run's record must name these very weights, by hash.
    """
    from finetune.adapters import WEIGHTS
    from finetune.model_card import Score

    folder = workspace.run(run)
    summary = read_summary(folder / "summary.json")
    arms = [arm.name for arm in load_experiment(folder / "experiment.toml").arms if arm.adapter == adapter]
    found = [arm for arm in arms if arm in summary["arms"]]
    if not found:
        raise ComparisonError(f"{folder}: no arm of this run used adapter {adapter}")
    recorded = (summary["environment"].get("adapters") or {}).get(adapter, {}).get("weights_sha256")
    actual = hashlib.sha256((workspace.adapter(adapter) / WEIGHTS).read_bytes()).hexdigest()
    if recorded != actual:
        raise ComparisonError(
            f"{folder}: the run asked another version of adapter {adapter} (weights {str(recorded)[:12]}, now "
            f"{actual[:12]}): run the experiment again"
        )
    label = len(found) > 1
    return [
        Score(f"{slice_} ({arm})" if label else slice_, metric, m["mean"], m.get("low"), m.get("high"), m["n"])
        for arm in found
        for slice_, measures in summary["arms"][arm]["slices"].items()
        for metric, m in measures.items()
        if metric in CARD_METRICS
    ]
