"""Passages embedded over many machines with Ray: the same vectors, from one worker process per CPU or GPU.

Every node needs Versus installed, and the embedding model (its folder, or the network to fetch it). Queries are
embedded where the question is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rag.config import RagConfig
from rag.embedding import Embedder
from rag.errors import EmbeddingError
from rag.ray_cluster import connect

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_TASK_TEXTS = 128
"""Texts per task: seconds of work, so that a lost worker costs little and the scheduler is not felt."""


class RayEmbedder(Embedder):
    """An `Embedder` whose passages go to the workers of a Ray cluster; fingerprint and vectors are the embedder's own.

    `address`: `local`, `auto` (the cluster that this machine is part of), `HOST:PORT` or `ray://HOST:PORT`. `workers`:
    processes at most; by default one for each CPU of the cluster, or each GPU where the model runs on torch and there
    are any. Raises `EmbeddingError` where no cluster answers. Close it, or use it in a `with` statement.
    """

    at_once = 16_384
    """Texts that are best handed over together."""

    def __init__(self, config: RagConfig, address: str, *, workers: int | None = None) -> None:
        plain = Embedder.from_config(config)
        super().__init__(
            plain.model,
            backend=config.backend,
            query_prefix=plain.query_prefix,
            passage_prefix=plain.passage_prefix,
            url=plain.url,
            key_env=plain.key_env,
        )
        self.config = config
        self.address = address
        self.most_workers = workers
        self._workers: list[Any] = []

    def __enter__(self) -> RayEmbedder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def embed_documents(self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> Vectors:
        """Return unit vectors, float32 of shape (len(texts), dimension), of passages.

        A worker that dies is started again and its texts are embedded again, twice at most.
        """
        import numpy as np

        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), index))
        tasks = [order[first : first + _TASK_TEXTS] for first in range(0, len(order), _TASK_TEXTS)]
        done = 0
        for members, found in self._run(tasks, texts):
            vectors[members] = found
            done += len(members)
            if progress:
                progress(done, len(texts))
        return vectors

    def close(self) -> None:
        """Stop the workers, and the cluster if it was started here."""
        if not self._workers:
            return
        import ray

        self._workers = []
        ray.shutdown()

    def _run(self, tasks: Sequence[list[int]], texts: Sequence[str]) -> Iterator[tuple[list[int], Vectors]]:
        """Yield each task's members with their vectors, in the order in which they are done."""
        workers = self._started()
        import ray
        from ray.util import ActorPool

        def submit(worker: Any, members: list[int]) -> Any:
            return worker.embed.remote(members, [texts[index] for index in members])

        pool = ActorPool(workers)
        try:
            yield from pool.map_unordered(submit, list(tasks))
        except ray.exceptions.RayError as error:
            raise EmbeddingError(f"embedding on the Ray cluster {self.address} failed: {error}") from error

    def _started(self) -> list[Any]:
        if not self._workers:
            self._workers = self._start()
        return self._workers

    def _start(self) -> list[Any]:
        connect(self.address)
        import ray

        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if self.backend == "torch" else 0
        count = gpus or max(1, int(resources.get("CPU", 1)))
        needs = {"num_cpus": 1, "num_gpus": 1} if gpus else {"num_cpus": 1}
        worker = ray.remote(max_restarts=2, max_task_retries=2, **needs)(_Worker)
        return [worker.remote(asdict(self.config)) for _ in range(min(count, self.most_workers or count))]


class _Worker:
    """One process of the cluster with one embedder, on one thread."""

    def __init__(self, settings: dict[str, Any]) -> None:
        os.environ.update(HAYSTACK_TELEMETRY_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
        config = RagConfig(**settings)
        self._embedder = Embedder.from_config(config)
        self._embedder.threads = 1

    def embed(self, members: list[int], texts: list[str]) -> tuple[list[int], Vectors]:
        """Return the members' numbers and their vectors."""
        return members, self._embedder.embed_documents(texts)
