"""What 100 new documents cost: taken into an index, against a training once more.

    python benchmarks/learning_cost.py [--machine 0.10] [--recipe NAME]

An index of the sample marketplace's listings takes in 100 new documents: the 95 pages of the sample manual (about 900
words each) and five listings. Given are wall and processor seconds, and the money at `--machine` an hour. The training
is that of the bundled adapters, as their run records tell it; with `--recipe` an adapter is trained here and now on
the manual's questions instead.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from comparison_app.workspace import BUNDLED_ADAPTERS, Workspace
from data_prep.corpus import load_corpus


def reindex() -> dict[str, Any]:
    """Index the listings, then take in 100 documents more; return what the second step took."""
    from rag.config import RagConfig
    from rag.embedding import Embedder
    from rag.indexing import index_documents
    from rag.store import EmbeddedStore

    root = Path(__file__).resolve().parent.parent / "docs_corpus"
    listings = load_corpus(root / "fairfold-listings").documents()
    pages = load_corpus(root / "tern-manual").documents()
    new = [*pages, *listings[: 100 - len(pages)]]
    config = RagConfig()
    with tempfile.TemporaryDirectory() as folder:
        store, embedder = EmbeddedStore(Path(folder) / "index.sqlite"), Embedder.from_config(config)
        index_documents(listings[100 - len(pages) :], store, embedder, config)
        started, cpu = time.perf_counter(), time.process_time()
        report = index_documents([*listings, *pages], store, embedder, config)
        return {
            "documents": len(new),
            "added": report.added,
            "chunks_embedded": report.embedded,
            "wall_seconds": round(time.perf_counter() - started, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
        }


def recorded_trainings() -> list[dict[str, Any]]:
    """Return what the bundled adapters' run records say of their training."""
    from finetune.run_record import read_run_record

    rows = []
    for path in sorted(BUNDLED_ADAPTERS.glob("*/run_record.json")):
        record = read_run_record(path.parent)
        rows.append(
            {
                "adapter": path.parent.name,
                "questions": len(record.trained_ids),
                "wall_seconds": round(record.seconds, 1),
            }
        )
    return rows


def train_now(recipe: str) -> list[dict[str, Any]]:
    """Train an adapter on the sample manual's questions and return what it took."""
    from comparison_app.training import train_on_corpus
    from finetune.config import load_recipe

    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        started, cpu = time.perf_counter(), time.process_time()
        record = train_on_corpus(load_recipe(recipe), workspace.corpus(None), workspace, "again")
        return [
            {
                "adapter": recipe,
                "questions": len(record.trained_ids),
                "wall_seconds": round(time.perf_counter() - started, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
            }
        ]


def main() -> None:
    """Measure both ways and print a line each, with their cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", type=float, default=0.10, help="money for an hour of the machine")
    parser.add_argument("--recipe", help="train by this recipe instead of reading the bundled adapters' records")
    options = parser.parse_args()
    indexing = reindex()
    print(json.dumps({"re-indexing": {**indexing, "cost": _cost(indexing, options.machine)}}), flush=True)
    for row in train_now(options.recipe) if options.recipe else recorded_trainings():
        print(json.dumps({"training": {**row, "cost": _cost(row, options.machine)}}))


def _cost(row: dict[str, Any], machine: float) -> float:
    return round(float(row.get("cpu_seconds", row["wall_seconds"])) * machine / 3600, 6)


if __name__ == "__main__":
    main()
