"""How fast statistics, report and remote arms are.

    python benchmarks/comparison_speed.py [statistics] [report] [remote]

statistics: means and pairs of 2,000 questions x 5 arms x 8 metrics x 6 slices, with intervals and tests. report: the
page of a made-up run of 2,004 questions and six arms, its size and the time until Chromium has loaded it. remote: 1,000
questions to a local server that takes 200 ms for each, through the arm as an experiment makes it, against one by one
(the seconds of 20 single questions, scaled).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
LATENCY = 0.2


def statistics() -> dict[str, Any]:
    """Time the statistics in a process of their own, so that its memory is theirs alone."""
    code = (
        "import json; from benchmarks.statistics_simulation import time_large_run; print(json.dumps(time_large_run()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def report() -> dict[str, Any]:
    """Time evaluation and report of a large run, and how long Chromium takes to load the page."""
    from comparison_app.evaluation import evaluate
    from comparison_app.report import write_report
    from comparison_app.summary import summarise
    from tests.comparison_app import synthetic as made

    documents = made.made_documents()
    questions = made.made_questions(documents, per_slice=334)
    predictions = made.made_predictions(made.made_arms(documents), questions)
    started = time.perf_counter()
    found = evaluate(made.made_experiment(), questions, predictions, made.made_texts(documents), made.bag_of_words)
    summary = summarise("large", found)
    evaluated = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(Path(folder), found, summary)
        written = time.perf_counter()
        return {
            "questions": len(questions),
            "arms": len(found.arms),
            "evaluation_seconds": round(evaluated - started, 2),
            "writing_seconds": round(written - evaluated, 2),
            "html_bytes": page.stat().st_size,
            "chromium_load_seconds": _load_seconds(page),
        }


def _load_seconds(page: Path) -> list[float] | None:
    """Return the seconds until the page's load event, of five openings; None where there is no Chromium."""
    from tests.comparison_app.browser import CHROMIUM

    if CHROMIUM is None:
        return None
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(5):
            tab = running.new_page()
            started = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="load")
            times.append(round(time.perf_counter() - started, 3))
            tab.close()
        running.close()
    return times


def remote() -> dict[str, Any]:
    """Ask 1,000 questions through a run, and 20 one by one."""
    from comparison_app.arms import ArmFactory
    from comparison_app.experiment import load_experiment
    from comparison_app.replies import ReplyJournal
    from comparison_app.runner import open_run
    from comparison_app.workspace import Workspace
    from data_prep.questions import Question

    questions = [Question(f"q{n}", f"What is {n}?", (str(n),), slice="trained") for n in range(1_000)]
    with (
        tempfile.TemporaryDirectory() as name,
        _server() as url,
    ):
        folder = Path(name)
        arm = f'[[arms]]\nname = "remote"\nkind = "base"\nmodel = "m"\nendpoint = "{url}"\n'
        path = folder / "remote.toml"
        path.write_text(f'name = "r"\ncorpus = "tern-manual"\n{arm}')
        spec = load_experiment(path).arm("remote")
        workspace = Workspace(folder)
        corpus = workspace.corpus("tern-manual")
        single = ArmFactory(workspace, corpus).build(spec, 1)
        next(single.answer(questions[:1]))
        started = time.perf_counter()
        for question in questions[:20]:
            next(single.answer([question]))
        one_by_one = (time.perf_counter() - started) / 20 * len(questions)
        run = open_run(folder / "run", path, questions)
        system = ArmFactory(workspace, corpus, replies=ReplyJournal(run.folder / "replies.jsonl")).build(spec)
        next(system.answer([Question("warm", "Are you there?")]))
        started, cpu = time.perf_counter(), time.process_time()
        run.ask([system], questions)
        seconds = time.perf_counter() - started
        errors = sum(prediction.error is not None for prediction in run.predictions())
        return {
            "seconds": round(seconds, 2),
            "one_by_one_seconds": round(one_by_one, 1),
            "times_faster": round(one_by_one / seconds, 1),
            "in_flight": spec.in_flight,
            "errors": errors,
            "client_cpu_seconds": round(time.process_time() - cpu, 2),
        }


@contextmanager
def _server() -> Iterator[str]:
    """Serve from a process of its own, as a real endpoint is; yields its URL."""
    code = (
        "import time; from tests.comparison_app.chat_server import chat_server\n"
        f"with chat_server(lambda text: 'echo ' + text, latency={LATENCY}) as (url, seen):\n"
        "    print(url, flush=True)\n    time.sleep(3600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Run the benchmarks named, or all, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=["statistics", "report", "remote", []], default=[])
    chosen = parser.parse_args().names or ["statistics", "report", "remote"]
    for name in chosen:
        print(json.dumps({name: {"statistics": statistics, "report": report, "remote": remote}[name]()}), flush=True)


if __name__ == "__main__":
    main()
