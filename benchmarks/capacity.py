"""What an index of 1e5, 1e6, 1e7 and 1e8 chunks takes, computed from rates measured here on smaller ones.

    python benchmarks/capacity.py --chunks 120000 > docs/capacity.md

Measured: bytes of SQLite and of the derived files per chunk, memory of a searching process per chunk, CPU seconds per
chunk for cutting and indexing (without embedding) and for embedding on one core (sentence by sentence, as indexing
does), CPU seconds per query at two sizes, both large enough for the inverted file (a quarter of --chunks, and all).
The text is the sample manual's, its sentences drawn again with numbers of their own; the vectors of the large index
are random, since neither size nor indexing depends on what they mean. CPU seconds are used because machines are busy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from rag.torchfree import block_torch

block_torch()

import numpy as np  # noqa: E402 - after the block, so that Haystack does not import torch
from haystack import Document  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from data_prep.corpus import SAMPLE_CORPORA, SAMPLE_CORPUS, load_corpus  # noqa: E402
from rag.config import RagConfig  # noqa: E402
from rag.embedding import Embedder  # noqa: E402
from rag.indexing import index_documents  # noqa: E402
from rag.prompts import indexed_text  # noqa: E402
from rag.retrieval import HybridSearch  # noqa: E402
from rag.sentences import sentence_texts  # noqa: E402
from rag.store import EmbeddedStore  # noqa: E402

SIZES = (10**5, 10**6, 10**7, 10**8)
DIMENSION = 384
HNSW_LINKS = 16
NODE_MEMORY, NODE_CORES = 64e9, 16
USABLE = 0.7
"""Share of a node's memory that data may take."""
_WORDS_A_PAGE = 2000


class RandomEmbedder(Embedder):
    """Unit vectors drawn from a seed of each text: right in size and shape, and free."""

    def embed_documents(self, texts: object, progress: object = None) -> NDArray[np.float32]:
        """Return one random unit vector a text."""
        return self._drawn(list(texts))  # type: ignore[call-overload]

    def embed_queries(self, texts: object) -> NDArray[np.float32]:
        """Return one random unit vector a text."""
        return self._drawn(list(texts))  # type: ignore[call-overload]

    def _drawn(self, texts: list[str]) -> NDArray[np.float32]:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in texts]
        rows = [np.random.default_rng(seed).standard_normal(DIMENSION, dtype=np.float32) for seed in seeds]
        return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32).reshape(-1, DIMENSION)


@dataclass(frozen=True)
class Rates:
    """What was measured; bytes and CPU seconds are per chunk, queries in CPU seconds."""

    chunks: int
    sqlite_bytes: float
    derived_bytes: float
    memory_bytes: float
    index_seconds: float
    embed_seconds: float
    query_fixed: float
    query_per_chunk: float
    terms: float


