"""Which document is found at which rank, on the question sets in `$VERSUS_BENCH_DATA`.

    python benchmarks/retrieval_quality.py tesla-model3 --split all
    python benchmarks/retrieval_quality.py kubernetes-qa --split test --presets
    python benchmarks/retrieval_quality.py tesla-model3 --split all --embedders

Each question set is a folder with `docs/<stem>.md` and `questions.<split>.jsonl` (`questions.jsonl` for `all`), the
right document of a question under `doc`. Indexes are kept in `--work`, so that a second run embeds nothing. Below
each line stands the default's lead in nDCG@10 over it, with its 95 % interval over documents and p. `--embedders`
compares instead the default (int8) with torch in float32 and with OpenVINO unrounded (bfloat16 where the processor has
it), each over an index that it embedded itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

from rag.torchfree import block_torch

if "--embedders" not in sys.argv:
    block_torch()

from haystack import Document

from comparison_app.statistics import paired_difference
from data_prep.corpus import title_of
from data_prep.questions import Evidence, Question
from rag.config import PRESETS, RagConfig, index_file_name
from rag.embedding import Embedder
from rag.evaluation import evaluate_retrieval, retrieval_scores
from rag.indexing import index_documents
from rag.refining import refined
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore

DEPTH = 50
"""Chunks asked for, since several may be of one document; a reranker is given its own number of candidates."""


def load_documents(folder: Path) -> list[Document]:
    """Return the pages of a question set, titled by their first heading."""
    documents = []
    for path in sorted((folder / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        documents.append(Document(id=path.stem, content=text, meta={"title": title_of(text, path.stem)}))
    return documents


def load_questions(folder: Path, split: str) -> list[Question]:
    """Return the answerable questions of a split, each with its whole document as evidence."""
    path = folder / ("questions.jsonl" if split == "all" else f"questions.{split}.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Question(row["id"], row["question"], (row["answer"],), (Evidence(row["doc"]),))
        for row in rows
        if row["answerable"]
    ]


def settings(with_presets: bool, embedders: bool) -> dict[str, RagConfig]:
    """Return the configurations to compare: the default, its stages alone, the other fusion, the presets.

    Or what runs the embedder: the default, in int8, torch in float32, OpenVINO unrounded.
    """
    default = RagConfig()
    if embedders:
        exact = {"torch, float32": "torch", "openvino": "openvino"}
        return {"default": default, **{name: replace(default, backend=backend) for name, backend in exact.items()}}
    chosen = {
        "default": default,
        "BM25 alone": replace(default, dense_weight=0.0),
        "dense alone": replace(default, lexical_weight=0.0),
        "rank fusion": replace(default, fusion="rrf"),
    }
    return {**chosen, **{name: PRESETS[name] for name in PRESETS if name != "default"}} if with_presets else chosen


def measure(
    config: RagConfig, documents: list[Document], questions: list[Question], work: Path
) -> tuple[dict[str, float], list[float]]:
    """Index `documents` for `config` and ask all `questions`.

    Returns the measures, with seconds per query, and each question's nDCG@10.
    """
    folder = work / "torch" if config.backend == "torch" else work  # its index would have the default's name
    store = EmbeddedStore(folder / index_file_name(config))
    embedder = Embedder.from_config(config)
    index_documents(documents, store, embedder, config)
    search = refined(HybridSearch(store, embedder, config))
    search.warm_up()
    started = time.perf_counter()
    wanted = config.candidates if config.reranker else max(DEPTH, config.top_k)
    found = search.retrieve_many([question.question for question in questions], top_k=wanted)
    seconds = (time.perf_counter() - started) / len(questions)
    gains = [
        retrieval_scores(question.evidence, chunks)["ndcg@10"]
        for question, chunks in zip(questions, found, strict=True)
    ]
    return {**evaluate_retrieval(questions, found), "seconds": seconds}, gains


def lead(default: list[float], other: list[float], questions: list[Question]) -> str:
    """Return the default's lead over another configuration in words; questions of a document go together."""
    found = paired_difference(default, other, [question.evidence[0].document for question in questions])
    between = "" if found.low is None else f" ({found.low:.4f} to {found.high:.4f})"
    return f"  default leads by {found.difference:.4f}{between}, p {found.p_value:.4f}"


def main() -> int:
    """Print one line per configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--split", default="test")
    parser.add_argument("--presets", action="store_true")
    parser.add_argument("--embedders", action="store_true", help="compare the embedder's backends instead")
    parser.add_argument("--work", type=Path, default=Path("workspace/benchmarks"))
    options = parser.parse_args()
    if "VERSUS_BENCH_DATA" not in os.environ:
        print("set VERSUS_BENCH_DATA to the folder that holds the question sets", file=sys.stderr)
        return 1
    folder = Path(os.environ["VERSUS_BENCH_DATA"]) / options.name
    documents, questions = load_documents(folder), load_questions(folder, options.split)
    print(f"{options.name} {options.split}: {len(documents)} documents, {len(questions)} questions")
    columns = ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10", "seconds")
    print(f"{'':16}" + "".join(f"{column:>11}" for column in columns))
    leads_over: list[float] = []
    for name, config in settings(options.presets, options.embedders).items():
        work = options.work / options.name / (config.backend if options.embedders else "")
        row, gains = measure(config, documents, questions, work)
        print(f"{name:16}" + "".join(f"{row[column]:11.4f}" for column in columns), flush=True)
        if leads_over:
            print(lead(leads_over, gains, questions), flush=True)
        leads_over = leads_over or gains
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
