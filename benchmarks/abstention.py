"""Telling questions that the documents answer from those they do not: ROC AUC of confidence against single scores.

    VERSUS_BENCH_DATA=… python benchmarks/abstention.py clapnq

Single scores, read off retrieval or the quoted answer, are computed for every question. Versus's confidence is taken
three ways: by the prior weights, which this corpus had no part in; by weights fitted on its dev questions, as an arm
fits them; and, over the questions of all splits, cross-validated. Each is set against the best single score on the same
questions, with the 95 % interval of a paired bootstrap, answerable and unanswerable questions drawn apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from retrieval_quality import load_documents

from rag.abstention import PRIOR, ConfidenceWeights, Signals, cross_validated, fitted
from rag.answering import RagAnswerer
from rag.config import RagConfig
from rag.embedding import Embedder
from rag.indexing import index_documents
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore

SINGLE = (*Signals._fields, "best BM25", "best fused", "fused lead over the fifth", "quote confidence")
RESAMPLES = 2000


def rows(folder: Path, split: str) -> list[dict[str, object]]:
    """Return the questions of a split as they stand in the file."""
    text = (folder / f"questions.{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def scores_of(questions: list[str], answerer: RagAnswerer) -> NDArray[np.float64]:
    """Return one row of scores per question, in the order of SINGLE."""
    found = answerer.retriever.retrieve_many(questions, top_k=answerer.config.top_k)
    quotes = answerer.answer(questions)
    table = []
    for signals, chunks, quote in zip(answerer.signals(questions), found, quotes, strict=True):
        parts = [chunk.meta["scores"] for chunk in chunks] or [{"lexical": 0.0, "fused": 0.0}]
        fused = [part["fused"] for part in parts]
        quoted = float(quote.meta.get("quote_confidence", 0.0))
        table.append([*signals, max(part["lexical"] for part in parts), fused[0], fused[0] - fused[-1], quoted])
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
    """Print the ROC AUC of each score, and of confidence, on the test questions and on all."""
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
    for split in ("train", "dev", "test"):
        questions = rows(folder, split)
        tables[split] = scores_of([str(row["question"]) for row in questions], answerer)
        labels[split] = np.array([bool(row["answerable"]) for row in questions])
    whole, known = np.vstack(list(tables.values())), np.concatenate(list(labels.values()))
    dev = fitted(_signals(tables["dev"]), labels["dev"].tolist())
    apart = cross_validated(_signals(whole), known.tolist())
    report(
        "test", tables["test"], labels["test"], {"prior": _by(PRIOR, tables["test"]), "dev": _by(dev, tables["test"])}
    )
    report("all", whole, known, {"prior weights": _by(PRIOR, whole), "cross-validated": np.array(apart)})
    return 0


def report(
    name: str, table: NDArray[np.float64], answerable: NDArray[np.bool_], chosen: dict[str, NDArray[np.float64]]
) -> None:
    """Print the ROC AUC of each score on some questions, and how far the chosen ones are above the best single one."""
    areas = [_auc(column, answerable) for column in table.T]
    print(f"{name}: {len(answerable)} questions")
    for single, area in zip(SINGLE, areas, strict=True):
        print(f"  {single:28} {area:.3f}")
    best = int(np.argmax(areas))
    for way, scores in chosen.items():
        lead, low, high = lead_over(table[:, best], scores, answerable)
        area = _auc(scores, answerable)
        print(f"  Versus, {way:20} {area:.3f}, above {SINGLE[best]} by {lead:.3f} ({low:.3f} to {high:.3f})")


def _signals(table: NDArray[np.float64]) -> list[Signals]:
    return [Signals(*row[: len(Signals._fields)]) for row in table.tolist()]


def _by(weights: ConfidenceWeights, table: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([weights.confidence(signals) for signals in _signals(table)])


def _auc(scores: NDArray[np.float64], answerable: NDArray[np.bool_]) -> float:
    """Return the ROC AUC by ranks (Mann and Whitney 1947), ties counted half."""
    ranks = rankdata(scores)
    right, wrong = int(answerable.sum()), int((~answerable).sum())
    return float((ranks[answerable].sum() - right * (right + 1) / 2) / (right * wrong))


if __name__ == "__main__":
    raise SystemExit(main())
