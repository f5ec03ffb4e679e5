"""Queries per second, opening, and one added document, against LangChain's and Haystack's hybrid retrieval.

    OMP_NUM_THREADS=1 python benchmarks/retrieval_speed.py --chunks 100000
    OMP_NUM_THREADS=1 python benchmarks/retrieval_speed.py --chunks 1000000 --no-peers

The corpus is made here: each chunk is six sentences drawn from the sample manual and one sentence that no other chunk
has. A chunk's vectors are its sentences' real ones; the unique sentence has a drawn sentence's vector, perturbed. Each
question asks for the unique fact of one chunk, so nDCG@10 has one right chunk. All sides hold the same texts and the
same chunk vectors, embed questions with the same model, and run one after the other in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _name, _value in {"HAYSTACK_TELEMETRY_ENABLED": "False", "OMP_NUM_THREADS": "1"}.items():
    os.environ.setdefault(_name, _value)

from rag.torchfree import block_torch  # noqa: E402

block_torch()

import numpy as np  # noqa: E402
from haystack import Document  # noqa: E402 - after the block, so that Haystack does not import torch
from numpy.typing import NDArray  # noqa: E402

from data_prep.corpus import load_corpus  # noqa: E402
from rag.chunking import chunk_document  # noqa: E402
from rag.config import RagConfig  # noqa: E402
from rag.derived import load_snapshot, update_derived  # noqa: E402
from rag.embedding import Embedder  # noqa: E402
from rag.evaluation import ndcg  # noqa: E402
from rag.indexing import index_documents  # noqa: E402
from rag.retrieval import HybridSearch  # noqa: E402
from rag.sentences import sentence_texts  # noqa: E402
from rag.store import EmbeddedStore, insert_chunks, put_setting, put_source, save_sentences, save_vectors  # noqa: E402
from rag.vectors import pack_sentences  # noqa: E402

Vectors = NDArray[np.float32]
Ask = Callable[[str], list[str]]
"""From a question to the ids of ten chunks."""

_BATCH = 20_000
_COLD = (
    "import sys,time;t=time.perf_counter();from rag.torchfree import block_torch;block_torch();"
    "from rag.store import EmbeddedStore;from rag.derived import load_snapshot;"
    "load_snapshot(EmbeddedStore(sys.argv[1]),'bm25',True);print(time.perf_counter()-t)"
)


@dataclass(frozen=True)
class Pool:
    """Sentences of the sample manual with their vectors."""

    texts: list[str]
    vectors: Vectors


def sentence_pool(embedder: Embedder, most: int) -> Pool:
    """Return at most `most` different sentences of the sample manual, embedded."""
    root = Path(__file__).resolve().parent.parent / "docs_corpus" / "tern-manual"
    chunks = [c for document in load_corpus(root).documents() for c in chunk_document(document, RagConfig())]
    texts = list(dict.fromkeys(text for chunk in chunks for text in sentence_texts(chunk, False)))
    random.Random(0).shuffle(texts)
    return Pool(texts[:most], embedder.embed_documents(texts[:most]))


def made_chunks(pool: Pool, first: int, count: int) -> tuple[list[Document], Vectors, list[bytes]]:
    """Return chunks number `first` and on: documents, their vectors (count, d), their packed sentence vectors."""
    rng = np.random.default_rng(first + 1)
    drawn = rng.integers(len(pool.texts), size=(count, 7))
    noise = rng.normal(scale=0.02, size=(count, pool.vectors.shape[1])).astype(np.float32)
    documents, means, packed = [], [], []
    for row, members in enumerate(drawn):
        parts = pool.vectors[members].copy()
        parts[6] += noise[row]
        parts /= np.linalg.norm(parts, axis=1, keepdims=True)
        mean = parts.mean(axis=0)
        documents.append(_chunk(first + row, [pool.texts[m] for m in members[:6]]))
        means.append(mean / np.linalg.norm(mean))
        packed.append(pack_sentences(parts))
    return documents, np.stack(means), packed


def _chunk(number: int, sentences: list[str]) -> Document:
    content = f"{' '.join(sentences)} {fact(number)}"
    meta = {"document": f"d{number // 5}", "title": "Manual", "section": "", "start": 0, "end": len(content)}
    return Document(id=f"c{number}", content=content, meta=meta)


def fact(number: int) -> str:
    """Return the sentence that only chunk `number` has."""
    return f"Module KX{number:07d} needs {number % 997} newton metres at bolt {number % 89}."


def question(number: int) -> str:
    """Return a question whose answer stands in chunk `number` alone."""
    return f"How many newton metres does module KX{number:07d} need at its bolt?"


def filled_store(path: Path, pool: Pool, chunks: int, config: RagConfig, embedder: Embedder) -> EmbeddedStore:
    """Return a store of `chunks` made chunks, its derived files written."""
    store = EmbeddedStore(path)
    with store.committing() as connection:
        for first in range(0, chunks, _BATCH):
            documents, vectors, packed = made_chunks(pool, first, min(_BATCH, chunks - first))
            keys = [document.id for document in documents]
            save_vectors(connection, keys, vectors)
            save_sentences(connection, dict(zip(keys, packed, strict=True)))
            insert_chunks(connection, zip(documents, keys, strict=True))
        for source in range(0, (chunks + 4) // 5):
            put_source(connection, Document(id=f"d{source}", content=""), f"made-{source}")
        settings = {
            "embedder": embedder.fingerprint,
            "dimension": str(embedder.dimension),
            "chunk_hash": config.chunk_hash(),
            "language": "en",
        }
        for key, value in settings.items():
            put_setting(connection, key, value)
    update_derived(store, config.heading_context)
    return store


def versus_side(store: EmbeddedStore, embedder: Embedder, config: RagConfig) -> Ask:
    """Return Versus's hybrid retrieval."""
    search = HybridSearch(store, embedder, config)
    search.warm_up()
    return lambda text: [chunk.id for chunk in search.retrieve_many([text], top_k=10)[0]]


