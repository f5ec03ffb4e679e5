"""Findings published before, held against a run: which of them hold here, with intervals.

Five directions, each one or more paired differences between arms of one base model. All of a run's are adjusted for
their number (Holm) and called as in the verdict: a part *holds* if its adjusted p is under 0.05, its interval excludes
0 and its sign is the published one; it is *reversed* if the sign is the other; else it is *open*, with the difference
that the run would have seen. A direction whose arms, or slices, an experiment lacks is not tested, and says why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from comparison_app.evaluation import Evaluation, cluster_of
from comparison_app.experiment import OVERALL, ArmSpec
from comparison_app.metrics.scoring import ABSTENTION
from comparison_app.power import visible_among
from comparison_app.statistics import (
    FEWEST_CLUSTERS,
    PairedDifference,
    holm,
    is_decisive,
    paired_difference,
)

if TYPE_CHECKING:
    from data_prep.questions import Question
    from finetune.run_record import RunRecord

HOLDS, REVERSED, OPEN, PARTLY, UNTESTED = "holds", "reversed", "open", "in part", "not tested"
RAG_ABOVE, CONTEXT, WORDINGS, SUPPORT, SHRINKS = (
    "rag-above-closed-book",
    "context-training-recovers-rag",
    "more-wordings-more-recall",
    "fine-tuning-lowers-support-and-refusal",
    "raft-gains-less-on-stronger-bases",
)


@dataclass(frozen=True)
class Published:
    """A finding as it was published: its key, what it says, where it comes from, and what an experiment needs."""

    key: str
    claim: str
    source: str
    needs: str


PUBLISHED = (
    Published(
        RAG_ABOVE,
        "Retrieval answers questions about facts that were never trained better than closed-book fine-tuning does.",
        'Ovadia et al. 2023, "Fine-Tuning or Retrieval? Comparing Knowledge Injection in LLMs" (arXiv 2312.05934)',
        "a rag and a finetuned arm of one base, and questions about unseen pages or new documents",
    ),
    Published(
        CONTEXT,
        "An adapter trained without context can make retrieval worse; training with context recovers it.",
        'Zhang et al. 2024, "RAFT: Adapting Language Model to Domain Specific RAG" (arXiv 2403.10131)',
        "a rag, a finetuned-rag and a raft arm of one base",
    ),
    Published(
        WORDINGS,
        "The more wordings of a fact are trained, the better it is recalled closed-book in another wording.",
        'Allen-Zhu and Li 2023, "Physics of Language Models: Part 3.1" (arXiv 2309.14316); Ovadia et al. 2023',
        "finetuned arms of one base whose adapters saw different numbers of wordings, and reworded questions",
    ),
    Published(
        SUPPORT,
        "A fine-tuned model's answers are carried less by what was retrieved, and it declines less where it should.",
        'after Gekhman et al. 2024, "Does Fine-Tuning LLMs on New Knowledge Encourage Hallucinations?" '
        "(arXiv 2405.05904), read over to answers with retrieved context",
        "a rag and a finetuned-rag arm of one base",
    ),
    Published(
        SHRINKS,
        "What training with context gains over plain retrieval shrinks as the base model grows stronger.",
        "reported where RAFT was tried on base models of several sizes; no single publication is followed",
        "rag and raft arms of two bases",
    ),
)


@dataclass(frozen=True)
class Part:
    """One difference behind a direction: `text` names it, `sign` is the published one (1 or -1)."""

    text: str
    metric: str
    slice: str
    sign: int
    found: PairedDifference


@dataclass(frozen=True)
class _Tested:
    """A part with the direction it belongs to."""

    key: str
    part: Part


def directions(
    evaluation: Evaluation, adapters: Mapping[str, Mapping[str, Any]], models: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return, for each published direction, what this run says of it.

    `adapters`: adapter -> what is known of it, "wordings" if counted; `models`: base -> "parameters" if known, which
    tells the stronger of two bases.
    """
    tested = list(_parts(evaluation, adapters, models))
    adjusted = holm([each.part.found.p_value for each in tested])
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for each, p in zip(tested, adjusted, strict=True):
        rows[each.key].append(_row(each.part, p, len(tested)))
    return [
        {**asdict(item), "outcome": _outcome([row["outcome"] for row in rows[item.key]]), "parts": rows[item.key]}
        for item in PUBLISHED
    ]


def wordings_trained(record: RunRecord, known: Mapping[str, Question]) -> float:
    """Return how many wordings of a fact an adapter was trained on, on average, made-up ones included."""
    answerable = [known[name] for name in record.trained_ids if name in known and known[name].answerable]
    facts = {question.fact or question.id for question in answerable}
    made_up = int(record.recipe.get("data", {}).get("rewordings", 0))
    return len(answerable) / len(facts) + made_up if facts else 0.0


