"""From predictions to `summary.json` and the verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from comparison_app.costs import ArmCost, SetupTimes, break_even, question_cost
from comparison_app.errors import RunError
from comparison_app.evaluation import Evaluation, Pair, cluster_of, evaluate
from comparison_app.experiment import ArmSpec, Comparison
from comparison_app.metrics.scoring import METRICS
from comparison_app.predictions import Prediction
from comparison_app.statistics import PairedDifference, holm, paired_difference
from comparison_app.summary import read_summary, summarise, write_summary
from comparison_app.verdict import Standing, standings, verdict
from data_prep.questions import SLICES, Question
from tests.comparison_app.synthetic import (
    bag_of_words,
    made_arms,
    made_documents,
    made_experiment,
    made_predictions,
    made_questions,
    made_texts,
)

DOCUMENTS = made_documents()
QUESTIONS = made_questions(DOCUMENTS)
PREDICTIONS = made_predictions(made_arms(DOCUMENTS), QUESTIONS)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """The made-up run, evaluated once."""
    return evaluate(made_experiment(), QUESTIONS, PREDICTIONS, made_texts(DOCUMENTS), bag_of_words)


def _evaluate(predictions: list[Prediction], questions: list[Question] = QUESTIONS, **changes: object) -> Evaluation:
    return evaluate(made_experiment(**changes), questions, predictions, made_texts(DOCUMENTS))


def test_the_summary_has_exactly_the_shape_that_design_fixes(evaluation: Evaluation) -> None:
    """Keys, nesting, and valid JSON without NaN."""
    summary = json.loads(json.dumps(summarise("r1", evaluation, {"python": "3.11"}), allow_nan=False))
    assert list(summary) == [
        "run", "experiment", "questions", "arms", "primary_metric", "pairs", "verdict", "environment",
    ]  # fmt: skip
    assert summary["questions"] == len(QUESTIONS)
    for arm in summary["arms"].values():
        assert set(arm) == {
            "model", "generator", "overall", "slices", "latency", "tokens", "cost", "refusals", "errors",
        }  # fmt: skip
        assert tuple(arm["slices"]) == SLICES
        assert set(arm["overall"]) <= set(METRICS)
        assert {"p50", "p95"} <= set(arm["latency"])
        for measured in (arm["overall"], *arm["slices"].values()):
            for found in measured.values():
                assert set(found) == {"mean", "low", "high", "n"}
                assert found["low"] <= found["mean"] + 1e-9 <= found["high"] + 2e-9
    assert set(summary["pairs"][0]) == {
        "a", "b", "metric", "slice", "n", "difference", "low", "high", "test", "p_value", "adjusted_p", "decisive",
        "detectable",
    }  # fmt: skip


def test_a_metric_that_does_not_apply_is_absent(evaluation: Evaluation) -> None:
    """Closed-book arms have no sources; unanswerable questions no gold answer."""
    arms = summarise("r1", evaluation)["arms"]
    assert "supported" not in arms["base"]["overall"]
    assert "recall@5" not in arms["finetuned"]["slices"]["trained"]
    assert "ndcg@10" in arms["rag-extractive"]["overall"]
    assert list(arms["rag"]["slices"]["unanswerable"]) == ["abstention_accuracy"]


def test_means_count_every_question_and_failures_as_wrong(evaluation: Evaluation) -> None:
    """The failed answer of `rag` is in n and pulls its mean down."""
    found = summarise("r1", evaluation)["arms"]["rag"]
    assert found["errors"] == 1
    assert found["slices"]["trained-page"]["token_f1"]["n"] == 34
    column = evaluation.arms.index("rag")
    row = next(place for place, q in enumerate(QUESTIONS) if q.id == "trained-page-003")
    assert evaluation.scores["token_f1"][row, column] == 0
    assert found["overall"]["token_f1"]["mean"] == pytest.approx(np.nanmean(evaluation.scores["token_f1"][:, column]))


def test_declared_pairs_come_first_adjusted_and_the_rest_is_exploratory(evaluation: Evaluation) -> None:
    """Only declared pairs can be decisive; each is what `paired_difference` says of the same scores."""
    pairs = summarise("r1", evaluation)["pairs"]
    count = len(evaluation.experiment.comparisons)
    assert all(pair["adjusted_p"] >= pair["p_value"] for pair in pairs[:count])
    assert all(pair["adjusted_p"] is None and not pair["decisive"] for pair in pairs[count:])
    wanted = next(p for p in pairs if (p["a"], p["b"], p["slice"]) == ("rag-extractive", "finetuned", "unseen-page"))
    rows = evaluation.rows("unseen-page")
    table = evaluation.scores["token_f1"][rows]
    alone = paired_difference(
        table[:, evaluation.arms.index("rag-extractive")],
        table[:, evaluation.arms.index("finetuned")],
        [cluster_of(QUESTIONS[row]) for row in rows],
        seed=5,
    )
    assert wanted["decisive"]
    assert (wanted["low"], wanted["high"]) == pytest.approx((alone.low, alone.high))


def test_the_verdict_is_honest_about_both_kinds_of_outcome(evaluation: Evaluation) -> None:
    """Decisive gaps with intervals, open ones with what would have been seen, the limits, one recommendation."""
    text = verdict(evaluation, {"pocket": {"parameters": 14_000_000}})
    assert "rag-extractive beats finetuned by 31 points (14 to 42) on 34 questions about unseen pages" in text
    assert "no decisive difference was found on 34 trained questions (rag-extractive −" in text
    assert "points would be seen in four runs of five)" in text
    assert "pocket has 14 million parameters" in text and "7B" in text
    assert "Failures count as wrong: rag on 1 of 204 questions." in text
    assert text.count("Recommendation") == 1
    assert "\n" not in text
    assert text.split("Recommendation")[1].startswith(f" for questions like these: {standings(evaluation)[0].arm}")


def test_a_gap_as_large_as_what_is_seen_four_times_in_five_is_told_and_not_explained_away(
    evaluation: Evaluation,
) -> None:
    """+34 points with adjusted p 0.059 where 30 are seen four times in five: the gap and its interval, nothing else."""
    found = PairedDifference(0.342, 0.150, 0.490, 0.0117, "exact", 24, 12, detectable=0.2985)
    large = Pair(Comparison("rag", "finetuned", "new-document", "token_f1"), found, adjusted_p=0.0586)
    small = replace(large, found=replace(found, difference=0.03, low=-0.11, high=0.16))
    few = replace(large, found=replace(found, clusters=7, detectable=None))
    shown = {pair: verdict(replace(evaluation, pairs=(pair, *evaluation.pairs[1:]))) for pair in (large, small, few)}
    assert "24 questions about documents added after training (rag +34 points, +15 to +49)" in shown[large]
    assert "(rag +3 points, −11 to +16; a gap of 30 points would be seen in four runs of five)" in shown[small]
    assert "+15 to +49; 7 documents are too few to decide first among 11 comparisons)" in shown[few]
    assert "would have been seen" not in shown[large] + shown[small] + shown[few]


def test_every_figure_of_the_verdict_follows_from_the_scores(evaluation: Evaluation) -> None:
    """Turn two arms' answers round and the verdict turns round."""
    swapped = {"rag-extractive": "finetuned", "finetuned": "rag-extractive"}
    turned = [replace(p, arm=swapped.get(p.arm, p.arm)) for p in PREDICTIONS]
    assert "finetuned beats rag-extractive by 31 points (14 to 42)" in verdict(_evaluate(turned))


