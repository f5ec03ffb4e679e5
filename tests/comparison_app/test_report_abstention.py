"""The report tells when retrieving arms decline, and how that was found."""

from __future__ import annotations

from comparison_app.evaluation import Evaluation, evaluate
from comparison_app.report import render_html, render_markdown
from comparison_app.summary import summarise
from rag.abstention import PRIOR, AbstentionCalibration
from tests.comparison_app.synthetic import (
    made_arms,
    made_documents,
    made_experiment,
    made_predictions,
    made_questions,
    made_texts,
)

CURVE = ((1.0, 1.0), (0.6, 0.98), (0.3, 0.93), (0.1, 0.6), (0.0, 0.0))
FOUND = AbstentionCalibration(0.43, 0.876, 0.93, 0.7, 200, 72, CURVE, PRIOR)


def _evaluation() -> Evaluation:
    documents = made_documents(12)
    questions = made_questions(documents, per_slice=6)
    predictions = made_predictions(made_arms(documents), questions)
    return evaluate(made_experiment(), questions, predictions, made_texts(documents))


def test_the_report_shows_calibrations_with_their_curve() -> None:
    """Arms that decline alike share a line and a chart; the curve's points are not listed in the provenance."""
    evaluation = _evaluation()
    noted = {"rag": FOUND.as_dict(), "rag-extractive": FOUND.as_dict()}
    summary = summarise("run-1", evaluation, {"abstention": noted})
    page, text = render_html(evaluation, summary), render_markdown(evaluation, summary)
    told = "declines under a confidence of 0.43, calibrated on 272 dev questions: ROC AUC 0.88"
    assert text.count(told) == 1
    assert f"- rag, rag-extractive: {told}" in text
    assert page.count("ROC of confidence: rag, rag-extractive") > 0
    assert "93 % of the answerable ones are still answered, 70 % of the unanswerable declined" in page
    assert page.count("curve c") >= len(CURVE) - 1
    assert "abstention.rag.roc<" not in page and "abstention.rag.roc |" not in text
    assert "abstention.rag.threshold" in page


def test_a_run_without_calibration_says_nothing_of_it() -> None:
    """Runs of corpora without unanswerable dev questions, and runs made earlier, have no such part."""
    evaluation = _evaluation()
    page = render_html(evaluation, summarise("run-1", evaluation, {}))
    assert "too unsure to answer" not in page