def forgetting_rows(evaluation: Evaluation, adapters: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return, per adapter, what it was trained on, whether it learned that, and what it made its base forget.

    `before` and `after` are shares of `questions` general multiple-choice questions right; None where not asked.
    """
    used = [spec.adapter for spec in evaluation.experiment.arms if spec.adapter]
    rows = []
    for name in dict.fromkeys(used):
        known = adapters.get(name) or {}
        forgot = known.get("forgetting") or {}
        told = {key: known.get(key) for key in ("wordings", "steps", "last_loss")}
        rows.append({"adapter": name, **told, **{key: forgot.get(key) for key in ("before", "after", "questions")}})
    return rows


def _parts(
    evaluation: Evaluation, adapters: Mapping[str, Mapping[str, Any]], models: Mapping[str, Any]
) -> Iterator[_Tested]:
    """Yield every difference that this run can test."""
    for arms in _by_base(evaluation).values():
        for key, part in _of_one_base(evaluation, arms, adapters):
            if part is not None:
                yield _Tested(key, part)
    shrinking = _shrinking(evaluation, models)
    if shrinking is not None:
        yield _Tested(SHRINKS, shrinking)


def _by_base(evaluation: Evaluation) -> dict[str, list[ArmSpec]]:
    bases: dict[str, list[ArmSpec]] = defaultdict(list)
    for spec in evaluation.experiment.arms:
        if spec.model is not None:
            bases[spec.model].append(spec)
    return bases


def _of_one_base(
    evaluation: Evaluation, arms: Sequence[ArmSpec], adapters: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, Part | None]]:
    """Yield the differences between arms of one base model, None where a slice or metric is lacking."""
    metric = evaluation.experiment.primary_metric
    closed = sorted(_of_kind(arms, "finetuned"), key=lambda arm: _wordings(arm, adapters))
    rag, both, raft = (next(iter(_of_kind(arms, kind)), None) for kind in ("rag", "finetuned-rag", "raft"))
    if rag and closed:
        for place in ("unseen-page", "new-document"):
            yield RAG_ABOVE, _difference(evaluation, rag, closed[-1], metric, place, 1)
    if rag and both:
        yield SUPPORT, _difference(evaluation, both, rag, "supported", OVERALL, -1)
        yield SUPPORT, _difference(evaluation, both, rag, ABSTENTION, "unanswerable", -1)
    if rag and both and raft:
        yield CONTEXT, _difference(evaluation, both, rag, metric, OVERALL, -1)
        yield CONTEXT, _difference(evaluation, raft, both, metric, OVERALL, 1)
    for more in closed[1:]:
        if _wordings(more, adapters) > _wordings(closed[0], adapters):
            yield WORDINGS, _difference(evaluation, more, closed[0], metric, "paraphrase", 1)


def _shrinking(evaluation: Evaluation, models: Mapping[str, Any]) -> Part | None:
    """Return RAFT's gain on the weaker of two bases minus its gain on the stronger."""
    metric = evaluation.experiment.primary_metric
    gains = {}
    for model, arms in _by_base(evaluation).items():
        rag, raft = (next(iter(_of_kind(arms, kind)), None) for kind in ("rag", "raft"))
        if rag and raft:
            gains[model] = (_column(evaluation, metric, raft) - _column(evaluation, metric, rag), rag)
    if len(gains) < 2 or metric not in evaluation.scores:
        return None

    def strength(model: str) -> tuple[float, float]:
        size = (models.get(model) or {}).get("parameters") or 0
        return float(size), float(np.nanmean(_column(evaluation, metric, gains[model][1])))

    weak, *_, strong = sorted(gains, key=strength)
    found = _paired(evaluation, gains[weak][0], gains[strong][0], OVERALL)
    text = f"gain of raft over rag, on {weak} minus on {strong}"
    return None if found is None else Part(text, metric, OVERALL, 1, found)


def _of_kind(arms: Sequence[ArmSpec], kind: str) -> list[ArmSpec]:
    return [arm for arm in arms if arm.kind == kind]


def _wordings(arm: ArmSpec, adapters: Mapping[str, Mapping[str, Any]]) -> float:
    """Return how many wordings of a fact an arm's adapter was trained on; 0 if that is not known."""
    return float((adapters.get(arm.adapter or "") or {}).get("wordings") or 0)


def _column(evaluation: Evaluation, metric: str, arm: ArmSpec) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = evaluation.scores[metric][:, evaluation.arms.index(arm.name)]
    return scores


def _difference(evaluation: Evaluation, a: ArmSpec, b: ArmSpec, metric: str, place: str, sign: int) -> Part | None:
    """Return the paired difference of two arms, None where the run has no score for both."""
    if metric not in evaluation.scores:
        return None
    found = _paired(evaluation, _column(evaluation, metric, a), _column(evaluation, metric, b), place)
    return None if found is None else Part(f"{a.name} − {b.name}", metric, place, sign, found)


def _paired(
    evaluation: Evaluation, one: NDArray[np.float64], other: NDArray[np.float64], place: str
) -> PairedDifference | None:
    """Compare two columns of scores on a slice, documents as clusters."""
    rows = [row for row in evaluation.rows(place) if not np.isnan(one[row] - other[row])]
    if not rows:
        return None
    clusters = [cluster_of(evaluation.questions[row]) for row in rows]
    return paired_difference(one[rows], other[rows], clusters, seed=evaluation.experiment.seed)


def _row(part: Part, adjusted_p: float, tested: int) -> dict[str, Any]:
    """Return one part, of `tested` in all, as data; no interval where documents are too few."""
    found = visible_among(part.found, tested)
    enough = found.clusters >= FEWEST_CLUSTERS
    outcome = OPEN
    if enough and is_decisive(found, adjusted_p):
        outcome = HOLDS if found.difference * part.sign > 0 else REVERSED
    return {
        "text": part.text,
        "metric": part.metric,
        "slice": part.slice,
        "expected": "above 0" if part.sign > 0 else "below 0",
        "n": found.n,
        "documents": found.clusters,
        "difference": found.difference,
        "low": found.low if enough else None,
        "high": found.high if enough else None,
        "adjusted_p": adjusted_p,
        "detectable": found.detectable if enough else None,
        "outcome": outcome,
    }


def _outcome(parts: Sequence[str]) -> str:
    """Sum the parts up: all hold, some do, none was seen, or the contrary was."""
    if not parts:
        return UNTESTED
    if set(parts) == {HOLDS}:
        return HOLDS
    if HOLDS in parts:
        return PARTLY
    return REVERSED if REVERSED in parts else OPEN
