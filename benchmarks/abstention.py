"""Telling questions that the documents answer from those they do not: ROC AUC of confidence against single scores.

    VERSUS_BENCH_DATA=… python benchmarks/abstention.py clapnq

Single scores, read off retrieval or the quoted answer, are computed for every question, and so is `chosen`, what
Versus uses: the mean of best cosine and coverage. A logistic regression over all is fitted on the train questions;
everything is judged on the test questions. Below stands by how much `chosen` is above the best single score, with the
95 % interval of a paired bootstrap over questions, answerable and unanswerable ones drawn apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from retrieval_quality import load_documents

from rag.answering import RagAnswerer
from rag.config import RagConfig
from rag.embedding import Embedder
from rag.indexing import index_documents
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore

SINGLE = (
    "best cosine",
    "best BM25",
    "best fused",
    "fused lead over the fifth",
    "coverage alone",
    "quote confidence",
)
NAMES = (*SINGLE, "chosen")
RESAMPLES = 2000


def rows(folder: Path, split: str) -> list[dict[str, object]]:
    """Return the questions of a split as they stand in the file."""
    text = (folder / f"questions.{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def scores_of(questions: list[str], answerer: RagAnswerer) -> NDArray[np.float64]:
    """Return one row of scores per question, in the order of NAMES."""
    found = answerer.retriever.retrieve_many(questions, top_k=answerer.config.top_k)
    words = RagAnswerer(answerer.retriever, config=replace(answerer.config, dense_weight=0.0))
    quotes = answerer.answer(questions)
    table = []
    for question, chunks, quote in zip(questions, found, quotes, strict=True):
        parts = [chunk.meta["scores"] for chunk in chunks] or [{"dense": 0.0, "lexical": 0.0, "fused": 0.0}]
        fused = [part["fused"] for part in parts]
        best = [max(part[name] for part in parts) for name in ("dense", "lexical")]
        quoted = float(quote.meta.get("quote_confidence", 0.0))
        coverage = words.confidence(question, chunks)
        table.append([*best, fused[0], fused[0] - fused[-1], coverage, quoted, answerer.confidence(question, chunks)])
    return np.array(table)


def lead_over(best: NDArray[np.float64], chosen: NDArray[np.float64], answerable: NDArray[np.bool_]) -> list[float]:
    """Return how far the ROC AUC of `chosen` is above that of `best`, and the 95 % interval of that (bootstrap)."""
    rng = np.random.default_rng(0)
    right, wrong = np.flatnonzero(answerable), np.flatnonzero(~answerable)
    drawn = []
    for _ in range(RESAMPLES):
        own = np.concatenate([rng.choice(right, len(right)), rng.choice(wrong, len(wrong))])
        drawn.append(_auc(chosen[own], answerable[own]) - _auc(best[own], answerable[own]))
    whole = _auc(chosen, answerable) - _auc(best, answerable)
    return [whole, *np.percentile(drawn, [2.5, 97.5])]


def main() -> int:
    """Print the ROC AUC of each score, and of their combination, on the test questions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--work", type=Path, default=Path("workspace/benchmarks"))
    options = parser.parse_args()
    if "VERSUS_BENCH_DATA" not in os.environ:
        print("set VERSUS_BENCH_DATA to the folder that holds the question sets", file=sys.stderr)
        return 1
    folder = Path(os.environ["VERSUS_BENCH_DATA"]) / options.name
    config, embedder = RagConfig(), Embedder(threads=1)
    store = EmbeddedStore(options.work / options.name / "index.sqlite")
    index_documents(load_documents(folder), store, embedder, config)
    answerer = RagAnswerer(HybridSearch(store, embedder, config))
    tables, labels = {}, {}
    for split in ("train", "test"):
        questions = rows(folder, split)
        tables[split] = scores_of([str(row["question"]) for row in questions], answerer)
        labels[split] = np.array([bool(row["answerable"]) for row in questions])
    areas = [_auc(tables["test"][:, column], labels["test"]) for column in range(len(NAMES))]
    for name, area in zip(NAMES, areas, strict=True):
        print(f"{name:28} {area:.3f}")
    print(f"{'logistic regression of all':28} {_auc(_combined(tables, labels['train']), labels['test']):.3f}")
    best = int(np.argmax(areas[: len(SINGLE)]))
    lead, low, high = lead_over(tables["test"][:, best], tables["test"][:, -1], labels["test"])
    print(f"chosen is above {SINGLE[best]} by {lead:.3f} ({low:.3f} to {high:.3f})")
    return 0


def _combined(tables: dict[str, NDArray[np.float64]], answerable: NDArray[np.bool_]) -> NDArray[np.float64]:
    from scipy.optimize import minimize

    mean, spread = tables["train"].mean(axis=0), tables["train"].std(axis=0) + 1e-9
    train, test = ((tables[split] - mean) / spread for split in ("train", "test"))
    signs = np.where(answerable, 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> float:
        margins = signs * (train @ weights[:-1] + weights[-1])
        return float(np.logaddexp(0, -margins).mean() + 1e-3 * (weights[:-1] ** 2).sum())

    weights = minimize(loss, np.zeros(train.shape[1] + 1)).x
    combined: NDArray[np.float64] = test @ weights[:-1]
    return combined


def _auc(scores: NDArray[np.float64], answerable: NDArray[np.bool_]) -> float:
    """Return the ROC AUC by ranks (Mann and Whitney 1947), ties counted half."""
    ranks = rankdata(scores)
    right, wrong = int(answerable.sum()), int((~answerable).sum())
    return float((ranks[answerable].sum() - right * (right + 1) / 2) / (right * wrong))


if __name__ == "__main__":
    raise SystemExit(main())
