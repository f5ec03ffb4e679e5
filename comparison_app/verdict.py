"""The verdict: one paragraph written from the numbers by rule, that claims no more than they carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from comparison_app.evaluation import Evaluation, Pair, cluster_of
from comparison_app.experiment import OVERALL, ArmSpec
from comparison_app.metrics.abstention import count_refusals
from comparison_app.metrics.scoring import ABSTENTION
from comparison_app.power import can_decide
from comparison_app.prices import money_in_words
from comparison_app.statistics import (
    FEWEST_CLUSTERS,
    PairedDifference,
    holm,
    is_decisive,
    mean_estimates,
    paired_differences,
)

SLICE_WORDS = {
    OVERALL: "all questions together",
    "trained": "trained questions",
    "paraphrase": "reworded trained facts",
    "trained-page": "untrained facts of trained pages",
    "unseen-page": "unseen pages",
    "new-document": "documents added after training",
    "unanswerable": "questions that the documents do not answer",
}
METRIC_WORDS = {
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "semantic_similarity": "semantic similarity",
    "numbers": "right numbers",
    "supported": "supported by sources",
    "citation_precision": "citation precision",
    "citation_recall": "citation recall",
    "abstention_accuracy": "right choice to answer or decline",
    "recall@1": "recall@1",
    "recall@5": "recall@5",
    "recall@10": "recall@10",
    "mrr@10": "MRR@10",
    "ndcg@10": "nDCG@10",
}
_KNOWN_SIZES = {"pocket": 14_000_000}


@dataclass(frozen=True)
class Standing:
    """An arm's worth in the user's mix of questions, and how it stands to the best arm.

    `adjusted_p` is Holm's over all arms but the best: which arm is the best was only seen in the same scores, so these
    tests are exploratory.
    """

    arm: str
    mean: float
    low: float | None
    high: float | None
    behind: PairedDifference | None
    adjusted_p: float | None = None

    @property
    def apart(self) -> bool:
        """Whether the best arm is likely better: adjusted p under 0.05 and 0 outside the interval."""
        return self.behind is not None and is_decisive(self.behind, self.adjusted_p)


def standings(evaluation: Evaluation) -> list[Standing]:
    """Return the arms by their weighted mean credit, best first; each but the best with its gap to the best."""
    rows = np.flatnonzero(~np.isnan(evaluation.credit).any(axis=1))
    credit, weights = evaluation.credit[rows], evaluation.weights[rows]
    clusters = [cluster_of(evaluation.questions[row]) for row in rows]
    seed = evaluation.experiment.seed
    worth = mean_estimates(credit, clusters, weights=weights, seed=seed)
    order = sorted(range(len(worth)), key=lambda arm: -worth[arm].mean)
    best = np.repeat(credit[:, [order[0]]], len(order), axis=1)
    gaps = paired_differences(best, credit, clusters, weights=weights, seed=seed)
    adjusted = dict(zip(order[1:], holm([gaps[arm].p_value for arm in order[1:]]), strict=True))
    return [
        Standing(
            evaluation.arms[arm],
            worth[arm].mean,
            worth[arm].low,
            worth[arm].high,
            None if arm == order[0] else gaps[arm],
            adjusted.get(arm),
        )
        for arm in order
    ]


def verdict(
    evaluation: Evaluation,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    arms: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Write the verdict.

    `models`: base model -> what is known of it, "parameters" if its size is. `arms`: arm -> its "cost" and "latency" in
    the summary.
    """
    return " ".join([*findings(evaluation, models), recommendation(evaluation, arms)])


def findings(evaluation: Evaluation, models: Mapping[str, Mapping[str, Any]] | None = None) -> list[str]:
    """Return the verdict's sentences but the last: what was asked, found, failed and declined, and the limits."""
    return [
        _opening(evaluation),
        *_comparisons(evaluation),
        *_spreads(evaluation),
        *_failures(evaluation),
        *_refusals(evaluation),
        *_caveats(evaluation, models or {}),
    ]


def points(share: float) -> str:
    """Write a share of 1 as whole points of 100, without sign."""
    return f"{abs(round(100 * share))}"