def langchain_side(documents: list[Document], vectors: Vectors, embedder: Embedder) -> Ask:
    """Return LangChain's EnsembleRetriever over rank-bm25 and FAISS, as their documentation puts them together."""
    from langchain_classic.retrievers import EnsembleRetriever
    from langchain_community.retrievers import BM25Retriever
    from langchain_community.vectorstores import FAISS
    from langchain_core.embeddings import Embeddings

    class Same(Embeddings):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [vector.tolist() for vector in embedder.embed_documents(texts)]

        def embed_query(self, text: str) -> list[float]:
            return [float(value) for value in embedder.embed_queries([text])[0]]

    texts, metas = [d.content or "" for d in documents], [{"id": d.id} for d in documents]
    lexical = BM25Retriever.from_texts(texts, metadatas=metas, k=10)
    pairs = list(zip(texts, vectors.tolist(), strict=True))
    dense = FAISS.from_embeddings(pairs, Same(), metadatas=metas).as_retriever(search_kwargs={"k": 10})
    both = EnsembleRetriever(retrievers=[lexical, dense], weights=[0.5, 0.5])
    return lambda text: [str(found.metadata["id"]) for found in both.invoke(text)[:10]]


def haystack_side(documents: list[Document], vectors: Vectors, embedder: Embedder) -> Ask:
    """Return Haystack's in-memory BM25 and embedding retrievers, joined by reciprocal ranks."""
    from dataclasses import replace

    from haystack.components.joiners import DocumentJoiner
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    pairs = zip(documents, vectors, strict=True)
    store.write_documents([replace(d, embedding=v.tolist()) for d, v in pairs])
    lexical, dense = InMemoryBM25Retriever(store, top_k=10), InMemoryEmbeddingRetriever(store, top_k=10)
    joiner = DocumentJoiner("reciprocal_rank_fusion", top_k=10)

    def ask(text: str) -> list[str]:
        vector = embedder.embed_queries([text])[0].tolist()
        lists = [lexical.run(query=text)["documents"], dense.run(query_embedding=vector)["documents"]]
        return [found.id for found in joiner.run(documents=lists)["documents"]]

    return ask


