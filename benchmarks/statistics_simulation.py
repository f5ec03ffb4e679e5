"""Do the intervals cover and does `decisive` lie? Clustered scores whose true difference is known.

    python benchmarks/statistics_simulation.py [--runs 2000] [--json]

Each case draws documents with their own difficulty (shared by both arms) and their own leaning towards one arm, then
questions in them, scores two arms, and asks `comparison_app.statistics` for the paired difference. Printed: how often
the 95 % interval holds the truth, how often a difference is called decisive where there is none, how often where
there is one (power), the mean width, and how often the interval of one arm's mean holds the truth and how often it is
called cautious (of the difference's, too). Then the exact McNemar p-values of the saved Gorilla TorchHub outcomes in
$VERSUS_BENCH_DATA/gorilla-torchhub/paired_reference.json are recomputed, and the speed of a large run is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peak_memory import peak_bytes

from comparison_app.statistics import is_decisive, mcnemar_exact, mean_estimates, paired_differences


@dataclass(frozen=True)
class Case:
    """One simulated world: so many questions over so many documents, with a mean gap between the arms."""

    name: str
    questions: int
    documents: int
    gap: float
    binary: bool
    level: float = 0.0
    uneven: bool = False


CASES = (
    *(
        Case(f"{kind}{', uneven documents' if uneven else ''}", n, c, gap, kind == "binary", 0.0, uneven)
        for kind in ("binary", "continuous")
        for n, c, uneven in ((40, 15, False), (40, 15, True), (60, 25, True), (150, 40, True), (400, 120, True))
        for gap in (0.0, 0.8)
    ),
    Case("binary, both arms near 0.9", 40, 15, 0.0, True, 2.5),
    Case("binary, both arms near 0.9", 150, 40, 0.8, True, 2.5),
    Case("binary, both arms near 0.95", 40, 15, 0.0, True, 3.5),
    Case("continuous, both arms near 0.95", 40, 15, 0.0, False, 3.5),
    Case("continuous, both arms near 0.95", 60, 25, 0.8, False, 3.5),
    Case("continuous, one arm near 0.95", 40, 15, 3.0, False, 2.0),
    Case("continuous", 30, 8, 0.0, False),
)


def _documents(case: Case, rng: np.random.Generator) -> np.ndarray:
    """Assign each question to a document, shape (n,); every document gets at least one."""
    share = (
        rng.dirichlet(np.full(case.documents, 2.0)) if case.uneven else np.full(case.documents, 1.0) / case.documents
    )
    rest = rng.choice(case.documents, size=case.questions - case.documents, p=share)
    return np.concatenate([np.arange(case.documents), rest])


def _draw(case: Case, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw documents and the scores of both arms, each of shape (n,)."""
    documents = _documents(case, rng)
    hard = rng.normal(0.0, 1.0, case.documents)[documents]
    lean = rng.normal(0.0, 0.7, case.documents)[documents]
    noise = rng.normal(0.0, 0.7, case.questions)
    first = case.level + case.gap / 2 + hard + lean / 2 + noise
    second = case.level - case.gap / 2 + hard - lean / 2 + noise
    chance = 1 / (1 + np.exp(-first)), 1 / (1 + np.exp(-second))
    if case.binary:
        return documents, *(np.asarray(rng.random(case.questions) < p, dtype=float) for p in chance)
    return documents, *(rng.beta(4 * p + 0.05, 4 * (1 - p) + 0.05) for p in chance)


def _truth(case: Case) -> tuple[float, float]:
    """Return the true mean difference and the true mean of arm a, from two million independent questions."""
    rng = np.random.default_rng(99)
    draws = rng.normal(0.0, 1.0, 2_000_000), rng.normal(0.0, 0.7, 2_000_000), rng.normal(0.0, 0.7, 2_000_000)
    shared = case.level + draws[0] + draws[2]
    a = 1 / (1 + np.exp(-(shared + case.gap / 2 + draws[1] / 2)))
    b = 1 / (1 + np.exp(-(shared - case.gap / 2 - draws[1] / 2)))
    if not case.binary:
        a, b = (4 * a + 0.05) / 4.1, (4 * b + 0.05) / 4.1
    return float(a.mean() - b.mean()) if case.gap else 0.0, float(a.mean())


