"""A comparison from beginning to end: index, ask, take in the new documents, ask again, score, report.

Its questions' slices are recomputed from the run records of the adapters that take part; a label that disagrees with
what an adapter was trained on stops the run before anything is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.arms import ArmFactory
from comparison_app.console import Progress
from comparison_app.directions import directions, forgetting_rows
from comparison_app.errors import ComparisonError
from comparison_app.evaluation import Evaluation, evaluate
from comparison_app.experiment import Experiment, draw_sample, load_experiment
from comparison_app.index_times import ArmIndexes, updated
from comparison_app.judging.run import CACHE, judge_run, judged_part
from comparison_app.judging.settings import JudgeSettings
from comparison_app.metrics.scoring import DocumentTexts
from comparison_app.provenance import provenance
from comparison_app.replies import ReplyJournal
from comparison_app.runner import Run, RunProgress, open_run, read_record, read_run
from comparison_app.workspace import Workspace
from data_prep.atomic import write_text
from data_prep.corpus import SPLITS, Corpus
from data_prep.errors import VersusError
from data_prep.questions import Question
from data_prep.splits import assign_slices, check_slices

if TYPE_CHECKING:
    from comparison_app.regression import Comparison as RunChanges


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to hear while a comparison runs; the defaults say nothing."""

    stage: Callable[[str], None] = field(default=lambda text: None)
    indexing: Progress | None = None
    asking: Callable[[RunProgress], None] | None = None
    judging: Progress | None = None


