"""The demo: the whole job on the sample manual, with a shorter training; a second one uses everything again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.comparison_app.command import versus


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_ends_in_a_report_and_the_second_one_asks_nothing_again(tmp_path: Path) -> None:
    """Six arms, every slice, no failure, a verdict that names pocket; then the same run again without any work."""
    place = ("--workspace", tmp_path / "workspace", "--train-seconds", "15")
    first = versus("demo", "--json", *place, timeout=840)
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    assert set(summary["arms"]) == {"base", "finetuned", "rag", "finetuned-rag", "raft", "rag-extractive"}
    assert {arm["errors"] for arm in summary["arms"].values()} == {0}
    assert set(summary["arms"]["rag"]["slices"]) == {
        "trained", "paraphrase", "trained-page", "unseen-page", "new-document", "unanswerable",
    }  # fmt: skip
    assert "pocket" in summary["verdict"]
    folder = tmp_path / "workspace" / "runs" / summary["run"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert summary["verdict"][:60] in page.replace("&#39;", "'")
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page), "the report asks for something outside"
    before = (folder / "predictions.jsonl").stat().st_mtime_ns
    shown = versus("demo", *place, timeout=300)
    assert shown.returncode == 0, shown.stderr
    assert "used again" in shown.stderr
    assert summary["run"] in shown.stdout
    assert (folder / "predictions.jsonl").stat().st_mtime_ns == before