def made_pages(chunks: int) -> list[Document]:
    """Return pages of about `_WORDS_A_PAGE` words, enough for `chunks` chunks, of the sample manual's sentences."""
    corpus = load_corpus(SAMPLE_CORPORA / SAMPLE_CORPUS)
    lines = [line for page in corpus.documents() for line in (page.content or "").split("\n") if len(line.split()) > 6]
    rng, pages = random.Random(0), []
    for number in range(max(1, chunks * 100 // _WORDS_A_PAGE)):
        picked, words = [f"# Page {number}"], 0
        while words < _WORDS_A_PAGE:
            line = rng.choice(lines)
            picked.append(f"{line} See item {rng.randrange(10**6)}.")
            words += len(line.split())
        pages.append(Document(id=f"page-{number}", content="\n\n".join(picked), meta={"title": f"Page {number}"}))
    return pages


def folder_bytes(folder: Path, pattern: str) -> int:
    """Return the bytes of the files that match."""
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def measure_search(path: Path, queries: int = 40) -> dict[str, float]:
    """Return memory (bytes) that opening and searching the index added, and CPU seconds per query."""
    asked = [f"What does item {number} of the charging port mean?" for number in range(queries)]
    search = HybridSearch(EmbeddedStore(path), RandomEmbedder())
    before = _resident()
    search.retrieve_many(asked[:3])
    started = time.process_time()
    search.retrieve_many(asked)
    return {"memory": _resident() - before, "query": (time.process_time() - started) / queries}


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def build(folder: Path, chunks: int) -> dict[str, float]:
    """Index about `chunks` chunks in `folder`; return the figures of the index and of searching it."""
    store = EmbeddedStore(folder / "index.sqlite")
    started = time.process_time()
    report = index_documents(made_pages(chunks), store, RandomEmbedder(), RagConfig())
    seconds = time.process_time() - started
    store.close()
    total, sqlite = folder_bytes(folder, "*"), folder_bytes(folder, "index.sqlite*")
    command = [sys.executable, __file__, "--search", str(store.path)]
    searched = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {"chunks": report.chunks, "sqlite": sqlite, "derived": total - sqlite, "seconds": seconds, **searched}


def measure(chunks: int) -> Rates:
    """Build two indexes, embed some real chunks, and return the rates."""
    with tempfile.TemporaryDirectory() as small_folder, tempfile.TemporaryDirectory() as large_folder:
        small, large = build(Path(small_folder), chunks // 4), build(Path(large_folder), chunks)
        sample = EmbeddedStore(Path(small_folder) / "index.sqlite").filter_documents()[:96]
    more = large["chunks"] - small["chunks"]
    slope = max(0.0, (large["query"] - small["query"]) / more)
    texts = [indexed_text(chunk, True) for chunk in sample]
    sentences = [sentence for chunk in sample for sentence in sentence_texts(chunk, True)]
    embedder = Embedder(threads=1)
    embedder.embed_documents(sentences[:16])
    started = time.process_time()
    embedder.embed_documents(sentences)
    embed = (time.process_time() - started) / len(sample)
    return Rates(
        chunks=int(large["chunks"]),
        sqlite_bytes=(large["sqlite"] - small["sqlite"]) / more,
        derived_bytes=(large["derived"] - small["derived"]) / more,
        memory_bytes=max(0.0, (large["memory"] - small["memory"]) / more),
        index_seconds=large["seconds"] / large["chunks"],
        embed_seconds=embed,
        query_fixed=max(0.0, small["query"] - slope * small["chunks"]),
        query_per_chunk=slope,
        terms=sum(len(set(text.lower().split())) for text in texts) / len(texts),
    )


def page(rates: Rates, command: str) -> str:
    """Return the page with the rates and the table that follows from them."""
    milvus = DIMENSION * 4 + HNSW_LINKS * 2 * 4 + rates.terms * 8
    lines = [
        "# Capacity",
        "",
        "How far one machine goes, and what a cluster takes. The rates were measured, the table is computed from them:",
        "",
        f"    {command}",
        "",
        f"Measured on {rates.chunks:,} chunks of about 100 words, MiniLM vectors of {DIMENSION} numbers, one core:",
        "",
        "| rate | per chunk |",
        "|---|---:|",
        f"| SQLite: text, metadata, vectors | {rates.sqlite_bytes:,.0f} bytes |",
        f"| derived files (vectors, BM25) | {rates.derived_bytes:,.0f} bytes |",
        f"| memory of a searching process | {rates.memory_bytes:,.0f} bytes |",
        f"| cutting and indexing, without embedding | {1000 * rates.index_seconds:.2f} ms of CPU |",
        f"| embedding (OpenVINO, one core) | {1000 * rates.embed_seconds:.1f} ms of CPU |",
        f"| different words | {rates.terms:.0f} |",
        "",
        f"A query took {1000 * rates.query_fixed:.1f} ms of CPU and {1e6 * rates.query_per_chunk:.3f} ms more for each "
        "1,000 chunks (the query's own embedding, about 3 ms, not counted).",
        "",
        *_table(rates, milvus),
        "",
        *_notes(milvus),
    ]
    return "\n".join(lines) + "\n"


def _table(rates: Rates, milvus: float) -> list[str]:
    rows = [
        "| chunks | pages of 2,000 words | embedded store: disk | memory | CPU of a query "
        "| cutting and indexing, one core | embedding, 16 cores | embedding, 10 nodes of 16 cores (`--ray`) "
        "| Milvus: memory of the indexes "
        "| query nodes of 64 GB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size in SIZES:
        embedding = size * rates.embed_seconds / NODE_CORES
        nodes = math.ceil(size * milvus / (NODE_MEMORY * USABLE))
        rows.append(
            f"| {size:,} | {size // 20:,} | {_bytes(size * (rates.sqlite_bytes + rates.derived_bytes))} "
            f"| {_bytes(size * rates.memory_bytes)} | {_query(rates.query_fixed + size * rates.query_per_chunk)} "
            f"| {_time(size * rates.index_seconds)} | {_time(embedding)} "
            f"| {_time(embedding / 10)} "
            f"| {_bytes(size * milvus)} | {nodes} |"
        )
    return rows


def _notes(milvus: float) -> list[str]:
    return [
        "- Embedding dominates the first build at every size; a GPU or more nodes shorten it, and it is paid once per "
        "text, since vectors are kept by the text's hash.",
        "- The embedded store is meant for up to about a million chunks on one machine: one writer, any number of "
        "reading processes. What was measured and not computed at 100,000 and 1,000,000 chunks is told by "
        "`benchmarks/retrieval_speed.py`, its figures, where it was run, in `benchmarks/RESULTS.md`.",
        '- Beyond that, `store = "milvus://HOST:19530/NAME"`: the same chunks, words and fusion. Its memory is '
        f"computed as {milvus:,.0f} bytes a chunk: the vector in float32, {HNSW_LINKS} × 2 links of four bytes in the "
        f"graph (HNSW), eight bytes for each different word; a node's data may take {USABLE:.0%} of its memory. It was "
        "not measured on a cluster.",
        "- Indexes in memory are the costly part at 1e8 chunks: with vectors in half precision or product "
        "quantisation, or with Milvus's disk index, fewer nodes do; recall is then to be measured on your questions.",
    ]


def _bytes(value: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value / 1e3:.0f} kB"


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _query(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def main() -> int:
    """Measure, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=120_000)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        print(json.dumps(measure_search(options.search)))
    else:
        print(page(measure(options.chunks), f"python benchmarks/capacity.py --chunks {options.chunks}"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
