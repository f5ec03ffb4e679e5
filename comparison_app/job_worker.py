"""The process of one job: `python -m comparison_app.job_worker FOLDER`. It does what the command of its kind does.

Arguments by kind. train: recipe, corpus, name, subset, max_seconds, resume. compare: experiment (a file), name, resume.
scrape: sources, into.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from comparison_app.errors import ComparisonError
from comparison_app.jobs import check_address
from comparison_app.workspace import Workspace
from data_prep.atomic import write_text
from data_prep.errors import VersusError

CHECKPOINT_EVERY = 25
"""Steps between checkpoints of a training whose recipe keeps none, so that it can be stopped and resumed."""
Report = Callable[[dict[str, Any]], None]


def main(folder: Path) -> int:
    """Do the job in `folder`, and write how it ended; returns the exit code."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _held(folder / "lock"):
        write_text(folder / "running.json", json.dumps({"pid": os.getpid()}))
        try:
            result = WORK[job["kind"]](job["arguments"], Workspace.resolve(None), _reporter(folder))
            _end(folder, "done", "", result)
        except KeyboardInterrupt:
            _end(folder, "stopped", "stopped; what was done is kept, and it can be resumed")
            return 1
        except VersusError as error:
            _end(folder, "failed", str(error))
            return 1
        except Exception as error:
            _end(folder, "failed", f"{type(error).__name__}: {error}")
            raise
    return 0


def train(arguments: dict[str, Any], workspace: Workspace, report: Report) -> dict[str, Any]:
    """Train an adapter as `versus train` does."""
    from comparison_app.training import train_on_corpus
    from finetune.config import load_recipe

    recipe = load_recipe(arguments["recipe"])
    if arguments.get("max_seconds"):
        recipe = replace(recipe, optimisation=replace(recipe.optimisation, max_seconds=float(arguments["max_seconds"])))
    if recipe.tracking.save_every is None and recipe.tracking.patience is None:
        recipe = replace(recipe, tracking=replace(recipe.tracking, save_every=CHECKPOINT_EVERY))
    record = train_on_corpus(
        recipe,
        workspace.corpus(arguments.get("corpus")),
        workspace,
        arguments["name"],
        subset=arguments.get("subset"),
        resume=bool(arguments.get("resume")),
        on_step=lambda step: report(
            {
                "step": step.step,
                "total": step.total,
                "loss": step.loss,
                "seconds": step.seconds,
                "eval_loss": step.eval_loss,
            }
        ),
    )
    return {"adapter": arguments["name"], "steps": record.steps, "seconds": record.seconds, "stopped": record.stopped}


def compare(arguments: dict[str, Any], workspace: Workspace, report: Report) -> dict[str, Any]:
    """Run a comparison as `versus compare` does."""
    from comparison_app.comparison import Comparison, Hooks

    comparison = Comparison.prepare(Path(arguments["experiment"]), workspace)
    hooks = Hooks(
        stage=lambda text: report({"stage": text}),
        indexing=lambda done, total: report({"stage": "indexing", "done": done, "total": total}),
        asking=lambda now: report(
            {"stage": f"asking {now.arm}", "done": now.done, "total": now.total, "left": now.seconds_left}
        ),
    )
    comparison.run(arguments["name"], resume=bool(arguments.get("resume")), hooks=hooks)
    return {"run": arguments["name"]}


def scrape(arguments: dict[str, Any], workspace: Workspace, report: Report) -> dict[str, Any]:
    """Run `versus scrape` on sources that somebody typed; only addresses of the web are taken."""
    sources = [check_address(str(source)) for source in arguments["sources"]]
    report({"stage": f"fetching {sources[0]}"})
    command = [
        sys.executable,
        "-m",
        "comparison_app.cli",
        "scrape",
        *sources,
        "--into",
        str(arguments["into"]),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ComparisonError(said[-1].removeprefix("versus: error: ") if said else "the scrape failed")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


WORK: dict[str, Callable[[dict[str, Any], Workspace, Report], dict[str, Any]]] = {
    "train": train,
    "compare": compare,
    "scrape": scrape,
}


@contextmanager
def _held(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _reporter(folder: Path) -> Report:
    path, last = folder / "progress.jsonl", [0.0]

    def report(facts: dict[str, Any]) -> None:
        """Append a line; at most ten a second, except where a stage or the last step is told."""
        now = time.monotonic()
        if now - last[0] < 0.1 and facts.get("step") != facts.get("total") and "done" in facts:
            return
        last[0] = now
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")

    return report


def _end(folder: Path, state: str, message: str, result: dict[str, Any] | None = None) -> None:
    write_text(folder / "result.json", json.dumps({"state": state, "message": message, "result": result or {}}) + "\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
