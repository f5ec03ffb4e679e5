"""What a judge's replies say: who won, and how far the judge can be trusted.

- A pair's verdict is an arm only if both orders name it; a verdict that flips, or stands in one order alone, is a tie.
- Position bias: the share of single replies that prefer the answer shown first (Wang et al. 2023, arXiv 2305.17926);
  every pair is asked both ways, so a judge without this bias comes out at one half.
- Length bias: how often the longer answer wins, and how often where both answers earn the same score by rule (Dubois
  et al. 2024, arXiv 2404.04475, on why length must be held apart from quality).
- Self-agreement: the same conversation asked twice. Agreement with people: the judge's verdict and people's votes on
  the same two arms and question. Both as a share and as Cohen's kappa (Cohen 1960).

Intervals and tests resample and flip documents, as everywhere in a run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comparison_app.evaluation import Evaluation, cluster_of
from comparison_app.experiment import OVERALL
from comparison_app.judging.agreement import Opinion, agreement
from comparison_app.judging.prompts import CRITERIA, shown_answer
from comparison_app.judging.record import JudgeRecord, PairRow
from comparison_app.statistics import FEWEST_CLUSTERS, Estimate, mean_estimates, paired_difference
from data_prep.questions import Question

EQUAL_SCORES = 0.05
"""Two answers whose scores by rule differ by less count as equally good."""
MOST_FLIPS, MOST_FAILURES = 0.5, 0.5
"""Shares of flipped verdicts and of failed replies from which a judge's verdicts are not to be used."""


@dataclass(frozen=True)
class Ruling:
    """A judge's verdict on two arms for one question: "a", "b" or "tie". `flipped`: the two orders named two arms."""

    question: str
    a: str
    b: str
    outcome: str
    flipped: bool = False
    same: bool = False


def rulings(rows: Sequence[PairRow]) -> list[Ruling]:
    """Put both orders of every pair together; a pair of which an order failed is left out."""
    orders: dict[tuple[str, str, str], list[PairRow]] = defaultdict(list)
    for row in rows:
        if row.turn == 0:
            orders[row.question, row.a, row.b].append(row)
    return [
        _ruling(*key, {row.winner for row in both if row.winner is not None}, any(row.same for row in both))
        for key, both in orders.items()
        if len(both) == 2 and all(row.winner is not None for row in both)
    ]


def judge_summary(record: JudgeRecord, evaluation: Evaluation, opinions: Sequence[Opinion] = ()) -> dict[str, Any]:
    """Return the part "judge" of `summary.json`. `opinions`: people's votes, where there are some."""
    questions = {question.id: question for question in evaluation.questions}
    decided = [ruling for ruling in rulings(record.pairs) if ruling.question in questions]
    asked = [ruling for ruling in decided if not ruling.same]
    seed = evaluation.experiment.seed
    replies = [row for row in record.pairs if not row.same]
    failed = sum(row.winner is None for row in replies) + sum(row.ratings is None for row in record.ratings)
    total = len(replies) + len(record.ratings)
    found = {
        "model": record.judge,
        "planned": record.planned,
        "judged": record.judged,
        "stopped": record.stopped,
        "replies": total,
        "failed": failed,
        "estimate": dict(record.estimate),
        "spent": dict(record.spent),
        "budget": record.budget,
        "pairs": _pair_rows(decided, record, questions, seed),
        "ratings": _ratings(record, evaluation),
        "position": _position(replies, asked, questions, seed),
        "length": _length(asked, evaluation, questions),
        "self_agreement": _self_agreement(record),
        "people": agreement(decided, opinions, questions),
    }
    found["warnings"] = _warnings(found)
    found["usable"] = _usable(found)
    return found


def _ruling(question: str, a: str, b: str, winners: set[str], same: bool) -> Ruling:
    if len(winners) == 1 and "" not in winners:
        return Ruling(question, a, b, "a" if winners == {a} else "b")
    return Ruling(question, a, b, "tie", flipped=winners == {a, b}, same=same)


