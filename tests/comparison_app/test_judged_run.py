"""A whole comparison with a judge, by the command itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comparison_app.cli import main
from tests.comparison_app.chat_server import chat_server

EXPERIMENT = """
name = "lamp"
corpus = "{corpus}"
latency_probe = 0
[[arms]]
name = "quotes"
kind = "rag-extractive"
[[arms]]
name = "whole pages"
kind = "rag-extractive"
preset = "car-manual"
[judge]
model = "some-judge"
endpoint = "{url}"
questions = 3
repeats = 1
input_price = 0.1
output_price = 0.2
"""


def _reply(prompt: str) -> str:
    if "answer_A" in prompt:
        return '{"reason": "first", "winner": "tie"}'
    return '{"reason": "good", "correctness": 4, "completeness": 4, "faithfulness": 5}'


@pytest.mark.slow
def test_a_judged_comparison_costs_once_and_can_be_judged_again(
    small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The summary gains "judge"; judging the same run again sends nothing; --no-judge and a budget of 0 ask nothing."""
    place = ["--workspace", str(tmp_path / "workspace"), "--json"]
    with chat_server(_reply) as (url, seen):
        path = tmp_path / "lamp.toml"
        path.write_text(EXPERIMENT.format(corpus=small_corpus, url=url))
        assert main(["compare", str(path), "--plan", *place]) == 0
        planned = json.loads(capsys.readouterr().out)["judge"]
        assert main(["compare", str(path), "--name", "first", "--no-judge", *place]) == 0
        assert "judge" not in json.loads(capsys.readouterr().out)
        assert main(["compare", str(path), "--name", "first", "--resume", "--budget", "0", *place]) == 0
        assert json.loads(capsys.readouterr().out)["judge"]["stopped"] == "the budget is spent"
        assert not seen
        assert main(["compare", str(path), "--name", "first", "--resume", *place]) == 0
        judged = json.loads(capsys.readouterr().out)["judge"]
        sent = len(seen)
        assert sent == judged["spent"]["calls"] > 0
        assert judged["ratings"]["quotes"]["faithfulness"]["mean"] == 5
        assert (
            planned["calls"] == 3 * (2 + 2) + 2 >= sent
        )  # three questions: a pair in two orders, two arms; one repeat
        assert planned["money"] > judged["spent"]["money"]
        assert 0 < judged["spent"]["money"] <= judged["estimate"]["money"]
        assert main(["compare", str(path), "--name", "first", "--resume", *place]) == 0
        assert len(seen) == sent
        assert json.loads(capsys.readouterr().out)["judge"]["spent"]["calls"] == 0
    folder = tmp_path / "workspace" / "runs" / "first"
    assert "some-judge" in (folder / "report.html").read_text(encoding="utf-8")
    assert main(["report", "first", *place]) == 0
    assert json.loads(capsys.readouterr().out)["judge"]["judged"] == judged["judged"]
    path.write_text(path.read_text().replace('model = "some-judge"', "model = 3"))
    assert main(["compare", str(path), "--name", "second", *place]) == 1
    assert "model must be a non-empty string" in capsys.readouterr().err
    assert not (folder.parent / "second").exists()
