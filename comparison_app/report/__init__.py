"""The report of a run: one page for people, the same in markdown, and a table of every question."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comparison_app.evaluation import Evaluation
from comparison_app.report.markdown import render_markdown
from comparison_app.report.page import render_html
from comparison_app.report.questions_table import render_csv
from data_prep.atomic import write_text

__all__ = ["render_csv", "render_html", "render_markdown", "write_report"]


def write_report(folder: Path, evaluation: Evaluation, summary: Mapping[str, Any]) -> Path:
    """Write `report.html`, `report.md` and `questions.csv` into the run `folder`; returns the page's path."""
    page = folder / "report.html"
    write_text(page, render_html(evaluation, summary))
    write_text(folder / "report.md", render_markdown(evaluation, summary))
    write_text(folder / "questions.csv", render_csv(evaluation))
    return page
