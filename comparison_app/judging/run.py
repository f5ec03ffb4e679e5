"""A run judged: its answers read, the judge asked, what it said kept in the run's folder and put into the summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.errors import ComparisonError
from comparison_app.evaluation import Evaluation, align
from comparison_app.experiment import Experiment
from comparison_app.judging.agreement import read_opinions
from comparison_app.judging.asking import Asker, ChatModel, as_chat_model, open_judge
from comparison_app.judging.cache import ReplyCache
from comparison_app.judging.diagnostics import judge_summary
from comparison_app.judging.judge import Judge, Progress
from comparison_app.judging.record import JudgeRecord, read_judge, write_judge
from comparison_app.judging.settings import JudgeSettings
from comparison_app.metrics.scoring import DocumentTexts
from comparison_app.predictions import Prediction
from comparison_app.runner import Run
from data_prep.conversations import refusal
from data_prep.corpus import Corpus
from data_prep.questions import Question

if TYPE_CHECKING:
    from haystack.dataclasses import ChatMessage

CACHE = "judge.sqlite"
"""The file of a workspace that keeps judges' replies."""
VOTES = "votes.sqlite"


def judge_run(
    run: Run,
    corpus: Corpus,
    settings: JudgeSettings,
    cache: Path,
    *,
    model: ChatModel | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Progress | None = None,
) -> JudgeRecord:
    """Have a run's answers judged, and write `judge.json` into its folder.

    `cache` keeps the replies; `model` is asked in place of the one that `settings` name. `say` hears the estimate
    before anything is asked. Raises `VersusError` if the judge cannot be loaded or its key is missing.
    """
    opened, identity = (as_chat_model(model), {}) if model is not None else open_judge(settings)
    asker = Asker(opened, settings, ReplyCache(cache), run.experiment.machine_price, identity)
    questions = run.questions()
    predictions, _ = align(run.experiment, questions, run.predictions())
    judge = Judge(run.experiment, questions, predictions, DocumentTexts.of(corpus), asker)
    say(estimate_in_words(settings, judge.estimate(), run.experiment.currency))
    record = judge.judge(progress)
    write_judge(run.folder, record)
    return record


def planned_judge(
    experiment: Experiment, questions: Sequence[Question], corpus: Corpus, settings: JudgeSettings, cache: Path
) -> dict[str, Any]:
    """Say what judging will cost at most before there are answers: they are taken to be as the expected ones."""
    made = {
        spec.name: [
            Prediction(question.id, spec.name, f"{(question.answers or (refusal(corpus.language),))[0]} {spec.name}")
            for question in questions
        ]
        for spec in experiment.arms
    }
    asker = Asker(_Unasked(), settings, ReplyCache(cache))
    return dict(Judge(experiment, questions, made, DocumentTexts.of(corpus), asker).estimate())


class _Unasked:
    """Stands where a judge's model would, when nothing is to be asked."""

    def generate(self, conversations: Sequence[list[ChatMessage]]) -> list[ChatMessage]:
        """Refuse."""
        raise ComparisonError("a plan asks nothing")


def judged_part(folder: Path, evaluation: Evaluation) -> dict[str, Any] | None:
    """Return the part "judge" of a run's summary; None if no judge was asked.

    People's votes are those of the workspace that the run's folder lies in.
    """
    record = read_judge(folder)
    if record is None:
        return None
    return judge_summary(record, evaluation, read_opinions(folder.parent.parent / VOTES))


def estimate_in_words(settings: JudgeSettings, estimate: dict[str, Any], currency: str) -> str:
    """Say what a judge is going to cost."""
    text = (
        f"the judge {settings.name}: {estimate['calls']:,} calls ({estimate['cached']:,} known already), about "
        f"{estimate['prompt_tokens']:,} prompt tokens"
    )
    if estimate["money"] is not None:
        text += f", at most {estimate['money']:.2g} {currency}"
    elif not settings.endpoint:
        text += ", at this machine's hourly price: the first reply tells what one takes"
    if settings.budget is not None:
        text += f"; the budget is {settings.budget:g} {currency}"
    return text