def test_the_recommendation_adjusts_for_the_arms_that_it_was_picked_from(evaluation: Evaluation) -> None:
    """The best arm was seen in the same scores: Holm over the others, and called exploratory."""
    ranked = standings(evaluation)
    raw = [standing.behind.p_value for standing in ranked[1:] if standing.behind is not None]
    assert [standing.adjusted_p for standing in ranked] == [None, *holm(raw)]
    behind = PairedDifference(0.08, 0.01, 0.15, 0.03, "exact", 204, 40)
    assert Standing("a", 0.4, 0.3, 0.5, behind, 0.03).apart
    assert not Standing("a", 0.4, 0.3, 0.5, behind, 0.06).apart
    assert "exploratory tests of the best arm against each other one, adjusted for their number" in verdict(evaluation)


def test_slice_weights_change_the_recommendation() -> None:
    """Who asks only trained questions should not be told to retrieve."""
    only_trained = dict.fromkeys(SLICES, 0.0) | {"trained": 1.0}
    weighted = _evaluate(PREDICTIONS, slice_weights=only_trained)
    assert standings(weighted)[0].arm == "finetuned"
    assert "Recommendation for your mix of slices: finetuned" in verdict(weighted)
    assert standings(_evaluate(PREDICTIONS))[0].arm != "finetuned"


def test_missing_repeated_and_stray_predictions_are_counted_and_said() -> None:
    """A missing answer is a failure; of two the first counts."""
    second = replace(PREDICTIONS[1], answer="something else", error=None)
    odd = [*PREDICTIONS[1:], second, Prediction("no such question", "base"), Prediction(QUESTIONS[0].id, "no such arm")]
    found = _evaluate(odd)
    assert found.predictions["base"][0].error == "no prediction"
    assert found.predictions["base"][1] == PREDICTIONS[1]
    assert found.notes == (
        "base: 1 without a prediction, counted as wrong",
        "base: 1 repeated, the first counts",
        "base: 1 of other questions or arms, left out",
        "no such arm: 1 of other questions or arms, left out",
    )
    assert summarise("r", found)["environment"]["notes"] == list(found.notes)


