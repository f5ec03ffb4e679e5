"""One document changed among many, against the full build; and how long a cold command takes.

    python benchmarks/reindex.py --pages 10000
    python benchmarks/reindex.py --cold

The pages are made: about 60 words each, sentences of the sample manual with a number of the page's own, embedded by the
real embedder, one thread. Then one page is changed and the whole corpus handed over again: only its chunks may be
embedded. `--cold` runs `versus ask QUESTION --arms rag-extractive` over the sample manual and `versus --help`, each in
new processes; stated are the best and the median of the seconds, the page cache warm.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from rag.torchfree import block_torch

block_torch()

from haystack import Document  # noqa: E402 - after the block, so that Haystack does not import torch

from data_prep.corpus import SAMPLE_CORPORA, SAMPLE_CORPUS, load_corpus  # noqa: E402
from rag.config import RagConfig  # noqa: E402
from rag.embedding import Embedder  # noqa: E402
from rag.indexing import index_documents  # noqa: E402
from rag.store import EmbeddedStore  # noqa: E402

WORDS = 60
VERSUS = Path(sys.executable).with_name("versus")


def made_pages(count: int) -> list[Document]:
    """Return pages of about `WORDS` words, no two alike."""
    corpus = load_corpus(SAMPLE_CORPORA / SAMPLE_CORPUS)
    lines = [line for page in corpus.documents() for line in (page.content or "").split("\n") if len(line.split()) > 6]
    rng, pages = random.Random(0), []
    for number in range(count):
        text, words = f"# Page {number}\n\n", 0
        while words < WORDS:
            line = rng.choice(lines)
            text += f"{line} See item {number}-{rng.randrange(1000)}.\n\n"
            words += len(line.split()) + 3
        pages.append(Document(id=f"page-{number}", content=text, meta={"title": f"Page {number}"}))
    return pages


def changed_share(folder: Path, count: int) -> dict[str, Any]:
    """Build an index of `count` pages, change one page, index again; return both times and what was embedded."""
    store, embedder, pages = EmbeddedStore(folder / "index.sqlite"), Embedder(threads=1), made_pages(count)
    embedder.warm_up()
    built = index_documents(pages, store, embedder, RagConfig())
    place = count // 2
    text = f"{pages[place].content}The tow eye is now kept behind panel 7.\n"
    pages[place] = Document(id=pages[place].id, content=text, meta=pages[place].meta)
    again = index_documents(pages, store, embedder, RagConfig())
    own = len(store.chunks_of(pages[place].id))
    return {
        "pages": count,
        "chunks": built.chunks,
        "build_seconds": round(built.seconds, 2),
        "change_seconds": round(again.seconds, 3),
        "share": round(again.seconds / built.seconds, 5),
        "changed": again.changed,
        "embedded": again.embedded,
        "chunks_of_the_changed_page": own,
    }


def cold_seconds(command: list[str], runs: int) -> dict[str, Any]:
    """Run `versus` with those arguments in new processes; return the best and the median of the seconds."""
    taken = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run([VERSUS, *command], check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    rest = taken[1:]  # the first makes the index where there is none
    return {"runs": runs, "best": round(min(rest), 2), "median": round(statistics.median(rest), 2)}


def main() -> int:
    """Print one JSON object per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not options.cold:
            print(json.dumps({"what": "one document changed", **changed_share(Path(folder), options.pages)}))
            return 0
        question = "How long does a full charge take at home?"
        ask = ["ask", question, "--arms", "rag-extractive", "--workspace", folder]
        for name, command in (("versus ask --arms rag-extractive", ask), ("versus --help", ["--help"])):
            print(json.dumps({"what": f"cold {name}", **cold_seconds(command, options.runs)}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