def signed(share: float) -> str:
    """Write a difference in points with its sign, 0 without one."""
    rounded = round(100 * share)
    return f"{rounded:+d}".replace("-", "−") if rounded else "0"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(items: Sequence[str]) -> str:
    """Join words as a sentence does: "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def base_models(evaluation: Evaluation) -> list[str]:
    """Return the base models of the run, each once."""
    return list(dict.fromkeys(arm.model for arm in evaluation.experiment.arms if arm.model))


def _opening(evaluation: Evaluation) -> str:
    experiment = evaluation.experiment
    models = base_models(evaluation)
    base = f" with the base model {listed(models)}" if models else ""
    metric = METRIC_WORDS[experiment.primary_metric]
    return (
        f"{_plural(len(evaluation.arms), 'arm')} answered {_plural(len(evaluation.questions), 'question')} on "
        f"{experiment.corpus}{base}; points are hundredths of {metric}."
    )


def _comparisons(evaluation: Evaluation) -> list[str]:
    """One sentence per declared pair of arms: what is decisive first, then what is not."""
    declared = sorted(evaluation.declared(), key=lambda pair: _place(evaluation, pair))
    groups = groupby(declared, key=lambda pair: (pair.comparison.a, pair.comparison.b))
    return [_one_pair(a, b, list(pairs), len(declared)) for (a, b), pairs in groups]


def _place(evaluation: Evaluation, pair: Pair) -> int:
    """Return where the pair of arms is first declared, so that its slices stay together."""
    both = (pair.comparison.a, pair.comparison.b)
    return next(i for i, other in enumerate(evaluation.experiment.comparisons) if (other.a, other.b) == both)


def _one_pair(a: str, b: str, pairs: Sequence[Pair], declared: int) -> str:
    """Return the sentence on arms `a` and `b`; `declared`: how many comparisons the experiment declares in all."""
    parts = []
    better = [_gap(pair) for pair in pairs if pair.decisive and pair.found.difference > 0]
    worse = [_gap(pair) for pair in pairs if pair.decisive and pair.found.difference < 0]
    if better:
        parts.append(f"{a} beats {b} by {listed(better)}")
    if worse:
        parts.append(f"{b} beats {a} by {listed(worse)}" if not better else f"loses by {listed(worse)}")
    open_ = [pair for pair in pairs if not pair.decisive]
    if open_:
        lead = "no decisive difference was found" if parts else f"Between {a} and {b} no decisive difference was found"
        parts.append(f"{lead} on {listed([_undecided(pair, declared) for pair in open_])}")
    return "; ".join(parts) + "."


def _gap(pair: Pair) -> str:
    """Write one decisive difference: "31 points (24 to 38) on 150 questions about unseen pages"."""
    found, sign = pair.found, 1 if pair.found.difference > 0 else -1
    ends = sorted(round(100 * sign * bound) for bound in (found.low or 0.0, found.high or 0.0))
    metric = f" of {METRIC_WORDS[ABSTENTION]}" if pair.comparison.metric == ABSTENTION else ""
    return f"{points(found.difference)} points{metric} ({ends[0]} to {ends[1]}) on {_where(pair)}"


def _where(pair: Pair) -> str:
    """Name a comparison's questions: "40 trained questions", "40 questions about unseen pages"."""
    place, n = pair.comparison.slice, pair.found.n
    if place == OVERALL:
        return f"all {n} questions together"
    words = SLICE_WORDS[place]
    return f"{n} {words}" if words.startswith(("trained questions", "questions")) else f"{n} questions about {words}"


def _undecided(pair: Pair, declared: int) -> str:
    """Name a comparison that decided nothing: what was measured, and what runs like this one see."""
    found = pair.found
    if found.low == found.high == 0:
        return f"{_where(pair)} (the scores are the same)"
    seen = sight(found, declared)
    return f"{_where(pair)} ({pair.comparison.a} {_measured(pair)}{'; ' if seen else ''}{seen})"


def _measured(pair: Pair) -> str:
    """Write an undecided difference with its sign: "+34 points, +15 to +49"."""
    found = pair.found
    metric = f" of {METRIC_WORDS[ABSTENTION]}" if pair.comparison.metric == ABSTENTION else ""
    reach = "" if found.low is None or found.high is None else f", {signed(found.low)} to {signed(found.high)}"
    return f"{signed(found.difference)} points{metric}{reach}"


def sight(found: PairedDifference, declared: int) -> str:
    """Say what a run like this sees in four cases of five, or why it can decide nothing; "" if as much was measured.

    A difference of the size that runs like this see four times in five can be missed by one of them: then what was
    measured stands alone. `declared`: how many comparisons are adjusted together.
    """
    if found.clusters < FEWEST_CLUSTERS:
        return f"too few documents, {found.clusters}, to say"
    if not can_decide(found.clusters, declared):
        return f"{found.clusters} documents are too few to decide first among {declared} comparisons"
    if found.detectable is None or abs(found.difference) >= found.detectable:
        return ""
    return f"a gap of {max(1, round(100 * found.detectable))} points would be seen in four runs of five"


def _spreads(evaluation: Evaluation) -> list[str]:
    """Say how far several trainings of one arm lie apart: what a difference must exceed to be the method's."""
    worth = (
        {standing.arm: standing.mean for standing in standings(evaluation)} if evaluation.experiment.families else {}
    )
    told = []
    for family, members in evaluation.experiment.families.items():
        earned = sorted(worth[member] for member in members)
        told.append(
            f"{len(members)} trainings of {family} that differ only in the seed earned {points(earned[0])} to "
            f"{points(earned[-1])} points a question."
        )
    return told


