"""Queries per second, opening, memory, and one added document, against LangChain's and Haystack's hybrid retrieval.

    OMP_NUM_THREADS=1 python benchmarks/retrieval_speed.py --chunks 100000
    OMP_NUM_THREADS=1 python benchmarks/retrieval_speed.py --chunks 1000000 --no-peers

The chunks are made (`made_chunks.py`): real chunks drawn again, each with a unique sentence, their real vectors
perturbed. Each question asks for the unique fact of one chunk, so nDCG@10 has one right chunk. All sides hold the same
texts and the same chunk vectors, embed questions with the same model, and run one after the other, one thread each.
Versus answers in a new process, whose memory is its own; `cold` means a new process, not an empty page cache. With
`VERSUS_BENCH_DATA` the real chunks are those of the Kubernetes pages, whose index in `--work` is made once (minutes).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

for _name, _value in {"HAYSTACK_TELEMETRY_ENABLED": "False", "OMP_NUM_THREADS": "1"}.items():
    os.environ.setdefault(_name, _value)

from rag.torchfree import block_torch  # noqa: E402

block_torch()

import numpy as np  # noqa: E402
from haystack import Document  # noqa: E402 - after the block, so that Haystack does not import torch
from numpy.typing import NDArray  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))

from made_chunks import Pool, chunk_pool, made_blocks, question  # noqa: E402
from peak_memory import peak_bytes  # noqa: E402

from rag.config import RagConfig  # noqa: E402
from rag.derived import load_snapshot, update_derived  # noqa: E402
from rag.embedding import Embedder  # noqa: E402
from rag.evaluation import ndcg  # noqa: E402
from rag.indexing import index_documents  # noqa: E402
from rag.retrieval import HybridSearch  # noqa: E402
from rag.store import EmbeddedStore  # noqa: E402
from rag.tables import insert_chunks, put_setting, put_source, save_sentences, save_vectors  # noqa: E402

Vectors = NDArray[np.float32]
Ask = Callable[[str], list[str]]
"""From a question to the ids of ten chunks."""

_COMMITTED = 250_000
"""Chunks committed, and written as one segment, together."""
_NOBODY = 9_999_999
"""Number of a chunk that is not there, asked for to warm up."""
_COLD = (
    "import sys,time;t=time.perf_counter();from rag.torchfree import block_torch;block_torch();"
    "from rag.store import EmbeddedStore;from rag.derived import load_snapshot;"
    "load_snapshot(EmbeddedStore(sys.argv[1]),'bm25',True);print(time.perf_counter()-t)"
)


def filled_store(path: Path, pool: Pool, chunks: int, config: RagConfig, embedder: Embedder) -> EmbeddedStore:
    """Return a store of `chunks` made chunks, its derived files written."""
    store = EmbeddedStore(path)
    for first in range(0, chunks, _COMMITTED):
        count = min(_COMMITTED, chunks - first)
        with store.committing() as connection:
            for block in made_blocks(pool, count, first):
                keys = [document.id for document in block.documents]
                save_vectors(connection, keys, block.vectors)
                save_sentences(connection, dict(zip(keys, block.packed, strict=True)))
                insert_chunks(connection, zip(block.documents, keys, strict=True))
            for source in range(first // 5, (first + count + 4) // 5):
                put_source(connection, Document(id=f"d{source}", content=""), f"made-{source}")
            for key, value in _settings(config, embedder).items():
                put_setting(connection, key, value)
        update_derived(store, config.heading_context)
    return store


def _settings(config: RagConfig, embedder: Embedder) -> dict[str, str]:
    return {
        "embedder": embedder.fingerprint,
        "dimension": str(embedder.dimension),
        "chunk_hash": config.chunk_hash(),
        "language": "en",
    }


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
    ask(question(_NOBODY))
    seconds, gains = [], []
    for number in numbers:
        started = time.perf_counter()
        found = ask(question(number))
        seconds.append(time.perf_counter() - started)
        gains.append(ndcg(found, {f"c{number}"}, 10))
    return {
        "questions": len(numbers),
        "queries_per_second": len(seconds) / sum(seconds),
        "p50_ms": 1000 * float(np.percentile(seconds, 50)),
        "p95_ms": 1000 * float(np.percentile(seconds, 95)),
        "ndcg@10": float(np.mean(gains)),
    }


def answering(path: Path, numbers: list[int]) -> dict[str, float]:
    """Open the index at `path`, ask, and return the figures of `timed` and this process's highest memory."""
    found = timed(versus_side(EmbeddedStore(path), Embedder(threads=1), RagConfig(top_k=10)), numbers)
    return {**found, "peak_rss_gb": peak_bytes() / 2**30}


