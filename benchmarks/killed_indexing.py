"""A re-index killed at random moments, and one that many processes read: nothing lost, doubled or unreadable.

    python benchmarks/killed_indexing.py --kills 100
    python benchmarks/killed_indexing.py --readers 8 --seconds 60

Each round of `--kills` starts a process that re-indexes 60 pages in new versions without pause, kills it (SIGKILL)
after a random time, and checks the index: each page once and embedded, all changed pages of one version, searchable,
free to be written. With `--readers`, that many processes ask, with embeddings on, while another one re-indexes the
pages in new versions with the real embedder: no error, and in each answer all 60 pages once, all of one version.
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
from typing import Any

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rag.torchfree import block_torch

block_torch()

from haystack import Document  # noqa: E402 - after the block, so that Haystack does not import torch

from rag.config import RagConfig  # noqa: E402
from rag.embedding import Embedder  # noqa: E402
from rag.indexing import index_documents  # noqa: E402
from rag.retrieval import HybridSearch  # noqa: E402
from rag.store import EmbeddedStore  # noqa: E402
from tests.rag.test_faults import _REINDEX, check_whole  # noqa: E402

PAGES = 60


def main() -> int:
    """Kill, or read, and check as often as asked; returns 1 where an index was not whole or an answer not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--longest", type=float, default=1.5, help="seconds before a kill, at most")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--readers", type=int, default=0, help="processes that read meanwhile; instead of kills")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--role", choices=("read", "write"), help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        print(json.dumps({"read": read, "write": write}[options.role](options.index, options.seconds)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        if options.readers:
            found = watched(path, options.readers, options.seconds)
        else:
            found = killed(path, options.kills, options.longest, random.Random(options.seed))
    print(json.dumps(found))
    return int(bool(found["failures"]))


def killed(path: Path, kills: int, longest: float, draw: random.Random) -> dict[str, Any]:
    """Kill a re-index `kills` times; return how many generations there were, and what was not whole."""
    failures: list[str] = []
    for round_ in range(kills):
        _kill_once(path, round_, draw.uniform(0.0, longest))
        try:
            check_whole(EmbeddedStore(path))
        except Exception as error:
            failures.append(f"{round_}: {type(error).__name__}: {error}")
    return {"kills": kills, "generations": EmbeddedStore(path).generation, "failures": failures}


def watched(path: Path, readers: int, seconds: float) -> dict[str, Any]:
    """Let processes read while one writes; return answers, generations, and every error and wrong answer."""
    index_documents(_version(0), EmbeddedStore(path), Embedder(threads=1), RagConfig())
    roles = ["write", *["read"] * readers]
    command = [sys.executable, __file__, "--index", str(path), "--seconds", str(seconds), "--role"]
    children = [subprocess.Popen([*command, role], stdout=subprocess.PIPE, text=True) for role in roles]
    said = [child.communicate()[0] for child in children]
    failures = [f"{role}: ended with {child.returncode}" for role, child in zip(roles, children, strict=True)]
    found = [json.loads(text) if text else {} for text in said]
    return {
        "readers": readers,
        "seconds": seconds,
        "answers": sum(each.get("answers", 0) for each in found),
        "generations_written": found[0].get("generations"),
        "generations_seen_by_each": [each.get("generations") for each in found[1:]],
        "failures": [
            *[text for text, child in zip(failures, children, strict=True) if child.returncode],
            *[failure for each in found for failure in each.get("failures", [])],
        ],
    }


def write(path: Path, seconds: float) -> dict[str, Any]:
    """Index new versions of the pages for so long, the embedder the real one."""
    until, embedder, version = time.monotonic() + seconds, Embedder(threads=1), 0
    while time.monotonic() < until:
        version += 1
        index_documents(_version(version), EmbeddedStore(path), embedder, RagConfig())
    return {"generations": version}


def read(path: Path, seconds: float) -> dict[str, Any]:
    """Ask for so long; return answers, generations seen, and what was wrong."""
    until, failures, versions, answers = time.monotonic() + seconds, [], set(), 0
    search = HybridSearch(EmbeddedStore(path), Embedder(threads=1), RagConfig())
    while time.monotonic() < until:
        try:
            found = search.retrieve_many([f"What holds page {answers % PAGES}?"], top_k=PAGES)[0]
            pages = sorted(chunk.meta["document"] for chunk in found)
            seen = {(chunk.content or "").split()[-1] for chunk in found} - {"unchanged."}
            if pages != sorted(f"p{number}" for number in range(PAGES)) or len(seen) != 1:
                failures.append(f"{len(pages)} pages of versions {sorted(seen)}")
            versions |= seen
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
        answers += 1
    return {"answers": answers, "generations": len(versions), "failures": failures[:20]}


def _version(version: int) -> list[Document]:
    ends = [f"version {version}." if number % 3 else "that stays unchanged." for number in range(PAGES)]
    return [Document(id=f"p{number}", content=f"Page {number} holds {end}") for number, end in enumerate(ends)]


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
