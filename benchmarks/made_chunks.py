"""Chunks for timing, any number of them: real chunks drawn again, each with a sentence that no other chunk has.

The real chunks are those of the Kubernetes pages in `$VERSUS_BENCH_DATA` (about 15,600), or of the sample corpora where
that is not set. A made chunk is the text of one of them and its unique sentence; its sentence vectors are the real
ones, each perturbed on its own (`PERTURBED`), so that the vectors cluster as the real ones do. The unique sentence,
whose number no embedder can tell from another, has a perturbed vector of the chunk too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from haystack import Document
from numpy.typing import NDArray

from data_prep.corpus import SAMPLE_CORPORA, load_corpus, title_of
from rag.config import RagConfig
from rag.embedding import Embedder
from rag.indexing import index_documents
from rag.store import EmbeddedStore
from rag.vectors import pack_sentences, unpack_sentences

Vectors = NDArray[np.float32]

PERTURBED = 0.02
"""Standard deviation of what is added to each component; the cosine with the real vector is then about 0.93."""

BLOCK = 20_000
"""Chunks made at once."""


@dataclass(frozen=True)
class Pool:
    """Real chunks: texts, and vectors of their sentences, those of chunk i from starts[i] to starts[i + 1]."""

    name: str
    texts: list[str]
    vectors: Vectors
    starts: NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Some made chunks: documents, their vectors, shape (n, d), and their packed sentence vectors."""

    documents: list[Document]
    vectors: Vectors
    packed: list[bytes]


def real_pages(most: int | None) -> tuple[str, list[Document]]:
    """Return a name and at most `most` real pages: of the benchmark's data where that is there, else the samples."""
    folder = os.environ.get("VERSUS_BENCH_DATA")
    if folder is None:
        corpora = [load_corpus(path) for path in sorted(SAMPLE_CORPORA.iterdir()) if (path / "corpus.toml").is_file()]
        return "samples", [page for corpus in corpora for page in corpus.documents()][:most]
    pages = []
    for path in sorted((Path(folder) / "kubernetes-qa" / "docs").glob("*.md"))[:most]:
        text = path.read_text(encoding="utf-8")
        pages.append(Document(id=path.stem, content=text, meta={"title": title_of(text, path.stem)}))
    return "kubernetes-qa", pages


def chunk_pool(embedder: Embedder, work: Path, most: int | None = None) -> Pool:
    """Return the real chunks, embedded once: the index of them below `work` is kept (`retrieval_quality.py`'s)."""
    name, pages = real_pages(most)
    store = EmbeddedStore(work / (name if most is None else f"{name}-{most}") / "index.sqlite")
    index_documents(pages, store, embedder, RagConfig())
    with store.reading() as connection:
        assert connection is not None
        query = "SELECT content, vectors FROM chunks JOIN sentences ON hash = embedding ORDER BY row"
        rows = connection.execute(query).fetchall()
    held = unpack_sentences([row[1] for row in rows], embedder.dimension)
    vectors = held.sentences.astype(np.float32) * held.scales[:, None]
    return Pool(name, [row[0] for row in rows], vectors, held.sentence_starts)


def made_blocks(pool: Pool, chunks: int, first: int = 0) -> Iterator[Block]:
    """Yield `chunks` made chunks from number `first` on, `BLOCK` at a time; the same each time."""
    for begin in range(first, first + chunks, BLOCK):
        yield _block(pool, begin, min(BLOCK, first + chunks - begin))


def _block(pool: Pool, first: int, count: int) -> Block:
    rng = np.random.default_rng(first + 1)
    drawn = rng.integers(len(pool.texts), size=count)
    documents, means, packed = [], [], []
    for number, chosen in enumerate(drawn, first):
        own = pool.vectors[pool.starts[chosen] : pool.starts[chosen + 1]]
        parts = np.concatenate([own, own[-1:]])
        parts += PERTURBED * rng.standard_normal(parts.shape, dtype=np.float32)
        parts /= np.linalg.norm(parts, axis=1, keepdims=True)
        mean = parts.mean(axis=0)
        documents.append(_chunk(number, pool.texts[chosen]))
        means.append(mean / np.linalg.norm(mean))
        packed.append(pack_sentences(parts))
    return Block(documents, np.stack(means), packed)


def _chunk(number: int, text: str) -> Document:
    content = f"{text}\n\n{fact(number)}"
    meta = {"document": f"d{number // 5}", "title": "Manual", "section": "", "start": 0, "end": len(content)}
    return Document(id=f"c{number}", content=content, meta=meta)


def fact(number: int) -> str:
    """Return the sentence that only chunk `number` has."""
    return f"Module KX{number:07d} needs {number % 997} newton metres at bolt {number % 89}."


def question(number: int) -> str:
    """Return a question whose answer stands in chunk `number` alone."""
    return f"How many newton metres does module KX{number:07d} need at its bolt?"
