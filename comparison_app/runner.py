"""Puts the questions to the arms and keeps every answer, whatever happens meanwhile.

A run is a folder: `experiment.toml` (copied), `run.json` (what it was made with), `questions.jsonl` (what was asked),
`predictions.jsonl` (appended and synced batch by batch), `replies.jsonl` (of endpoints, as they arrive), then
`summary.json` and the report. A killed run is continued by `open_run(..., resume=True)` and `Run.ask` again: what is
answered is not asked a second time. Batches have the same borders whenever they are asked, and `Run.settle` puts the
predictions into one order, so two runs of local arms with the same seeds give the same file but for the times in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from comparison_app.errors import RunError
from comparison_app.experiment import Experiment, load_experiment
from comparison_app.pace import Clock
from comparison_app.pace import RunProgress as RunProgress
from comparison_app.predictions import (
    AnswerSystem,
    Prediction,
    read_predictions,
    to_line,
    write_predictions,
)
from comparison_app.probing import alone, spaced
from comparison_app.provenance import environment
from data_prep.atomic import write_text
from data_prep.questions import Question, read_questions, write_questions

GIVE_UP_AFTER = 3
"""Batches in a row in which an arm answers nothing; its other questions are then failed without being asked."""


class BatchPool(Protocol):
    """What answers batches of several arms at once, in any order (see `spread.RayPool`)."""

    def answer(
        self, batches: Sequence[tuple[str, tuple[Question, ...]]]
    ) -> Iterator[tuple[str, tuple[Question, ...], list[Prediction] | str]]:
        """Yield every batch with its predictions, or with the error that kept it from having any."""


@dataclass
class Run:
    """An open run folder; used by one process at a time."""

    folder: Path
    experiment: Experiment
    _done: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.folder.name

    @property
    def predictions_path(self) -> Path:
        """Where the answers are."""
        return self.folder / "predictions.jsonl"

    def predictions(self) -> list[Prediction]:
        """Read all answers so far."""
        return read_predictions(self.predictions_path) if self.predictions_path.exists() else []

    def questions(self) -> list[Question]:
        """Read the questions that the run asks."""
        return read_questions(self.folder / "questions.jsonl")

    def open_questions(self, arm: str, questions: Sequence[Question]) -> list[Question]:
        """Return those of `questions` that `arm` was not yet asked."""
        return [question for question in questions if question.id not in self._done[arm]]

    def note(self, **facts: Any) -> None:
        """Add facts to `run.json`: what is known only once the run is under way, such as times of indexing."""
        record = {**read_record(self.folder), **facts}
        write_text(self.folder / "run.json", json.dumps(record, ensure_ascii=False, indent=2, default=str) + "\n")

    def ask(
        self,
        systems: Sequence[AnswerSystem],
        questions: Sequence[Question],
        progress: Callable[[RunProgress], None] | None = None,
    ) -> None:
        """Ask every system those of `questions` it has not answered, and append the predictions batch by batch.

        A system that raises gets predictions with `error` for the questions it left, and the others go on. Ctrl-C
        keeps all that was answered. Raises `RunError` when the file cannot be written.
        """
        clock = Clock({system.name: len(self.open_questions(system.name, questions)) for system in systems})
        with _locked(self.folder):
            for system in systems:
                for made in self._ask_one(system, questions):
                    clock.count(system.name, made)
                    if progress is not None:
                        progress(clock.now(system.name))

    def ask_spread(
        self,
        pool: BatchPool,
        arms: Sequence[str],
        questions: Sequence[Question],
        progress: Callable[[RunProgress], None] | None = None,
    ) -> None:
        """Have `pool` answer for `arms` what they have not answered; batches are appended as they come."""
        size = self.experiment.batch_size
        parts = [questions[start : start + size] for start in range(0, len(questions), size)]
        batches = [(arm, tuple(self.open_questions(arm, part))) for part in parts for arm in arms]
        clock = Clock({arm: len(self.open_questions(arm, questions)) for arm in arms})
        with _locked(self.folder):
            for arm, batch, found in pool.answer([item for item in batches if item[1]]):
                answered = {} if isinstance(found, str) else {p.question_id: replace(p, arm=arm) for p in found}
                error = found if isinstance(found, str) else "the arm gave no answer to this question"
                self._append([answered.get(item.id) or _failed(item, arm, error) for item in batch])
                clock.count(arm, len(batch))
                if progress is not None:
                    progress(clock.now(arm))

    def untimed(self) -> list[str]:
        """Return the arms of which no single question was timed yet; none if the experiment wants no times."""
        known = read_record(self.folder).get("latency") or {}
        return [arm.name for arm in self.experiment.arms if self.experiment.latency_probe and arm.name not in known]

    def probe(self, systems: Sequence[AnswerSystem], questions: Sequence[Question]) -> None:
        """Ask every system up to `latency_probe` of `questions` one by one, streamed, and note its times.

        They go to `run.json` under "latency": arm -> what `probing.alone` returns. An arm that was timed before is not
        asked again.
        """
        chosen = spaced(questions, self.experiment.latency_probe)
        untimed = set(self.untimed())
        for system in systems if chosen else ():
            if system.name in untimed:
                self.note(
                    latency={**(read_record(self.folder).get("latency") or {}), system.name: alone(system, chosen)}
                )

    def settle(self) -> None:
        """Put the predictions into the order of the arms and questions of the experiment."""
        arms = {arm.name: place for place, arm in enumerate(self.experiment.arms)}
        places = {question.id: place for place, question in enumerate(self.questions())}
        found = self.predictions()
        ordered = sorted(found, key=lambda p: (arms.get(p.arm, len(arms)), places.get(p.question_id, len(places))))
        if ordered != found:
            write_predictions(self.predictions_path, ordered)

    def _ask_one(self, system: AnswerSystem, questions: Sequence[Question]) -> Iterator[int]:
        """Ask one system in batches what it has not answered; yields how many predictions each batch added."""
        size = max(self.experiment.batch_size, getattr(system, "batch_size", 0))
        silent, last_error = 0, ""
        for start in range(0, len(questions), size):
            batch = self.open_questions(system.name, questions[start : start + size])
            if not batch:
                continue
            if silent >= GIVE_UP_AFTER:
                made = [_failed(question, system.name, f"not asked: {last_error}") for question in batch]
            else:
                made = self._collect(system, batch)
                failures = [prediction.error for prediction in made if prediction.error]
                silent = silent + 1 if len(failures) == len(batch) else 0
                last_error = failures[-1] if failures else last_error
            self._append(made)
            yield len(made)

    def _collect(self, system: AnswerSystem, batch: Sequence[Question]) -> list[Prediction]:
        """Return one prediction per question of `batch`, in its order; what came before Ctrl-C is kept."""
        found: dict[str, Prediction] = {}
        wanted = {question.id for question in batch}
        error = "the arm gave no answer to this question"
        try:
            for prediction in system.answer(batch):
                if prediction.question_id in wanted and prediction.question_id not in found:
                    found[prediction.question_id] = replace(prediction, arm=system.name)
        except KeyboardInterrupt:
            self._append(list(found.values()))
            raise
        except Exception as raised:  # an arm is others' code: whatever it raises is its failure, not the run's
            error = f"{type(raised).__name__}: {raised}"
        return [found.get(question.id) or _failed(question, system.name, error) for question in batch]

    def _append(self, predictions: Sequence[Prediction]) -> None:
        """Append `predictions` and bring them to the disk."""
        try:
            with self.predictions_path.open("ab") as file:
                file.write("".join(map(to_line, predictions)).encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(
                f"{self.predictions_path}: cannot be written ({error.strerror}); what was answered before is kept, "
                "continue with --resume"
            ) from error
        for prediction in predictions:
            self._done[prediction.arm].add(prediction.question_id)


def open_run(
    folder: Path,
    experiment_path: Path,
    questions: Sequence[Question],
    *,
    resume: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> Run:
    """Start the run `folder`, or continue it with `resume`.

    `questions` are all the run will ask, new-document ones too. `provenance` is stored in `run.json` beside versions
    and machine: the corpus's fingerprint, the arms' weights and whatever else a reader must know. Raises `RunError` if
    a run is there and `resume` is not asked for, or if it was made from another experiment or other questions.
    """
    experiment = load_experiment(experiment_path)
    started = (folder / "run.json").exists()
    if started and not resume:
        raise RunError(f"{folder}: a run is there already; continue it with --resume, or choose another name")
    run = Run(folder, experiment)
    if started:
        _check_same(folder, experiment, questions)
        _drop_torn_line(run.predictions_path)
    else:
        write_text(folder / "experiment.toml", experiment_path.read_text(encoding="utf-8"))
        if experiment.prices:
            write_text(folder / experiment.prices, _price_file(experiment_path).read_text(encoding="utf-8"))
        write_questions(folder / "questions.jsonl", questions)
        record = {"started": _now(), **environment(), **(provenance or {})}
        write_text(folder / "run.json", json.dumps(record, ensure_ascii=False, indent=2, default=str) + "\n")
    for prediction in run.predictions():
        run._done[prediction.arm].add(prediction.question_id)
    return run


def _price_file(experiment_path: Path) -> Path:
    """Return the price table that an experiment file names."""
    named = tomllib.loads(experiment_path.read_text(encoding="utf-8"))["prices"]
    return experiment_path.parent / str(named)


def read_run(folder: Path) -> Run:
    """Open a run to read it; raises `RunError` if `folder` holds none."""
    if not (folder / "experiment.toml").is_file() or not (folder / "questions.jsonl").is_file():
        raise RunError(f"{folder}: holds no run; a run has experiment.toml, questions.jsonl and predictions.jsonl")
    return Run(folder, load_experiment(folder / "experiment.toml"))


def read_record(folder: Path) -> dict[str, Any]:
    """Return what `run.json` says of a run; an empty mapping if it has none."""
    path = folder / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); delete it to do without it") from error
    return dict(record)


def _check_same(folder: Path, experiment: Experiment, questions: Sequence[Question]) -> None:
    """Refuse to continue a run with another experiment or other questions; another judge changes no answer."""
    if replace(load_experiment(folder / "experiment.toml"), judge={}) != replace(experiment, judge={}):
        raise RunError(f"{folder}: was made from another experiment; choose another run name")
    asked = {question.id: question for question in read_questions(folder / "questions.jsonl")}
    if asked != {question.id: question for question in questions}:
        raise RunError(f"{folder}: was made from other questions (did the corpus change?); choose another run name")


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a kill left without its end."""
    if not path.exists():
        return
    try:
        with path.open("r+b") as file:
            data = file.read()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                file.truncate(whole)
    except OSError as error:
        raise RunError(f"{path}: cannot be opened ({error.strerror}); make it writable") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep a second process from writing the same run (advisory lock; none where the system has no flock)."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover
        yield
        return
    try:
        file = (folder / ".lock").open("w", encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); check the folder's rights") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{folder}: another process is working on this run; wait for it to end") from error
        yield


def _failed(question: Question, arm: str, error: str) -> Prediction:
    """Return the prediction that stands for a failure."""
    return Prediction(question_id=question.id, arm=arm, error=error or "failed without a message")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