def simulate(case: Case, runs: int, seed: int = 1) -> dict[str, object]:
    """Run one case `runs` times and count."""
    rng = np.random.default_rng([seed, case.questions, case.documents, int(case.gap * 10), case.binary, case.uneven])
    truth, level = _truth(case)
    covered = decisive = mean_covered = cautious = careful = 0
    width = 0.0
    for _ in range(runs):
        documents, a, b = _draw(case, rng)
        found = paired_differences(a[:, None], b[:, None], documents.tolist())[0]
        covered += found.low - 1e-12 <= truth <= found.high + 1e-12
        decisive += is_decisive(found, found.p_value)
        width += found.high - found.low
        careful += found.cautious
        mean = mean_estimates(a[:, None], documents.tolist())[0]
        mean_covered += mean.low - 1e-12 <= level <= mean.high + 1e-12
        cautious += mean.cautious
    return {
        "case": case.name,
        "questions": case.questions,
        "documents": case.documents,
        "true_difference": round(truth, 4),
        "coverage_difference": covered / runs,
        "differences_called_cautious": careful / runs,
        "coverage_mean": mean_covered / runs,
        "means_called_cautious": cautious / runs,
        "called_decisive": decisive / runs,
        "mean_width": round(width / runs, 4),
    }


def check_mcnemar(data: Path) -> dict[str, object]:
    """Recompute the exact McNemar p of every pair of the saved reference; return the largest relative error."""
    reference = json.loads((data / "gorilla-torchhub" / "paired_reference.json").read_text(encoding="utf-8"))
    worst = 0.0
    for pair in reference["pairs"]:
        n, only_a, only_b = pair["n"], pair["a_only"], pair["b_only"]
        a = np.zeros(n)
        b = np.zeros(n)
        a[:only_a] = 1
        b[only_a : only_a + only_b] = 1
        worst = max(worst, abs(mcnemar_exact(a, b) / pair["mcnemar_exact_p"] - 1))
    return {"pairs": len(reference["pairs"]), "largest_relative_error": worst}


def time_large_run() -> dict[str, object]:
    """Time 2,000 questions x 5 arms x 8 metrics x 6 slices: all means and all pairs, with intervals and tests."""
    rng = np.random.default_rng(0)
    scores = rng.random((2_000, 5, 8))
    documents = rng.integers(0, 300, 2_000)
    slices = rng.integers(0, 6, 2_000)
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    started = time.perf_counter()
    made = 0
    for part in [*range(6), None]:
        rows = slices == part if part is not None else np.ones(2_000, dtype=bool)
        names = documents[rows].tolist()
        for metric in range(8):
            values = scores[rows][:, :, metric]
            made += len(mean_estimates(values, names))
            left, right = values[:, [i for i, _ in pairs]], values[:, [j for _, j in pairs]]
            made += len(paired_differences(left, right, names))
    peak = peak_bytes() / 2**20
    return {"seconds": round(time.perf_counter() - started, 2), "statements": made, "peak_mib": round(peak)}


def main() -> None:
    """Run all cases and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(json.dumps({"speed": time_large_run()}))
    bench = os.environ.get("VERSUS_BENCH_DATA")
    if bench:
        print(json.dumps({"mcnemar": check_mcnemar(Path(bench))}))
    error = 1.96 * math.sqrt(0.95 * 0.05 / options.runs)
    print(f"{options.runs} runs a case: a coverage of 0.95 is measured to within {error:.4f}")
    for case in CASES:
        row = simulate(case, options.runs)
        text = json.dumps(row) if options.json else "  ".join(f"{value!s:>10}" for value in row.values())
        print(text, flush=True)


if __name__ == "__main__":
    main()
