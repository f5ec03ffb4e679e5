"""Kill a run with a remote arm at random moments and resume it: is a question lost, doubled, or paid twice.

    python benchmarks/killed_runs.py [--kills 50] [--questions 2000] [--seed 1]

A local server that speaks the OpenAI protocol writes down every request. A process asks it through a run folder; it is
killed with SIGKILL after a random time, and started again, until all kills are spent; then it may finish. Printed are:
questions without a prediction, questions with two, requests for a reply that had been recorded before a kill (paid
twice), and requests repeated because their reply was still on its way when the process died (no client can save those;
at most the requests in flight for each kill).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from comparison_app.predictions import read_predictions
from comparison_app.replies import ReplyJournal
from data_prep.questions import Question
from tests.comparison_app.chat_server import chat_server

IN_FLIGHT = 8
_PRELOAD = ["comparison_app.arms", "comparison_app.runner", "finetune.answering", "haystack.components.generators.chat"]


def made_questions(count: int) -> list[Question]:
    """Return `count` different questions."""
    return [
        Question(id=f"q{n:05d}", question=f"What is {n}?", answers=(str(n),), slice="trained") for n in range(count)
    ]


def work(folder: Path, experiment: Path, url: str, count: int) -> None:
    """Resume the run in `folder` and ask what is open; this is what the killed process does."""
    from comparison_app.arms import Arm, ClosedBook
    from comparison_app.endpoints import EndpointGenerator
    from comparison_app.runner import open_run
    from finetune.answering import FinetunedAnswerer

    questions = made_questions(count)
    run = open_run(folder, experiment, questions, resume=True)
    journal = ReplyJournal(folder / "replies.jsonl")
    generator: Any = EndpointGenerator(url, "m", in_flight=IN_FLIGHT, journal=journal)
    run.ask([Arm("remote", ClosedBook(FinetunedAnswerer(generator)), batch_size=4 * IN_FLIGHT)], questions)


def kill_and_resume(folder: Path, kills: int, count: int, seed: int = 1, latency: float = 0.02) -> dict[str, int]:
    """Kill a run `kills` times at random moments, let it finish, and count what went wrong."""
    rng = random.Random(seed)
    experiment = folder / "remote.toml"
    experiment.write_text('name = "r"\ncorpus = "c"\n[[arms]]\nname = "remote"\nkind = "base"\n', encoding="utf-8")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    run = folder / "run"
    kept: list[tuple[int, set[str]]] = []
    with chat_server(lambda text: f"echo {text}", latency=latency) as (url, seen):
        arguments = (run, experiment, url, count)
        for _ in range(kills):
            process = context.Process(target=work, args=arguments)
            process.start()
            begun = len(seen)
            while process.is_alive() and len(seen) == begun:  # a kill before the first request would prove little
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.4))
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
            process.join()
            kept.append((len(seen), _recorded(run)))
        last = context.Process(target=work, args=arguments)
        last.start()
        last.join()
    return {"kills": kills, "questions": count, **_count(run, count, [_said(request) for request in seen], kept)}


def _recorded(run: Path) -> set[str]:
    """Return the texts of the replies that the run has kept so far."""
    path = run / "replies.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return {json.loads(line)["text"] for line in lines}


def _said(request: dict[str, Any]) -> str:
    return f"echo {request['body']['messages'][-1]['content']}"


def _count(run: Path, count: int, asked: list[str], kept: list[tuple[int, set[str]]]) -> dict[str, int]:
    lines = Counter(p.question_id for p in read_predictions(run / "predictions.jsonl") if p.error is None)
    again = {place for first, texts in kept for place in range(first, len(asked)) if asked[place] in texts}
    return {
        "lost": count - len(lines),
        "doubled": sum(number > 1 for number in lines.values()),
        "paid_twice": len(again),
        "requests": len(asked),
        "repeated_because_on_their_way": len(asked) - len(set(asked)) - len(again),
        "most_that_can_be_on_their_way": IN_FLIGHT * len(kept),
    }


def main() -> None:
    """Kill, resume, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--questions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(kill_and_resume(Path(folder), options.kills, options.questions, options.seed)))


if __name__ == "__main__":
    main()