def _pair_rows(
    decided: Sequence[Ruling], record: JudgeRecord, questions: Mapping[str, Question], seed: int
) -> list[dict[str, Any]]:
    """Return wins, ties and the paired difference of wins per pair of arms, overall and by slice."""
    grouped: dict[tuple[str, str, str], list[Ruling]] = defaultdict(list)
    for ruling in decided:
        for place in (OVERALL, str(questions[ruling.question].slice)):
            grouped[ruling.a, ruling.b, place].append(ruling)
    failures: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in record.pairs:
        if row.turn == 0 and row.winner is None:
            failures[row.a, row.b].add(row.question)
    rows = []
    for (a, b, place), some in grouped.items():
        lost = {name for name in failures[a, b] if name in questions}
        failed = [name for name in lost if place in (OVERALL, str(questions[name].slice))]
        rows.append({"a": a, "b": b, "slice": place, **_wins(some, questions, seed), "failed": len(failed)})
    return rows


def _wins(some: Sequence[Ruling], questions: Mapping[str, Question], seed: int) -> dict[str, Any]:
    """Count wins of a and b; `difference` is the share that a won minus the share that b won."""
    won = {side: np.array([float(ruling.outcome == side) for ruling in some]) for side in ("a", "b")}
    found = paired_difference(won["a"], won["b"], [cluster_of(questions[r.question]) for r in some], seed=seed)
    enough = found.clusters >= FEWEST_CLUSTERS
    return {
        "n": len(some),
        "a_wins": int(won["a"].sum()),
        "b_wins": int(won["b"].sum()),
        "ties": sum(ruling.outcome == "tie" for ruling in some),
        "flips": sum(ruling.flipped for ruling in some),
        "difference": found.difference,
        "low": found.low if enough else None,
        "high": found.high if enough else None,
        "p_value": found.p_value,
    }