@dataclass(frozen=True)
class Comparison:
    """An experiment with its corpus and the questions it will ask, checked against the adapters."""

    experiment: Experiment
    path: Path
    workspace: Workspace
    corpus: Corpus
    questions: tuple[Question, ...]

    @classmethod
    def prepare(cls, path: Path, workspace: Workspace, *, planned: Collection[str] = ()) -> Comparison:
        """Read an experiment and draw its questions; raises `VersusError` for anything that cannot be run.

        `planned`: adapters that are not there yet, or will be trained anew: nothing can be checked of them.
        """
        experiment = load_experiment(path)
        corpus = workspace.corpus(experiment.corpus)
        adapters = {
            spec.adapter: _training_of(spec.adapter, corpus, workspace)
            for spec in experiment.arms
            if spec.adapter and spec.adapter not in planned
        }
        questions = questions_of(experiment, corpus)
        for trained in adapters.values():
            questions = trained.askable(questions, corpus.new_document_ids())
        asked = draw_sample(experiment, questions)
        for name, trained in adapters.items():
            check_slices(asked, trained.slices(asked, corpus.new_document_ids()), f"adapter {name}")
        return cls(experiment, path, workspace, corpus, tuple(asked))

    def run(
        self,
        name: str,
        *,
        resume: bool = False,
        hooks: Hooks | None = None,
        judge: JudgeSettings | None = None,
        ray: str | None = None,
    ) -> Path:
        """Ask all arms, have their answers judged if a judge is given, write the run folder, and return it.

        `ray`: the address of a cluster over which the arms of this machine are spread.
        """
        hooks = hooks or Hooks()
        folder = self.workspace.runs / name
        known = provenance(self.experiment, self.corpus, self.workspace)
        run = open_run(folder, self.path, self.questions, resume=resume, provenance=known)
        first = [question for question in self.questions if question.slice != "new-document"]
        later = [question for question in self.questions if question.slice == "new-document"]
        self._phase(run, first, include_new=False, hooks=hooks, ray=ray)
        if later:
            self._phase(run, later, include_new=True, hooks=hooks, ray=ray)
        self._time(run, first or later, hooks)
        run.settle()
        if "finished" not in read_record(folder):
            run.note(finished=datetime.now(UTC).isoformat(timespec="seconds"))
        if judge is not None:
            cache = self.workspace.path / CACHE
            judge_run(run, self.corpus, judge, cache, say=hooks.stage, progress=hooks.judging)
        hooks.stage("scoring and writing the report")
        write_results(run, self.corpus)
        return folder

    def _phase(
        self, run: Run, questions: Sequence[Question], *, include_new: bool, hooks: Hooks, ray: str | None
    ) -> None:
        """Bring the indexes up to date and ask every arm what it was not asked yet."""
        if not any(run.open_questions(spec.name, questions) for spec in self.experiment.arms):
            return
        hooks.stage("taking in the new documents" if include_new else f"indexing {self.corpus.name}")
        indexes = ArmIndexes(self.workspace, self.corpus, self.experiment.arms)
        work = indexes.update(include_new=include_new, progress=hooks.indexing)
        if not include_new:
            run.note(indexing=indexes.building())
        elif noted := updated(read_record(run.folder).get("update"), work, len(self.corpus.new_document_ids())):
            run.note(update=noted)
        hooks.stage(f"asking {len(questions)} questions of {len(self.experiment.arms)} arms")
        if ray is not None:
            self._spread(run, questions, ray, hooks)
        factory = self._factory(run)
        size = self.experiment.batch_size
        open_ = [spec for spec in self.experiment.arms if run.open_questions(spec.name, questions)]
        run.ask([factory.build(spec, size) for spec in open_], questions, hooks.asking)
        if not include_new:
            self._time(run, questions, hooks, factory)
        self._note_abstention(run, factory)

    def _note_abstention(self, run: Run, factory: ArmFactory) -> None:
        """Note when each arm declines, as it was calibrated before the first questions."""
        noted = read_record(run.folder).get("abstention") or {}
        found = {arm: calibration.as_dict() for arm, calibration in factory.calibrations.items()}
        if found.keys() - noted.keys():
            run.note(abstention={**found, **noted})

    def _time(self, run: Run, questions: Sequence[Question], hooks: Hooks, factory: ArmFactory | None = None) -> None:
        """Time single questions of every arm that was not timed yet, whoever answered for it and whenever."""
        missing = [spec for spec in self.experiment.arms if spec.name in run.untimed()]
        if not missing:
            return
        hooks.stage("timing single questions")
        factory = factory or self._factory(run)
        for spec in missing:
            try:
                system = factory.build(spec, self.experiment.batch_size)
            except VersusError as error:  # all is answered: what cannot be timed any more costs its time alone
                hooks.stage(f"{spec.name} is not timed: {error}")
                continue
            run.probe([system], questions)

    def _spread(self, run: Run, questions: Sequence[Question], address: str, hooks: Hooks) -> None:
        """Have a Ray cluster answer for the arms of this machine; what it leaves open is asked here."""
        from comparison_app.spread import RayPool

        here = [spec for spec in self.experiment.arms if not spec.endpoint and run.open_questions(spec.name, questions)]
        if here:
            size = self.experiment.batch_size
            with RayPool(address, self.workspace.path, self.corpus.path, here, size) as pool:
                run.ask_spread(pool, [spec.name for spec in here], questions, hooks.asking)

    def _factory(self, run: Run) -> ArmFactory:
        """Return what builds the run's arms; replies of endpoints are kept in its folder."""
        replies = ReplyJournal(run.folder / "replies.jsonl" if self._remote else None)
        return ArmFactory(self.workspace, self.corpus, replies=replies)

    @property
    def _remote(self) -> bool:
        """Whether any arm answers through an endpoint."""
        return any(spec.endpoint for spec in self.experiment.arms)


def questions_of(experiment: Experiment, corpus: Corpus) -> list[Question]:
    """Return the test questions that an experiment may ask: all, or those whose slice holds for its subset.

    With a subset, a question counts as trained or paraphrase only if its fact is of the subset, and as trained-page
    only if one of the subset's facts stands on its page; the other slices do not depend on it. Where arms name subsets
    of their own (a learning curve), a question is asked only if its slice holds for all of them.
    """
    questions = corpus.questions("test")
    if not questions:
        raise ComparisonError(
            f"corpus {corpus.name} has no test questions; bring some with "
            f"`versus questions import FILE --into {corpus.name}`"
        )
    adapted = {arm.subset or experiment.subset for arm in experiment.arms if arm.adapter} | {experiment.subset}
    for subset in sorted(name for name in adapted if name is not None):
        facts = corpus.subset(subset)
        trained = [question for question in corpus.questions("train") if question.fact in facts]
        computed = assign_slices(questions, trained, corpus.new_document_ids())
        questions = [question for question in questions if computed[question.id] == question.slice]
    return questions


