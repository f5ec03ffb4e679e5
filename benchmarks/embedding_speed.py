"""Embedding documents on CPU: chunks a second, against Haystack's sentence-transformers embedder as it comes.

    pip install --no-deps --target peers sentence-transformers-haystack==2.0.0
    PYTHONPATH=peers python benchmarks/embedding_speed.py --threads 1

All sides embed the same chunks (real ones; see `made_chunks.py`) with the same model, all-MiniLM-L6-v2, loaded and
warmed up before, in turns: Haystack's `SentenceTransformersDocumentEmbedder()` with its own defaults, and Versus's
embedder on torch, on OpenVINO (bfloat16 where the processor has it) and on OpenVINO with int8, its default. Stated is
the median of the rounds, and the least cosine to Haystack's vectors. What rounding costs in finding the right page is
told by `retrieval_quality.py --embedders`. The first use of int8 calibrates for some ten seconds, not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import numpy as np
from haystack import Document
from made_chunks import real_pages
from numpy.typing import NDArray

from rag.chunking import chunk_document
from rag.config import RagConfig
from rag.embedding import Embedder, bundled_folder

Embed = Callable[[list[str]], NDArray[np.float32]]

BACKENDS = {
    "versus, torch": "torch",
    "versus, OpenVINO": "openvino",
    "versus, OpenVINO int8 (default)": "openvino-int8",
}
PEER = "haystack"


def haystack_side() -> Embed:
    """Return Haystack's document embedder with the bundled model, nothing else set but the progress bar."""
    from haystack_integrations.components.embedders import (  # type: ignore[import-not-found]
        sentence_transformers as peer,
    )

    embedder = peer.SentenceTransformersDocumentEmbedder(model=str(bundled_folder()), progress_bar=False)
    embedder.warm_up()

    def embed(texts: list[str]) -> NDArray[np.float32]:
        found = embedder.run(documents=[Document(content=text) for text in texts])["documents"]
        return np.array([document.embedding for document in found], dtype=np.float32)

    return embed


def sides(threads: int) -> dict[str, Embed]:
    """Return every side, its model loaded."""
    found: dict[str, Embed] = {PEER: haystack_side()}
    for name, backend in BACKENDS.items():
        found[name] = Embedder(backend=backend, threads=threads).embed_documents
    for embed in found.values():
        embed(["Loads the model, and reads the pages that it needs."] * 4)
    return found


def main() -> int:
    """Print one JSON object per side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    _, pages = real_pages(None)
    chunks = [chunk for page in pages for chunk in chunk_document(page, RagConfig())]
    drawn = np.random.default_rng(0).permutation(len(chunks))[: options.chunks]
    texts = [chunks[number].content or "" for number in drawn]
    taken: dict[str, list[float]] = {}
    vectors: dict[str, NDArray[np.float32]] = {}
    embedders = sides(options.threads)
    for _ in range(options.rounds):
        for name, embed in embedders.items():
            started = time.perf_counter()
            vectors[name] = embed(texts)
            taken.setdefault(name, []).append(time.perf_counter() - started)
    unit = {name: found / np.linalg.norm(found, axis=1, keepdims=True) for name, found in vectors.items()}
    for name, seconds in taken.items():
        rate = len(texts) / statistics.median(seconds)
        ratio = statistics.median(taken[PEER]) / statistics.median(seconds)
        least = float((unit[name] * unit[PEER]).sum(axis=1).min())
        figures = {
            "chunks_per_second": round(rate, 1),
            "times_haystack": round(ratio, 2),
            "least_cosine": round(least, 5),
        }
        print(json.dumps({"side": name, "chunks": len(texts), "threads": options.threads, **figures}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