def timed(ask: Ask, numbers: list[int]) -> dict[str, float]:
    """Ask for the chunks of those numbers; return queries per second, p50 and p95 in milliseconds, and nDCG@10."""
    ask(question(numbers[0]))
    seconds, gains = [], []
    for number in numbers:
        started = time.perf_counter()
        found = ask(question(number))
        seconds.append(time.perf_counter() - started)
        gains.append(ndcg(found, {f"c{number}"}, 10))
    return {
        "queries_per_second": len(seconds) / sum(seconds),
        "p50_ms": 1000 * float(np.percentile(seconds, 50)),
        "p95_ms": 1000 * float(np.percentile(seconds, 95)),
        "ndcg@10": float(np.mean(gains)),
    }


def approximate_recall(store: EmbeddedStore, pool: Pool, count: int) -> float:
    """Return the share of the exact ten nearest chunk vectors that the index finds, over perturbed chunk vectors."""
    snapshot = load_snapshot(store, "bm25", True)
    _, queries, _ = made_chunks(pool, 77_000_000, count)
    hits = 0
    for query in queries:
        exact = np.concatenate([segment.matrix @ query for segment in snapshot.segments])
        hits += len(np.intersect1d(np.argsort(-exact)[:10], snapshot.nearest(query, 10)))
    return hits / (10 * count)


def added_seconds(store: EmbeddedStore, embedder: Embedder, config: RagConfig) -> float:
    """Return the seconds from adding one document until an open search finds it."""
    search = HybridSearch(store, embedder, config)
    search.warm_up()
    started = time.perf_counter()
    page = Document(id="new", content="The zeppelin mooring ring takes 31 kilonewtons.", meta={"title": "New"})
    index_documents([page], store, embedder, config, keep_others=True)
    found = search.retrieve_many(["How many kilonewtons does the zeppelin mooring ring take?"])[0]
    assert found[0].meta["document"] == "new"
    return time.perf_counter() - started


def main() -> int:
    """Print one JSON object per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--peer-queries", type=int, default=20)
    parser.add_argument("--pool", type=int, default=1000, help="different sentences to draw from")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    config, embedder = RagConfig(top_k=10), Embedder(threads=1)
    pool = sentence_pool(embedder, options.pool)
    numbers = [int(n) for n in np.random.default_rng(5).integers(options.chunks, size=options.queries)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.sqlite"
        started = time.perf_counter()
        store = filled_store(path, pool, options.chunks, config, embedder)
        _say("built", chunks=options.chunks, seconds=time.perf_counter() - started, megabytes=_megabytes(path.parent))
        cold = subprocess.run([sys.executable, "-c", _COLD, str(path)], capture_output=True, text=True, check=True)
        _say("opened cold, with imports", seconds=float(cold.stdout))
        _say("versus", **timed(versus_side(store, embedder, config), numbers))
        _say("versus, approximate against exact", recall_at_10=approximate_recall(store, pool, 50))
        _say("one document added and found", seconds=added_seconds(store, embedder, config))
        _say("memory", peak_rss_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    if not options.no_peers:
        documents, vectors, _ = made_chunks(pool, 0, options.chunks)
        for name, side in (("langchain", langchain_side), ("haystack", haystack_side)):
            _say(name, **timed(side(documents, vectors, embedder), numbers[: options.peer_queries]))
    return 0


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def _say(name: str, **figures: Any) -> None:
    print(json.dumps({"what": name, **{k: round(v, 4) for k, v in figures.items()}}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
