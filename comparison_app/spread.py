"""Arms and questions spread over the nodes of a Ray cluster: one worker process for each processor, or each GPU.

Every node needs Versus and the workspace, the corpus and the models under the same paths (a shared folder). A worker
builds an arm when it is first given a batch for it, and answers the batch as the arm would here. Arms at endpoints are
asked from this process, which keeps many requests in flight by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comparison_app.experiment import ArmSpec
from comparison_app.predictions import Prediction
from data_prep.questions import Question
from rag.ray_cluster import connect

Batch = tuple[str, tuple[Question, ...]]
"""An arm's name, and the questions that it is to answer as one batch."""


@dataclass
class RayPool:
    """Workers of a Ray cluster that can answer for any of `specs`; use it in a `with` statement.

    `address` is one of `rag.ray_cluster.connect`, which raises `ClusterError` where no cluster answers.
    """

    address: str
    workspace: Path
    corpus: Path
    specs: Sequence[ArmSpec]
    batch_size: int
    _workers: list[Any] = field(default_factory=list)

    def __enter__(self) -> RayPool:
        connect(self.address)
        import ray

        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if any(spec.model for spec in self.specs) else 0
        count = gpus or max(1, int(resources.get("CPU", 1)))
        needs = {"num_cpus": 1, "num_gpus": 1} if gpus else {"num_cpus": 1}
        worker = ray.remote(max_restarts=2, max_task_retries=2, **needs)(_Worker)
        given = (str(self.workspace.resolve()), str(self.corpus.resolve()), list(self.specs), self.batch_size)
        self._workers = [worker.remote(*given) for _ in range(count)]
        return self

    def __exit__(self, *exception: object) -> None:
        import ray

        self._workers = []
        ray.shutdown()

    def answer(self, batches: Sequence[Batch]) -> Iterator[tuple[str, tuple[Question, ...], list[Prediction] | str]]:
        """Yield every batch with its predictions, as they come; with an error where its arm or worker failed.

        A worker that dies is started again and its batch is asked again, twice at most.
        """
        import ray

        waiting = list(reversed(batches))
        idle = list(self._workers)
        busy: dict[Any, tuple[Any, str, tuple[Question, ...]]] = {}
        while waiting or busy:
            while idle and waiting:
                worker, (arm, questions) = idle.pop(), waiting.pop()
                busy[worker.answer.remote(arm, questions)] = (worker, arm, questions)
            (ready,), _ = ray.wait(list(busy), num_returns=1)
            worker, arm, questions = busy.pop(ready)
            idle.append(worker)
            try:
                yield arm, questions, ray.get(ready)
            except ray.exceptions.RayError as error:
                yield arm, questions, _cause(error)


class _Worker:
    """One process of the cluster; builds arms as it meets them."""

    def __init__(self, workspace: str, corpus: str, specs: list[ArmSpec], batch_size: int) -> None:
        os.environ.update(
            HAYSTACK_TELEMETRY_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", TRANSFORMERS_VERBOSITY="error"
        )
        from comparison_app.arms import ArmFactory
        from comparison_app.workspace import Workspace
        from data_prep.corpus import load_corpus

        self._factory = ArmFactory(Workspace(Path(workspace)), load_corpus(Path(corpus)), threads=1)
        self._specs = {spec.name: spec for spec in specs}
        self._batch_size = batch_size
        self._arms: dict[str, Any] = {}

    def answer(self, arm: str, questions: Sequence[Question]) -> list[Prediction]:
        """Return one prediction per question."""
        if arm not in self._arms:
            self._arms[arm] = self._factory.build(self._specs[arm], self._batch_size)
        return list(self._arms[arm].answer(questions))


def _cause(error: Exception) -> str:
    """Return what went wrong on the worker, in one line."""
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).splitlines() if line.strip()] or [""]
    return f"{type(cause).__name__}: {lines[-1].strip()}"
