"""Recall@1 on unseen pages before and after an embedder is tuned on a corpus's train questions.

    python benchmarks/tuned_embedder.py tern-manual --recipe embedder --pairs 400 --max-seconds 900
    python benchmarks/tuned_embedder.py tern-manual --recipe embedder-pairwise --pairs 400 --max-seconds 900

Measured on the test questions of the slice unseen-page (no question of their pages was trained on), dense retrieval
alone and hybrid as it comes. Everything is kept in `--work`.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from comparison_app.embedder_training import embedder_pairs
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus
from finetune.embedder import load_embedder_recipe, train_embedder
from rag.config import RagConfig, index_file_name
from rag.embedding import Embedder, bundled_folder
from rag.evaluation import evaluate_retrieval
from rag.indexing import index_documents
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore

COLUMNS = ("recall@1", "recall@5", "evidence_recall@1", "evidence_recall@5", "ndcg@10")


def measure(corpus: Corpus, slice_name: str, embedder: str, work: Path) -> dict[str, dict[str, float]]:
    """Return the measures on one slice with `embedder`, for dense retrieval alone and for hybrid."""
    config = RagConfig(embedder=embedder)
    store, model = EmbeddedStore(work / index_file_name(config)), Embedder.from_config(config)
    index_documents(corpus.documents(), store, model, config, rebuild=True)
    questions = [q for q in corpus.questions("test") if q.slice == slice_name and q.evidence]
    asked = [question.question for question in questions]
    figures = {}
    for name, weight in (("dense alone", 0.0), ("hybrid", config.lexical_weight)):
        search = HybridSearch(store, model, replace(config, lexical_weight=weight))
        figures[name] = evaluate_retrieval(questions, search.retrieve_many(asked, top_k=50))
    return figures


def main() -> int:
    """Tune, and print a row before and after for each kind of retrieval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", default="tern-manual")
    parser.add_argument("--recipe", default="embedder")
    parser.add_argument("--slice", default="unseen-page")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--work", type=Path, default=Path("workspace/benchmarks/tuned"))
    options = parser.parse_args()
    workspace = Workspace(options.work)
    corpus = workspace.corpus(options.corpus)
    recipe = replace(load_embedder_recipe(options.recipe), max_seconds=options.max_seconds)
    before = measure(corpus, options.slice, RagConfig().embedder, options.work)
    questions = corpus.questions("train")
    random.Random(0).shuffle(questions)
    pairs = embedder_pairs(recipe, corpus, workspace, questions)[: options.pairs]
    tuned = options.work / "models" / options.recipe
    record = train_embedder(recipe, pairs, tuned, source=bundled_folder())
    print(f"{options.recipe}: {len(pairs)} pairs, {record.steps} steps in {record.seconds:.0f} s ({record.stopped})")
    after = measure(corpus, options.slice, str(tuned), options.work)
    print(f"{'':24}" + "".join(f"{column:>19}" for column in COLUMNS))
    for kind in before:
        for when, row in (("before", before[kind]), ("after", after[kind])):
            print(f"{kind + ', ' + when:24}" + "".join(f"{row[column]:19.3f}" for column in COLUMNS), flush=True)
    print(f"{int(before['hybrid']['questions'])} questions of {options.slice}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