def in_new_process(path: Path, numbers: list[int]) -> dict[str, float]:
    """Return `answering` of another process."""
    command = [sys.executable, __file__, "--answer", str(path), "--numbers", ",".join(map(str, numbers))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def approximate_recall(store: EmbeddedStore, pool: Pool, count: int) -> dict[str, float]:
    """Return the share of the exact ten nearest chunk vectors that the index finds, over perturbed chunk vectors.

    Beside it the milliseconds (p95) of comparing all vectors and of the index.
    """
    snapshot = load_snapshot(store, "bm25", True)
    queries = next(made_blocks(pool, count, 77_000_000)).vectors
    hits, exact_seconds, seconds = 0, [], []
    for query in queries:
        started = time.perf_counter()
        exact = np.concatenate([segment.matrix @ query for segment in snapshot.segments])
        best = np.argpartition(-exact, 10)[:10]
        exact_seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        near = snapshot.nearest(query, 10)
        seconds.append(time.perf_counter() - started)
        hits += len(np.intersect1d(best, near))
    return {
        "recall_at_10": hits / (10 * count),
        "p95_ms": 1000 * float(np.percentile(seconds, 95)),
        "exact_p95_ms": 1000 * float(np.percentile(exact_seconds, 95)),
    }


def added_seconds(store: EmbeddedStore, embedder: Embedder, config: RagConfig) -> float:
    """Return the seconds from adding one document until open searches find it, by embedding alone and by words alone.

    Raises `RuntimeError` where one of the stages does not.
    """
    alone = {"dense": replace(config, lexical_weight=0.0), "lexical": replace(config, dense_weight=0.0)}
    stages = {name: HybridSearch(store, embedder, only) for name, only in alone.items()}
    for stage in stages.values():
        stage.warm_up()
    embedder.warm_up()
    started = time.perf_counter()
    page = Document(id="new", content="The zeppelin mooring ring takes 31 kilonewtons.", meta={"title": "New"})
    index_documents([page], store, embedder, config, keep_others=True)
    for name, stage in stages.items():
        found = stage.retrieve_many(["How many kilonewtons does the zeppelin mooring ring take?"])[0]
        if found[0].meta["document"] != "new":
            raise RuntimeError(f"the added document was not found by the {name} stage")
    return time.perf_counter() - started


def peers(pool: Pool, embedder: Embedder, chunks: int, numbers: list[int]) -> None:
    """Ask LangChain's and Haystack's retrieval, over the same chunks and vectors."""
    blocks = list(made_blocks(pool, chunks))
    documents = [document for block in blocks for document in block.documents]
    vectors = np.concatenate([block.vectors for block in blocks])
    del blocks
    for name, side in (("langchain", langchain_side), ("haystack", haystack_side)):
        _say(name, **timed(side(documents, vectors, embedder), numbers))


def main() -> int:
    """Print one JSON object per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--peer-queries", type=int, default=20)
    parser.add_argument("--pages", type=int, help="real pages to draw chunks from; all unless given")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("workspace/benchmarks"), help="where the real index is kept")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--numbers", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        print(json.dumps(answering(options.answer, [int(number) for number in options.numbers.split(",")])))
        return 0
    config, embedder = RagConfig(top_k=10), Embedder(threads=1)
    pool = chunk_pool(embedder, options.work, options.pages)
    _say("real chunks", source=pool.name, chunks=len(pool.texts), sentences=len(pool.vectors))
    numbers = [int(n) for n in np.random.default_rng(5).integers(options.chunks, size=options.queries)]
    with tempfile.TemporaryDirectory() as folder:
        versus(Path(folder) / "index.sqlite", pool, options.chunks, numbers, options.peer_queries, config, embedder)
    if not options.no_peers:
        peers(pool, embedder, options.chunks, numbers[: options.peer_queries])
    return 0


def versus(
    path: Path, pool: Pool, chunks: int, numbers: list[int], few: int, config: RagConfig, embedder: Embedder
) -> None:
    """Build an index at `path`, and print Versus's figures; the first `few` questions are those of the peers."""
    started = time.perf_counter()
    store = filled_store(path, pool, chunks, config, embedder)
    _say("built", chunks=chunks, seconds=time.perf_counter() - started, megabytes=_megabytes(path.parent))
    cold = subprocess.run([sys.executable, "-c", _COLD, str(path)], capture_output=True, text=True, check=True)
    _say("opened cold (a new process, imports included)", seconds=float(cold.stdout))
    _say("versus", **in_new_process(path, numbers))
    _say("versus, the peers' questions", **in_new_process(path, numbers[:few]))
    _say("approximate against exact", **approximate_recall(store, pool, 50))
    _say("one document added and found by both stages", seconds=added_seconds(store, embedder, config))


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def _say(name: str, **figures: Any) -> None:
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps({"what": name, **rounded}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
