"""`make bench`: run the benchmarks one after the other; each prints the figures that RESULTS.md holds.

The data lies outside the repository, in the folder that the environment variable VERSUS_BENCH_DATA names.
"""

from __future__ import annotations

import os
import subprocess
import sys

COMMANDS = (
    ("benchmarks/retrieval_quality.py", "tesla-model3", "--split", "all"),
    ("benchmarks/retrieval_quality.py", "kubernetes-qa", "--split", "test", "--presets"),
    ("benchmarks/retrieval_quality.py", "tesla-model3", "--split", "all", "--embedders"),
    ("benchmarks/retrieval_speed.py", "--chunks", "100000"),
    ("benchmarks/retrieval_speed.py", "--chunks", "1000000", "--no-peers"),
    ("benchmarks/vector_index.py", "--vectors", "60000"),
    ("benchmarks/embedding_speed.py",),
    ("benchmarks/reindex.py", "--pages", "10000"),
    ("benchmarks/reindex.py", "--cold"),
    ("benchmarks/capacity.py", "--chunks", "120000"),
    ("benchmarks/tuned_embedder.py", "tern-manual", "--recipe", "embedder", "--pairs", "400", "--max-seconds", "900"),
    ("benchmarks/killed_indexing.py", "--kills", "100"),
    ("benchmarks/killed_indexing.py", "--readers", "8", "--seconds", "60"),
    ("benchmarks/abstention.py", "clapnq"),
    ("benchmarks/context_shown.py",),
    ("benchmarks/conversion.py",),
    ("benchmarks/crawling.py", "memory"),
    ("benchmarks/statistics_simulation.py", "--runs", "2000"),
    ("benchmarks/comparison_speed.py",),
    ("benchmarks/killed_runs.py", "--kills", "50"),
    ("benchmarks/learning_cost.py",),
    ("benchmarks/exporting.py",),
    ("benchmarks/training_speed.py", "--rounds", "2"),
    ("benchmarks/russian.py",),
    ("benchmarks/question_making.py", "precision"),
    ("benchmarks/question_making.py", "grounding"),
    ("benchmarks/question_making.py", "drafting"),
    ("benchmarks/question_making.py", "corpus"),
)


def main() -> int:
    """Run every benchmark; returns 1 if the data is not there or one of them failed."""
    if not os.environ.get("VERSUS_BENCH_DATA"):
        print("set VERSUS_BENCH_DATA to the folder that holds the benchmarks' data sets", file=sys.stderr)
        return 1
    codes = [subprocess.run([sys.executable, *command], check=False).returncode for command in COMMANDS]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