def _ratings(record: JudgeRecord, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Return arm -> criterion -> mean of 1 to 5, with n and its interval; none where documents are too few."""
    clusters = {question.id: cluster_of(question) for question in evaluation.questions}
    rated_arms: dict[str, dict[str, Any]] = {}
    for arm in evaluation.arms:
        rows = [row for row in record.ratings if row.arm == arm and row.turn == 0 and row.question in clusters]
        rated = [(row.question, row.ratings) for row in rows if row.ratings is not None]
        if rated:
            table = np.array([[float(ratings[name]) for name in CRITERIA] for _, ratings in rated])
            groups = [clusters[question] for question, _ in rated]
            seed = evaluation.experiment.seed
            means = mean_estimates(table, groups, seed=seed, bounds=(1.0, 5.0))
            rated_arms[arm] = {
                name: {"mean": found.mean, **_interval(found), "n": found.n}
                for name, found in zip(CRITERIA, means, strict=True)
            }
    return rated_arms


def _share(values: Sequence[float], clusters: Sequence[str], seed: int) -> dict[str, Any] | None:
    """Return a share with its interval; None without a value, no interval where documents are too few."""
    if not values:
        return None
    estimate = mean_estimates(np.array(values)[:, None], clusters, seed=seed)[0]
    return {"share": estimate.mean, **_interval(estimate), "n": estimate.n}


def _interval(estimate: Estimate) -> dict[str, float | None]:
    """Return the interval's ends, None where documents are too few to trust one."""
    enough = estimate.clusters >= FEWEST_CLUSTERS
    return {"low": estimate.low if enough else None, "high": estimate.high if enough else None}


def _position(
    replies: Sequence[PairRow], asked: Sequence[Ruling], questions: Mapping[str, Question], seed: int
) -> dict[str, Any]:
    """Return how often the answer shown first won, of the replies that named one, and how many verdicts flipped."""
    named = [row for row in replies if row.turn == 0 and row.winner and row.question in questions]
    clusters = [cluster_of(questions[row.question]) for row in named]
    flips = sum(ruling.flipped for ruling in asked)
    return {
        "first": _share([float(row.winner == row.first) for row in named], clusters, seed),
        "flips": flips,
        "pairs": len(asked),
        "flip_share": flips / len(asked) if asked else None,
    }


def _length(asked: Sequence[Ruling], evaluation: Evaluation, questions: Mapping[str, Question]) -> dict[str, Any]:
    """Return how often the longer answer won, of all decided pairs and of those that are equally good by rule."""
    place = {question.id: row for row, question in enumerate(evaluation.questions)}
    column = {arm: number for number, arm in enumerate(evaluation.arms)}
    seed = evaluation.experiment.seed

    def longer(of: Callable[[NDArray[np.float64]], bool]) -> dict[str, Any] | None:
        values, clusters = [], []
        for ruling in asked:
            row = place[ruling.question]
            a, b = (shown_answer(evaluation.predictions[arm][row]) for arm in (ruling.a, ruling.b))
            credit = evaluation.credit[row, [column[ruling.a], column[ruling.b]]]
            if ruling.outcome != "tie" and len(a) != len(b) and of(credit):
                values.append(float((ruling.outcome == "a") is (len(a) > len(b))))
                clusters.append(cluster_of(questions[ruling.question]))
        return _share(values, clusters, seed)

    return {
        "longer": longer(lambda credit: True),
        "longer_at_equal_score": longer(lambda credit: bool(abs(credit[0] - credit[1]) < EQUAL_SCORES)),
    }


def _self_agreement(record: JudgeRecord) -> dict[str, Any] | None:
    """Return how often the judge said the same when asked again; None if it was not asked again."""
    from comparison_app.judging.agreement import agreed

    said: dict[tuple[Any, ...], dict[int, str]] = defaultdict(dict)
    for row in record.pairs:
        if row.winner is not None and not row.same:
            said[row.question, row.a, row.b, row.first][row.turn] = row.winner or "tie"
    for rating in record.ratings:
        if rating.ratings is not None:
            said[rating.question, rating.arm][rating.turn] = str([rating.ratings[name] for name in CRITERIA])
    twice = [(turns[0], turns[1]) for turns in said.values() if {0, 1} <= set(turns)]
    return agreed(twice) if twice else None


def _usable(found: Mapping[str, Any]) -> bool:
    """Tell whether the verdicts mean anything: replies could be read, and did not merely follow the position."""
    if not found["replies"] or found["failed"] / found["replies"] > MOST_FAILURES:
        return False
    flips = found["position"]["flip_share"]
    return flips is None or flips <= MOST_FLIPS


def _warnings(found: Mapping[str, Any]) -> list[str]:
    """Say in words what speaks against the judge."""
    told = []
    position, length = found["position"], found["length"]["longer_at_equal_score"]
    if position["flip_share"] is not None and position["flip_share"] > MOST_FLIPS:
        told.append(
            f"The judge followed the order and not the answers: {position['flips']} of {position['pairs']} verdicts "
            "flipped when the answers changed places. Its verdicts are not to be used."
        )
    elif _apart_from_half(position["first"]):
        told.append(
            f"Position bias: it preferred the answer shown first in {100 * position['first']['share']:.0f} % of its "
            "decided replies. Both orders were asked, and verdicts that flip count as ties."
        )
    if _apart_from_half(length):
        side = "longer" if length["share"] > 0.5 else "shorter"
        told.append(
            f"Length bias: where two answers are equally good by rule it preferred the longer one in "
            f"{100 * length['share']:.0f} % of {length['n']} decided pairs; a lead of the arm with {side} answers may "
            "be no more than that."
        )
    if found["failed"] > 0.1 * found["replies"]:
        told.append(f"{found['failed']} of {found['replies']} replies could not be read, retries included.")
    again = found["self_agreement"]
    if again is not None and again["share"] < 0.8:
        told.append(f"Asked again, it said the same in only {100 * again['share']:.0f} % of {again['n']} cases.")
    people = found["people"]
    if people is not None and people["n"] >= 10 and (people["kappa"] is None or people["kappa"] < 0.4):
        told.append("It agrees poorly with people's votes (Cohen's kappa under 0.4).")
    return told


def _apart_from_half(share: Mapping[str, Any] | None) -> bool:
    """Tell whether an interval of a share leaves out one half."""
    return share is not None and share["low"] is not None and (share["low"] > 0.5 or share["high"] < 0.5)