def _failures(evaluation: Evaluation) -> list[str]:
    """Say which arms failed, and how often."""
    counts = {arm: sum(p.error is not None for p in rows) for arm, rows in evaluation.predictions.items()}
    failed = [f"{arm} on {count} of {len(evaluation.questions)}" for arm, count in counts.items() if count]
    return [f"Failures count as wrong: {listed(failed)} questions."] if failed else []


def _refusals(evaluation: Evaluation) -> list[str]:
    """Say which arm declined best where there is no answer, and which worst."""
    answerable = [question.answerable for question in evaluation.questions]
    if all(answerable):
        return []
    counts = {arm: count_refusals(zip(evaluation.refused(arm), answerable, strict=True)) for arm in evaluation.arms}
    most = max(counts, key=lambda arm: (counts[arm].rightly, -counts[arm].wrongly))
    least = min(counts, key=lambda arm: (counts[arm].rightly, -counts[arm].wrongly))
    closed = _plural(answerable.count(False), "question")
    text = (
        f"Of {closed} without an answer in the documents {most} declined {counts[most].rightly} "
        f"(and {counts[most].wrongly} of the {counts[most].answerable} answerable ones)"
    )
    if counts[least].rightly == counts[most].rightly:
        return [f"{text}; no arm declined fewer."]
    return [f"{text}, {least} {counts[least].rightly} (and {counts[least].wrongly})."]


def _caveats(evaluation: Evaluation, models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say what the base models' figures do not tell."""
    told = []
    for model in base_models(evaluation):
        size = models.get(model, {}).get("parameters") or _KNOWN_SIZES.get(model)
        if size and size < 1e9:
            told.append(
                f"{model} has {round(size / 1e6)} million parameters: its figures show how the methods differ on these "
                "documents, and do not carry over to a 7B model, which knows more unaided and reads context better; "
                "run the same experiment with that model before deciding for it."
            )
        else:
            told.append(f"The figures hold for {model} on these documents, not for other base models.")
    return told


def recommendation(evaluation: Evaluation, arms: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """End in one recommendation, with its cost and freshness, and the arms that could not be told from it.

    `arms`: arm -> its "cost" and "latency" in the summary.
    """
    ranked, known = standings(evaluation), arms or {}
    best = ranked[0]
    mix = "your mix of slices" if evaluation.experiment.slice_weights else "questions like these"
    if best.mean <= 0:
        return "Recommendation: none; no arm answered anything right."
    cost = known.get(best.arm, {}).get("cost")
    text = (
        f"Recommendation for {mix}: {best.arm}, with {points(best.mean)} points a question (a right refusal earns "
        f"100) in {_wait(evaluation, best.arm, known)}{_price(cost)}; "
        f"{_freshness(evaluation.experiment.arm(best.arm), cost)}."
    )
    tests = "exploratory tests of the best arm against each other one, adjusted for their number"
    near = [standing for standing in ranked[1:] if not standing.apart]
    if not near:
        return text + (f" No other arm comes near it ({tests})." if len(ranked) > 1 else "")
    names = [f"{item.arm} ({points(item.mean)}, {_wait(evaluation, item.arm, known)})" for item in near]
    return text + f" This run cannot tell it from {listed(names)}: {tests}."


def _wait(evaluation: Evaluation, arm: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    """Write how long one waits for an arm: the median of questions asked alone, else of shares of a batch, and says so.

    In batches an answer takes a fraction of what a single user waits for it.
    """
    alone = known.get(arm, {}).get("latency", {}).get("alone_p50")
    if alone is not None:
        return _seconds(alone)
    return (
        f"{_seconds(float(np.median([prediction.seconds for prediction in evaluation.predictions[arm]])))} in batches"
    )


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def _price(cost: Mapping[str, Any] | None) -> str:
    """Write what a thousand answers cost, and what it costs to set the arm up."""
    if cost is None:
        return ""
    text = f", {money_in_words(1000 * cost['per_question'])} {cost['currency']} a thousand answers"
    return text + (f" after {money_in_words(cost['setup'])} {cost['currency']} to set it up" if cost["setup"] else "")


def _freshness(arm: ArmSpec, cost: Mapping[str, Any] | None = None) -> str:
    """Say what an arm needs to learn a new document, and how long that took where it was measured."""
    took = cost or {}
    if arm.kind in ("finetuned", "base"):
        if not arm.adapter:
            return "it never sees your documents"
        seconds = took.get("training_seconds")
        return "new documents reach it only by training" + (f" (the last took {_seconds(seconds)})" if seconds else "")
    text = "new documents reach it by re-indexing, without training"
    count, seconds = took.get("update_documents"), took.get("update_seconds")
    return text + (f" ({_plural(count, 'document')} took {_seconds(seconds)})" if count and seconds is not None else "")