def compare_with(run: Run, evaluation: Evaluation, other: Run, corpus: Corpus) -> RunChanges:
    """Return what changed in `run` against `other`, whose predictions are scored anew; write `against.json`."""
    changes = _changes(run, evaluation, other, score_run(other, corpus))
    text = json.dumps(changes.as_dict(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    write_text(run.folder / "against.json", text)
    return changes


def changes_between(workspace: Workspace, then: str, now: str) -> RunChanges:
    """Return what changed from one run to another, as `versus report --against` does; writes nothing.

    Raises `RunError` for runs that are not of one experiment.
    """
    old, new = (read_run(workspace.run(name)) for name in (then, now))
    corpus = workspace.corpus(new.experiment.corpus)
    before, after = (
        score_run(run, corpus, similarity=run.experiment.primary_metric == "semantic_similarity") for run in (old, new)
    )
    return _changes(new, after, old, before)


def _changes(run: Run, evaluation: Evaluation, other: Run, before: Evaluation) -> RunChanges:
    from comparison_app.regression import compare_runs

    then, now = read_record(other.folder), read_record(run.folder)
    return compare_runs((other.name, before, then), (run.name, evaluation, now))


def score_run(run: Run, corpus: Corpus, *, similarity: bool = True) -> Evaluation:
    """Score a run's predictions and compare its arms; `similarity` has all answers embedded for that metric."""
    embed = _embed() if similarity else None
    return evaluate(run.experiment, run.questions(), run.predictions(), DocumentTexts.of(corpus), embed)


def write_results(run: Run, corpus: Corpus) -> Evaluation:
    """Score a run's predictions and write `summary.json` and the reports into its folder."""
    from comparison_app.report import write_report
    from comparison_app.summary import summarise, write_summary

    evaluation = score_run(run, corpus)
    summary = summarise(run.name, evaluation, read_record(run.folder))
    judged = judged_part(run.folder, evaluation)
    if judged is not None:
        summary["judge"] = judged
    adapters = summary["environment"].get("adapters") or {}
    if run.experiment.directions:
        summary["directions"] = directions(evaluation, adapters, summary["environment"].get("models") or {})
        summary["forgetting"] = forgetting_rows(evaluation, adapters)
    write_summary(run.folder / "summary.json", summary)
    write_report(run.folder, evaluation, summary)
    return evaluation


def _embed() -> Callable[[Sequence[str]], Any]:
    """Return the default embedder's function of texts, for semantic similarity."""
    from rag.config import RagConfig
    from rag.embedding import Embedder

    embedder = Embedder.from_config(RagConfig())
    return lambda texts: embedder.embed_documents(list(texts))


@dataclass(frozen=True)
class _Training:
    """The questions that an adapter was trained on, and those that its training left out as too long."""

    trained: tuple[Question, ...]
    left_out: tuple[Question, ...]

    def slices(self, questions: Iterable[Question], new_documents: Collection[str]) -> dict[str, str]:
        """Return the slice of each question for this adapter."""
        return assign_slices(questions, self.trained, new_documents)

    def askable(self, questions: list[Question], new_documents: Collection[str]) -> list[Question]:
        """Return the questions without those whose label would hold only if nothing had been left out."""
        if not self.left_out:
            return questions
        actual = self.slices(questions, new_documents)
        intended = assign_slices(questions, (*self.trained, *self.left_out), new_documents)
        return [q for q in questions if q.slice == actual[q.id] or q.slice != intended[q.id]]


def _training_of(adapter: str, corpus: Corpus, workspace: Workspace) -> _Training:
    """Look up what an adapter's run record says; raises ComparisonError if it was made for another corpus."""
    from finetune.run_record import read_run_record

    record = read_run_record(workspace.adapter(adapter))
    known = {question.id: question for split in SPLITS for question in corpus.questions(split)}
    missing = [name for name in record.trained_ids if name not in known]
    if missing:
        raise ComparisonError(
            f"adapter {adapter} was trained on {len(missing)} questions that corpus {corpus.name} does not hold, "
            f"first {missing[0]!r}: it was made for another corpus or before its questions changed; train it again"
        )
    left_out = tuple(known[name] for name in record.left_out_ids if name in known)
    return _Training(tuple(known[name] for name in record.trained_ids), left_out)
