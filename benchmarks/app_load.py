"""Sessions that ask the app at once: `python -m benchmarks.app_load [--sessions 20] [--seconds 60]`, `… --opening`.

Starts `versus app` on the sample manual with the arm `rag-extractive`, opens Streamlit's own web-socket once for each
session, as a browser does, and asks question after question. A question's time runs from sending it to the message that
brings the finished answer. Prints p50, p95, errors, the app's memory at the beginning, the middle and the end, and the
processor seconds that an answer took the app: these do not depend on what else the machine does. With `--opening`, it
starts the app anew five times instead and prints the seconds until the page Ask stands drawn in Chromium, the corpus
indexed before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from comparison_app.workspace import Workspace
from data_prep.corpus import SAMPLE_CORPUS
from tests.comparison_app.browser import CHROMIUM, DRAWN, running_app

EXPERIMENT = f'name = "load"\ncorpus = "{SAMPLE_CORPUS}"\n[[arms]]\nname = "rag-extractive"\nkind = "rag-extractive"\n'


async def session(address: str, questions: list[str], ends: float, number: int, times: list[float], errors: list[str]):  # type: ignore[no-untyped-def]
    """Ask in one session until `ends`; adds each answer's seconds to `times`, failures to `errors`."""
    import websockets

    rng = random.Random(number)
    url = f"{address.replace('http', 'ws')}/_stcore/stream"
    async with websockets.connect(url, subprotocols=["streamlit"], max_size=None) as socket:  # type: ignore[list-item]
        while time.monotonic() < ends:
            started = time.monotonic()
            try:
                await asyncio.wait_for(ask(socket, rng.choice(questions)), 60)
                times.append(time.monotonic() - started)
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(rng.uniform(0.5, 1.5))


async def ask(socket: Any, question: str) -> None:
    """Send one question as the page's address does, and wait for the finished answer and the end of the script."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    message = BackMsg()
    message.rerun_script.query_string = urlencode({"arms": "rag-extractive", "q": f"{question} {random.random():.9f}"})
    await socket.send(message.SerializeToString())
    answered = False
    while True:
        found = ForwardMsg()
        found.ParseFromString(await socket.recv())
        body = found.delta.new_element.html.body if found.WhichOneof("type") == "delta" else ""
        if "No answer." in body:
            raise RuntimeError(body[-300:])
        answered = answered or "v-facts" in body
        if found.WhichOneof("type") == "script_finished" and answered:
            return


def process(port: str) -> Path:
    """Return the folder in `/proc` of the process that listens on a port, found by its command line."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"--server.port={port}" in command.read_text():
                return command.parent
        except OSError:
            continue
    raise RuntimeError(f"no app listens on port {port}")


def memory(app: Path) -> float:
    """Return a process's resident megabytes."""
    lines = (app / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def processor_seconds(app: Path) -> float:
    """Return what a process has used of the processors, its threads together."""
    fields = (app / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(address: str, sessions: int, seconds: float) -> dict[str, Any]:
    """Warm up with one question, then let all sessions ask; returns the figures."""
    import numpy as np

    corpus = Workspace(Path("unused")).corpus(None)
    questions = [question.question for question in corpus.questions("test") if question.answerable]
    times: list[float] = []
    errors: list[str] = []
    await session(address, questions, time.monotonic() + 1, -1, [], errors)
    app, rss = process(address.rsplit(":", 1)[1]), []
    used = processor_seconds(app)
    ends = time.monotonic() + seconds
    tasks = [asyncio.create_task(session(address, questions, ends, n, times, errors)) for n in range(sessions)]
    for _ in range(3):
        rss.append(round(memory(app)))
        await asyncio.sleep(max(0.0, min(seconds / 2, ends - time.monotonic())))
    await asyncio.gather(*tasks)
    return {
        "sessions": sessions,
        "seconds": seconds,
        "answers": len(times),
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "p50": round(float(np.quantile(times, 0.5)), 3),
        "p95": round(float(np.quantile(times, 0.95)), 3),
        "processor_seconds_per_answer": round((processor_seconds(app) - used) / max(1, len(times)), 3),
        "memory_mb": [*rss, round(memory(app))],
        "load_average": Path("/proc/loadavg").read_text().split()[0],
    }


def opening(workspace: Path, log: Path, *options: str, times: int = 5) -> dict[str, Any]:
    """Return the seconds from the command to the drawn page, `times` times after a first one that makes the index."""
    from playwright.sync_api import sync_playwright

    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(times + 1):
            started = time.monotonic()
            with running_app(workspace, log, *options) as address:
                page = browser.new_page()
                page.goto(address)
                page.get_by_role("button", name="Ask", exact=True).wait_for()
                page.wait_for_function(DRAWN)
                seconds.append(round(time.monotonic() - started, 2))
                page.get_by_text("Indexing").wait_for(state="detached", timeout=120_000)
                page.close()
        browser.close()
    return {"first, with the index made meanwhile": seconds[0], "opened again": sorted(seconds[1:])}


def main() -> None:
    """Start the app, ask, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workspace", type=Path, help="one in which the sample manual is indexed already")
    parser.add_argument("--opening", action="store_true", help="how long the app takes to open, instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "load.toml").write_text(EXPERIMENT)
        workspace = arguments.workspace or folder / "workspace"
        experiment = ("--experiment", str(folder / "load.toml"))
        if arguments.opening:
            figures = opening(workspace, folder / "log", *experiment)
        else:
            with running_app(workspace, folder / "log", *experiment) as address:
                figures = asyncio.run(run(address, arguments.sessions, arguments.seconds))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