def test_an_arm_that_fails_on_everything_is_reported_and_changes_no_other() -> None:
    """Its means are 0, its latency unknown; the others' figures stay."""
    broken = [replace(p, error="down", answer="") if p.arm == "raft" else p for p in PREDICTIONS]
    before, after = summarise("r", _evaluate(PREDICTIONS)), summarise("r", _evaluate(broken))
    assert after["arms"]["raft"]["errors"] == len(QUESTIONS)
    assert after["arms"]["raft"]["overall"]["token_f1"]["mean"] == 0
    assert after["arms"]["raft"]["latency"]["p50"] is None
    assert after["arms"]["raft"]["cost"]["per_correct"] is None
    assert after["arms"]["rag"] == before["arms"]["rag"]


def test_identical_arms_are_not_told_apart() -> None:
    """Difference exactly 0, not decisive, and the verdict says that the scores are the same."""
    same = [replace(p, arm="finetuned-rag") for p in PREDICTIONS if p.arm == "rag"]
    twins = _evaluate([p for p in PREDICTIONS if p.arm != "finetuned-rag"] + same)
    pair = next(p for p in summarise("r", twins)["pairs"] if (p["a"], p["b"]) == ("finetuned-rag", "rag"))
    assert (pair["difference"], pair["decisive"], pair["p_value"]) == (0.0, False, 1.0)
    assert "(the scores are the same)" in verdict(twins)


def test_a_slice_of_one_question_has_no_interval_and_the_verdict_says_so() -> None:
    """Too few documents to say anything."""
    questions = [q for q in QUESTIONS if q.slice != "unseen-page" or q.id.endswith("000")]
    found = _evaluate(PREDICTIONS, questions)
    measured = summarise("r", found)["arms"]["rag"]["slices"]["unseen-page"]["token_f1"]
    assert (measured["n"], measured["low"], measured["high"]) == (1, None, None)
    assert "too few documents, 1, to say" in verdict(found)


def test_all_arms_wrong_recommends_none() -> None:
    """There is nothing to recommend."""
    failed = [replace(p, error="down") for p in PREDICTIONS]
    assert verdict(_evaluate(failed)).endswith("Recommendation: none; no arm answered anything right.")


def test_a_summary_is_written_and_read_and_damage_is_named(tmp_path: Path, evaluation: Evaluation) -> None:
    """One clear line for no file, no JSON, and no summary."""
    path = tmp_path / "summary.json"
    summary = summarise("r1", evaluation)
    with pytest.raises(RunError, match="cannot be read"):
        read_summary(path)
    write_summary(path, summary)
    assert read_summary(path) == json.loads(json.dumps(summary))
    for text in ("{", "[]"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RunError, match=str(path)):
            read_summary(path)


def test_costs_come_from_the_arm_the_price_or_the_clock() -> None:
    """In that order."""
    reply = Prediction("q", "x", prompt_tokens=1000, completion_tokens=500, seconds=3600)
    priced = ArmSpec("x", "rag", input_price=2.0, output_price=4.0)
    assert question_cost(replace(reply, cost=0.5), priced, 1.0) == 0.5
    assert question_cost(reply, priced, 1.0) == pytest.approx(0.004)
    assert question_cost(reply, ArmSpec("x", "rag"), 0.25) == pytest.approx(0.25)


def test_break_even_is_where_the_lines_cross() -> None:
    """Set up for 10 more, 0.5 cheaper a question: from the twentieth on. Never, if it is dearer at both."""
    cheap, dear = ArmCost(0.5, 0, 10, None, "USD"), ArmCost(1.0, 0, 0, None, "USD")
    assert break_even(cheap, dear) == 20
    assert break_even(dear, cheap) is None


def test_training_and_indexing_times_reach_the_summary(evaluation: Evaluation) -> None:
    """And become money at the machine's price."""
    found = summarise("r", evaluation, setup={"rag": SetupTimes(indexing_seconds=36.0, update_seconds=1.5)})
    assert found["arms"]["rag"]["cost"]["setup"] == pytest.approx(0.10 * 36 / 3600)
    assert found["arms"]["rag"]["cost"]["update_seconds"] == 1.5
    assert found["arms"]["base"]["cost"]["training_seconds"] is None


def test_times_are_read_from_the_run_record(evaluation: Evaluation) -> None:
    """Training from the adapter's, indexing from the run's; what an arm does not use it does not pay for."""
    record = {"adapters": {"tern-live": {"seconds": 150.0}}, "indexing": {"seconds": 9.0}, "update": {"seconds": 1.0}}
    arms = summarise("r", evaluation, record)["arms"]
    assert arms["finetuned-rag"]["cost"]["setup"] == pytest.approx(0.10 * 159 / 3600)
    assert arms["finetuned"]["cost"]["indexing_seconds"] is None
    assert (arms["raft"]["cost"]["training_seconds"], arms["raft"]["cost"]["setup"]) == (None, None)
    assert "raft" not in str([arm["cost"]["cheaper_from"] for arm in arms.values()])
    assert arms["rag"]["cost"]["update_seconds"] == 1.0
