"""`versus compare --ray`: arms and questions over the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from comparison_app.comparison import Comparison
from comparison_app.predictions import Prediction, read_predictions
from comparison_app.runner import RunProgress, open_run, read_record
from comparison_app.spread import Batch, RayPool
from comparison_app.workspace import Workspace
from data_prep.questions import Question
from rag.errors import ClusterError
from tests.comparison_app.test_runner import EXPERIMENT, QUESTIONS, experiment_path

__all__ = ["EXPERIMENT", "experiment_path"]


class Backwards:
    """A pool that answers the last batch first, and fails on one arm's first."""

    def answer(self, batches: Sequence[Batch]) -> Iterator[tuple[str, tuple[Question, ...], list[Prediction] | str]]:
        for arm, questions in reversed(batches):
            broken = arm == "two" and questions[0].id == "q00"
            yield arm, questions, "OSError: gone" if broken else [Prediction(q.id, arm, q.question) for q in questions]


def test_batches_may_come_in_any_order_and_a_failed_one_costs_only_itself(
    tmp_path: Path, experiment_path: Path
) -> None:
    """All are appended, the failed with its error; settled, they stand in order."""
    run = open_run(tmp_path / "run", experiment_path, QUESTIONS)
    seen: list[RunProgress] = []
    run.ask_spread(Backwards(), ["one", "two"], QUESTIONS, seen.append)
    run.settle()
    found = run.predictions()
    assert [(p.arm, p.question_id) for p in found] == [(arm, q.id) for arm in ("one", "two") for q in QUESTIONS]
    assert {p.error for p in found if p.arm == "one"} == {None}
    assert [p.error for p in found if p.arm == "two"] == ["OSError: gone"] * 4 + [None] * 6
    assert (seen[-1].done, seen[-1].total) == (20, 20)


@pytest.mark.slow
def test_a_local_cluster_gives_the_answers_that_one_process_gives(small_corpus: Path, tmp_path: Path) -> None:
    """The same predictions, but for the times in them; single questions are timed here, whoever answered."""
    path = tmp_path / "lamp.toml"
    arms = '[[arms]]\nname = "quotes"\nkind = "rag-extractive"\n'
    arms += '[[arms]]\nname = "one"\nkind = "rag-extractive"\nrag = {top_k = 1}\n'
    path.write_text(f'name = "lamp"\ncorpus = "{small_corpus}"\nbatch_size = 3\nlatency_probe = 3\n{arms}')
    comparison = Comparison.prepare(path, Workspace(tmp_path / "workspace"))
    found = {}
    for name, ray in (("here", None), ("there", "local")):
        folder = comparison.run(name, ray=ray)
        found[name] = [replace(p, seconds=0.0) for p in read_predictions(folder / "predictions.jsonl")]
        assert all(times["alone_p50"] > 0 for times in read_record(folder)["latency"].values())
        assert set(read_record(folder)["latency"]) == {"quotes", "one"}
    assert found["here"] == found["there"]
    assert len(found["here"]) == 2 * len(comparison.questions)
    assert not [p for p in found["there"] if p.error]


def test_a_cluster_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    """Nobody listens at the address: said at once, with the way out."""
    with pytest.raises(ClusterError, match=r"no Ray cluster at '127.0.0.1:1'.*ray start --head"):
        RayPool("127.0.0.1:1", tmp_path, tmp_path, [], 1).__enter__()
