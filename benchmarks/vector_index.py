"""What finds the nearest vectors: all compared, HNSW, or inverted files (IVF-PQ, IVF-SQ8), on real sentence vectors.

    OMP_NUM_THREADS=1 python benchmarks/vector_index.py --vectors 60000

The vectors are sentences of real chunks (`made_chunks.py`; few without `VERSUS_BENCH_DATA`); the queries are other
sentences of the same pages. Stated for each: recall@10 of the exact ten, milliseconds a query (median and p95, one at a
time), megabytes of the index, seconds to build it. `rag.vectors.build_ivf` is what Versus uses, its hits scored again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from rag.torchfree import block_torch

block_torch()

import faiss  # noqa: E402
import numpy as np  # noqa: E402
from made_chunks import Vectors, chunk_pool  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from rag.embedding import Embedder  # noqa: E402
from rag.vectors import PROBED_SHARE, build_ivf, nearest_in  # noqa: E402

Find = Callable[[Vectors], NDArray[np.int64]]
"""From a query to the places of its ten nearest."""


def hnsw(matrix: Vectors) -> Any:
    """Return a graph of 32 links a vector (Malkov and Yashunin 2018)."""
    index = faiss.IndexHNSWFlat(matrix.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = 80, 64
    index.add(matrix)
    return index


def ivf_pq(matrix: Vectors) -> Any:
    """Return an inverted file of product-quantised vectors, 48 bytes each (Jégou, Douze and Schmid 2011)."""
    lists = max(1, min(int(4 * len(matrix) ** 0.5), len(matrix) // 40))
    quantizer = faiss.IndexFlatIP(matrix.shape[1])
    index = faiss.IndexIVFPQ(quantizer, matrix.shape[1], lists, 48, 8, faiss.METRIC_INNER_PRODUCT)
    index.train(matrix)
    index.add(matrix)
    index.nprobe = max(8, int(lists * PROBED_SHARE))
    return index


def sides(matrix: Vectors) -> dict[str, tuple[Callable[[], Any], Callable[[Any], Find]]]:
    """Return for each kind how it is built, and how the built one is asked."""

    def searched(index: Any) -> Find:
        return lambda query: np.asarray(index.search(query[None], 10)[1][0])

    def ours(index: Any) -> Find:
        return lambda query: nearest_in(matrix, index, query, 10, None)[0]

    return {
        "all compared": (lambda: None, ours),
        "HNSW32": (lambda: hnsw(matrix), searched),
        "IVF-PQ48": (lambda: ivf_pq(matrix), searched),
        "IVF-SQ8 (used)": (lambda: build_ivf(matrix), ours),
    }


def main() -> int:
    """Print one JSON object per kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=60_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--pages", type=int, help="real pages to take sentences from; all unless given")
    parser.add_argument("--work", type=Path, default=Path("workspace/benchmarks"))
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    held = chunk_pool(Embedder(threads=1), options.work, options.pages).vectors
    shuffled = held[np.random.default_rng(0).permutation(len(held))]
    queries, matrix = shuffled[: options.queries], shuffled[options.queries :][: options.vectors]
    exact = [np.argsort(-(matrix @ query))[:10] for query in queries]
    for name, (build, asked) in sides(matrix).items():
        started = time.perf_counter()
        index = build()
        built, find, hits, taken = time.perf_counter() - started, asked(index), 0, []
        for query, right in zip(queries, exact, strict=True):
            began = time.perf_counter()
            found = find(query)
            taken.append(1000 * (time.perf_counter() - began))
            hits += len(np.intersect1d(found, right))
        size = matrix.nbytes if index is None else len(faiss.serialize_index(index))
        figures = {
            "vectors": len(matrix),
            "recall_at_10": round(hits / (10 * len(queries)), 4),
            "ms": round(float(np.median(taken)), 3),
            "p95_ms": round(float(np.percentile(taken, 95)), 3),
            "megabytes": round(size / 2**20, 1),
            "build_seconds": round(built, 2),
        }
        print(json.dumps({"index": name, **figures}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
