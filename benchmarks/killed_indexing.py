"""A re-index killed at random moments, many times: no chunk may be lost or doubled, and no index unreadable.

    python benchmarks/killed_indexing.py --kills 100

Each round starts a process that re-indexes 60 pages in new versions without pause, kills it (SIGKILL) after a random
time, and checks the index: each page once, all changed pages of one version, searchable, free to be written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rag.torchfree import block_torch

block_torch()

from rag.store import EmbeddedStore  # noqa: E402
from tests.rag.test_faults import _REINDEX, check_whole  # noqa: E402


def main() -> int:
    """Kill and check as often as asked; returns 1 where an index was not whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--longest", type=float, default=1.5, help="seconds before a kill, at most")
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        for round_ in range(options.kills):
            _kill_once(path, round_, draw.uniform(0.0, options.longest))
            try:
                check_whole(EmbeddedStore(path))
            except Exception as error:
                failures.append(f"{round_}: {type(error).__name__}: {error}")
        generations = EmbeddedStore(path).generation
    print(json.dumps({"kills": options.kills, "generations": generations, "failures": failures}))
    return int(bool(failures))


def _kill_once(path: Path, round_: int, seconds: float) -> None:
    arguments = [sys.executable, "-c", _REINDEX, str(path), str(1 + 1000 * round_)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    while not round_ and EmbeddedStore(path).generation == 0:
        time.sleep(0.01)
    time.sleep(seconds)
    child.kill()
    child.wait()


if __name__ == "__main__":
    raise SystemExit(main())
