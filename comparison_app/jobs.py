"""Long work that the app starts and watches: trainings, comparisons, scrapes, each in a process of its own.

A job is a folder `jobs/<id>/` of the workspace: `job.json` (what to do), `progress.jsonl` (how far it is), `log.txt`
(what it printed), `result.json` (how it ended). The process holds a lock on `lock` while it lives, so a killed one is
known to be dead whoever asks, in whatever process. Two trainings never run on one device.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comparison_app.errors import ComparisonError
from comparison_app.workspace import ENVIRONMENT_VARIABLE, Workspace
from data_prep.atomic import write_text

KINDS = ("train", "compare", "scrape")
_STARTING = 30.0
"""Seconds that a new process has to take its lock."""
_children: dict[str, subprocess.Popen[bytes]] = {}
_starting = threading.Lock()


@dataclass(frozen=True)
class Job:
    """One job as it was asked for. `arguments` are the kind's own; see `job_worker`."""

    id: str
    kind: str
    title: str
    arguments: dict[str, Any]
    started: str
    folder: Path


@dataclass(frozen=True)
class JobState:
    """How a job stands: running, done, failed or stopped; `lost` where its process was killed."""

    state: str
    message: str = ""
    result: dict[str, Any] = field(default_factory=dict)


class Jobs:
    """The jobs of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.folder = workspace.path / "jobs"

    def start(self, kind: str, title: str, arguments: dict[str, Any]) -> Job:
        """Start a job in a process of its own; raises `ComparisonError` if one of its kind is running already."""
        with _starting:
            running = [job for job in self.jobs(kind) if self.state(job).state == "running"]
            if running:
                raise ComparisonError(
                    f"{running[0].title} is still running; one job of the kind {kind} runs at a time: wait or stop it"
                )
            now = datetime.now(UTC)
            identity = f"{now:%Y%m%d-%H%M%S}-{kind}-{secrets.token_hex(3)}"
            started = now.isoformat(timespec="seconds")
            job = Job(identity, kind, title, arguments, started, self.folder / identity)
            record = {"id": identity, "kind": kind, "title": title, "arguments": arguments, "started": started}
            write_text(job.folder / "job.json", json.dumps(record, ensure_ascii=False, indent=1) + "\n")
            self._launch(job)
        return job

    def resume(self, job: Job) -> Job:
        """Start a job again where it ended; where that was done a moment ago, by a double click, return that one."""
        active = self.active(job.kind)
        if active is not None and active.arguments.get("name") == job.arguments.get("name"):
            return active
        goes_on = job.kind != "compare" or self.has_begun(job)
        return self.start(job.kind, job.title, {**job.arguments, "resume": goes_on})

    def _launch(self, job: Job) -> None:
        environment = {
            **os.environ,
            ENVIRONMENT_VARIABLE: str(self.workspace.path.resolve()),
            "HAYSTACK_TELEMETRY_ENABLED": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [sys.executable, "-m", "comparison_app.job_worker", str(job.folder.resolve())]
        with (job.folder / "log.txt").open("wb") as log:
            _children[job.id] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )

    def jobs(self, kind: str | None = None) -> list[Job]:
        """Return the jobs, newest first; those of one kind where it is given. Damaged records are left out."""
        found = []
        for path in sorted(self.folder.glob("*/job.json"), reverse=True):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                job = Job(**record, folder=path.parent)
            except (OSError, ValueError, TypeError):
                continue
            if kind in (None, job.kind):
                found.append(job)
        return found

    def find(self, job_id: str) -> Job | None:
        """Return a job by its id; None if there is none."""
        return next((job for job in self.jobs() if job.id == job_id), None)

    def state(self, job: Job) -> JobState:
        """Return how a job stands now."""
        result = _read(job.folder / "result.json")
        if result:
            return JobState(str(result.get("state")), str(result.get("message", "")), dict(result.get("result") or {}))
        if _is_held(job.folder / "lock") or self._starts(job):
            return JobState("running")
        return JobState("lost", _last_words(job) or "its process was killed before it could say why")

    def active(self, kind: str) -> Job | None:
        """Return the job of a kind that is running; None if there is none."""
        return next((job for job in self.jobs(kind) if self.state(job).state == "running"), None)

    def has_begun(self, job: Job) -> bool:
        """Tell whether a comparison got so far that there is something to go on from."""
        return (self.workspace.runs / str(job.arguments["name"]) / "run.json").exists()

    def stop(self, job: Job, patience: float = 20.0) -> None:
        """Ask a job to stop, as Ctrl-C does; kill it if it does not within `patience` seconds. Idle where it ended."""
        pid = _read(job.folder / "running.json").get("pid")
        if self.state(job).state != "running" or not isinstance(pid, int):
            return
        _signal(pid, signal.SIGINT)
        threading.Thread(target=self._insist, args=(job, pid, patience), daemon=True).start()

    def _insist(self, job: Job, pid: int, patience: float) -> None:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self.state(job).state != "running":
                return
            time.sleep(0.2)
        if _is_held(job.folder / "lock"):
            _signal(pid, signal.SIGKILL)

    def _starts(self, job: Job) -> bool:
        """Tell whether a job's process has been started and has not taken its lock yet."""
        child = _children.get(job.id)
        if child is not None and child.poll() is not None:
            return False
        age = time.time() - (job.folder / "job.json").stat().st_mtime
        return not (job.folder / "running.json").exists() and age < _STARTING


def progress(job: Job) -> list[dict[str, Any]]:
    """Return what a job said of its progress, oldest first."""
    try:
        lines = (job.folder / "progress.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line]
    except (OSError, ValueError):
        return []


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is: steps done of `total`, the loss of the last, and seconds left at the pace so far."""

    step: int
    total: int
    loss: float
    seconds_left: float

    @property
    def share(self) -> float:
        """The share that is done, 0 to 1."""
        return min(1.0, self.step / max(1, self.total))


def training_steps(job: Job) -> list[dict[str, Any]]:
    """Return a training's progress step by step: `step`, `total`, `loss`, `seconds`."""
    return [row for row in progress(job) if "step" in row]


def training_progress(steps: Sequence[Mapping[str, Any]]) -> TrainingProgress | None:
    """Return how far a training is by its steps; None before the first."""
    if not steps:
        return None
    last = steps[-1]
    left = last["seconds"] / max(1, last["step"]) * max(0, last["total"] - last["step"])
    return TrainingProgress(last["step"], last["total"], last["loss"], left)


def check_address(text: str) -> str:
    """Return an address of the web that can be fetched, stripped; raises `ComparisonError`."""
    address = text.strip()
    if not re.match(r"https?://[^\s/]", address):
        raise ComparisonError("give an address that begins with http:// or https://")
    return address


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _is_held(path: Path) -> bool:
    """Tell whether a living process holds the lock on `path`."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _last_words(job: Job) -> str:
    try:
        lines = (job.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:500] if lines else ""
