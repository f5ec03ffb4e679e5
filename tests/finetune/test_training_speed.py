"""The benchmark of training speed measures what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from math import inf, log
from pathlib import Path
from typing import Any

import pytest

from benchmarks.four_bit_check import check
from benchmarks.in_turn import Measurements
from benchmarks.training_speed import CUDA_SIDES, Job, answer, measure, measure_on_cuda, pairs, plain


@pytest.mark.slow
def test_all_sides_of_the_4_bit_comparison_train_the_same_tokens() -> None:
    """With a small model in place of the 7B one, each side trains in 4 bits; packed rows hold more that is useful."""
    ours, *others = (measure(Job(side, steps=1, warm=1, tiny=True)) for side in CUDA_SIDES)
    for other in others:
        assert ours["useful_tokens"] == other["useful_tokens"] > 0
        assert ours["useful_share_of_the_rows"] > other["useful_share_of_the_rows"]
    for figures in (ours, *others):
        assert figures["last_loss"] == pytest.approx(log(16384), abs=0.5), (
            "random weights know nothing of 16,384 tokens"
        )


@pytest.mark.parametrize(("side", "checkpointing"), [("trl", True), ("trl-without-checkpointing", False)])
def test_the_plain_side_is_what_trl_makes_of_a_4_bit_model(side: str, checkpointing: bool) -> None:
    """It checkpoints by default, and nothing is cast to float32 before."""
    import torch

    trainer, _ = plain(Job(side, tiny=True), [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}] * 16)
    assert trainer.args.gradient_checkpointing is checkpointing
    assert trainer.model.get_input_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.slow
def test_answers_are_counted() -> None:
    """The answering part reports a rate for a size of the batch."""
    figures = answer(Job("ours", tiny=True), size=4, questions=4, new_tokens=2)
    assert figures["batch_size"] == 4
    assert figures["answers_per_second"] > 0


@pytest.mark.slow
def test_the_check_of_the_4_bit_path_trains_and_answers() -> None:
    """A narrow model takes the same way on a CPU: the recipe for 7B models, two steps, two answers."""
    figures = check(pairs("tern-manual")[:40], "cpu", small=True)
    assert figures["ok"] is True
    assert len(figures["losses"]) == 2
    assert figures["answers"] == 2


CHILD = """
import sys, time
print("noise")
if sys.argv[1] == "sleep":
    print("began", file=sys.stderr, flush=True)
    time.sleep(60)
if sys.argv[1] == "fail":
    sys.exit("the device is gone")
print('{"figure": 3}' if sys.argv[1] == "measure" else "no figures")
"""


def test_a_measurement_that_fails_is_told_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What fails, takes too long or prints no figures is a line like others, on stdout and in the folder OUT."""
    (tmp_path / "out").mkdir()
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    (tmp_path / "child.py").write_text(CHILD)
    measurements = Measurements(tmp_path / "child.py")
    found = [measurements.run(name, [name], 2 if name == "sleep" else inf) for name in ("sleep", "fail", "x")]
    assert found == [None, None, None]
    assert measurements.run("a", ["measure"]) == {"figure": 3}
    written = (tmp_path / "out" / "child.jsonl").read_text()
    assert written == capsys.readouterr().out
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["measurement"] for line in lines] == ["sleep", "fail", "x", "a"]
    assert lines[0]["failed"] == "not done after 2 s: began"
    assert lines[1]["failed"] == "exit code 1: the device is gone"
    assert "failed" in lines[2]
    assert lines[3] == {"measurement": "a", "figure": 3}


def test_no_measurement_begins_after_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them together keep to their time; without the folder OUT nothing is written."""
    monkeypatch.delenv("OUT", raising=False)
    (tmp_path / "child.py").write_text(CHILD)
    assert Measurements(tmp_path / "child.py", 0.0).run("a", ["measure"]) is None
    assert "no time left" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["child.py"]


class Recorded(Measurements):
    """Measurements that are not made: each side finds the same but ours, which fails if it is told to."""

    def __init__(self, *, ours_fail: bool = False) -> None:
        self.told: list[dict[str, Any]] = []
        self.runs: list[list[str]] = []
        self._ours_fail = ours_fail

    def tell(self, figures: dict[str, Any]) -> None:
        self.told.append(figures)

    def run(self, name: str, arguments: Any, seconds: float = inf) -> dict[str, Any] | None:
        self.runs.append(list(arguments))
        if self._ours_fail and "ours" in name:
            return None
        figures = ("useful_tokens_per_second", "useful_tokens_per_processor_second", "peak_gigabytes")
        return {"side": arguments[1], **dict.fromkeys(figures, 2.0)}


@pytest.mark.parametrize("folder", [None, "empty"])
def test_without_its_data_the_cuda_part_takes_the_sample_manual(
    folder: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and measures the check, three sides and three rates on it."""
    monkeypatch.delenv("VERSUS_BENCH_DATA", raising=False)
    if folder:
        monkeypatch.setenv("VERSUS_BENCH_DATA", str(tmp_path))
    recorded = Recorded()
    measure_on_cuda(recorded, checks=True)
    assert "VERSUS_BENCH_DATA names no folder with tesla-model3" in recorded.told[0]["note"]
    assert [run[0] for run in recorded.runs] == ["--check-only", *["--side"] * 3, *["--answer"] * 3]
    assert all(run[-1] == "tern-manual" for run in recorded.runs)
    assert [told["ours_against"] for told in recorded.told[1:]] == ["trl", "trl-without-checkpointing"]


def test_with_its_data_the_cuda_part_takes_its_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other sides and the answers are measured where ours fails; the check may be left out."""
    (tmp_path / "tesla-model3").mkdir()
    (tmp_path / "tesla-model3" / "questions.train.jsonl").touch()
    monkeypatch.setenv("VERSUS_BENCH_DATA", str(tmp_path))
    recorded = Recorded(ours_fail=True)
    measure_on_cuda(recorded, checks=False)
    assert recorded.told == [{"measurement": "cuda", "data": "tesla-model3"}]
    assert len(recorded.runs) == 6
    assert all(run[-1] == "tesla-model3" for run in recorded.runs)


def test_the_benchmark_finds_the_packages_beside_it(repository: Path, tmp_path: Path) -> None:
    """It runs from any folder, whether the packages are installed or not."""
    script = "import runpy, sys; runpy.run_path(sys.argv[1]); import finetune.config as it; print(it.__file__)"
    command = [sys.executable, "-I", "-S", "-c", script, str(repository / "benchmarks" / "training_speed.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(repository / "finetune" / "config.py")


def test_the_order_of_the_pairs_is_fixed() -> None:
    """Two calls give the same pairs: both sides train the same examples in the same order."""
    assert pairs("tern-manual") == pairs("tern-manual")
    assert len(pairs("tern-manual")) > 1000
