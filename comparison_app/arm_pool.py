"""Arms for many visitors: built once for each corpus, one copy of every model in memory, safe between threads.

The web app and the endpoint ask their arms here. Which arms there are follows from an experiment's declarations, or,
without one, from what the workspace holds: the kinds on pocket, with the newest adapter of the corpus.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.arms import Arm, ArmFactory
from comparison_app.commands.ask import newest_adapter
from comparison_app.endpoints import RETRIES_WATCHED
from comparison_app.errors import ComparisonError
from comparison_app.experiment import ArmSpec, find_experiment, load_experiment
from comparison_app.first_imports import import_haystack
from comparison_app.first_index import ensure_index
from comparison_app.indexes import rag_config
from comparison_app.kinds import ADAPTED, EXTRACTIVE
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus

if TYPE_CHECKING:
    from finetune.answering import LocalModel

ORDER = (EXTRACTIVE, "rag", "finetuned", "finetuned-rag", "raft", "base")
"""The kinds as they stand side by side: quotes first, memory without training last."""
Key = tuple[str, str, float]
"""Corpus folder, declaration, time of the adapter: what an arm was built from."""


class _SharedModels(ArmFactory):
    """An arm factory whose local models are shared with other corpora's factories."""

    def __init__(self, workspace: Workspace, corpus: Corpus, models: dict[Any, LocalModel], lock: threading.Lock):
        super().__init__(workspace, corpus, retries=RETRIES_WATCHED)
        self._models, self._lock = models, lock

    def model(self, spec: ArmSpec) -> LocalModel:
        """Return the one loaded copy of the model that an arm uses."""
        with self._lock:
            return super().model(spec)


class ArmPool:
    """The arms that visitors of one workspace may ask; `experiment` declares them, by file or by name."""

    def __init__(self, workspace: Workspace, experiment: str | Path | None = None) -> None:
        self.workspace = workspace
        self._declared = load_experiment(find_experiment(experiment)) if experiment else None
        self._models: dict[Any, LocalModel] = {}
        self._models_lock = threading.Lock()
        self._factories: dict[str, ArmFactory] = {}
        self._arms: dict[Key, Arm] = {}
        self._specs: dict[tuple[str, float], tuple[ArmSpec, ...]] = {}
        self._lock = threading.Lock()
        self._building: dict[Key, threading.Lock] = defaultdict(threading.Lock)

    def spare_torch(self) -> bool:
        """Keep torch out of this process if no arm declared needs it, which saves seconds and memory.

        Returns whether it is kept out; an app without an experiment may get any arm, and needs it.
        """
        from rag.torchfree import block_torch

        arms = self._declared.arms if self._declared is not None else None
        if arms is None or any(
            (arm.model and not arm.endpoint) or arm.preset or arm.rag.get("embedder") for arm in arms
        ):
            return False
        return block_torch()

    @property
    def currency(self) -> str:
        """The currency of the prices that the experiment gives."""
        return self._declared.currency if self._declared is not None else "USD"

    def specs(self, corpus: Corpus) -> tuple[ArmSpec, ...]:
        """Return the arms that can be asked about a corpus now, in a fixed order."""
        if self._declared is not None:
            return self._declared.arms
        key = (str(corpus.path.resolve()), self._newest_record())
        with self._lock:
            if key not in self._specs:
                self._specs[key] = _usable(self.workspace, corpus)
            return self._specs[key]

    def spec(self, corpus: Corpus, name: str) -> ArmSpec:
        """Return one arm's declaration; raises `ComparisonError` that lists those there are."""
        specs = self.specs(corpus)
        for spec in specs:
            if spec.name == name:
                return spec
        known = ", ".join(spec.name for spec in specs)
        hint = "; `versus train` makes the adapter it needs" if name in ADAPTED else ""
        raise ComparisonError(f"no arm {name!r} on corpus {corpus.name}; there are: {known}{hint}")

    def arm(self, corpus: Corpus, name: str) -> Arm:
        """Return an arm, building it at first use; other arms can be built and asked meanwhile."""
        import_haystack()
        spec = self.spec(corpus, name)
        key = (str(corpus.path.resolve()), repr(spec), self._record_time(spec))
        with self._lock:
            lock = self._building[key]
        with lock:
            if key not in self._arms:
                if spec.retrieves:
                    ensure_index(self.workspace, corpus, rag_config(spec.preset, dict(spec.rag)))
                self._drop_retrained(key, spec)
                self._arms[key] = self._factory(corpus).build(spec, batch_size=1)
            return self._arms[key]

    def model(self, corpus: Corpus, spec: ArmSpec) -> LocalModel:
        """Return the local model behind an arm, the same copy that the arms use."""
        return self._factory(corpus).model(spec)

    def renew(self, corpus: Corpus) -> None:
        """Forget a corpus's arms: those asked from here on decline by what the index holds now. Models stay loaded."""
        where = str(corpus.path.resolve())
        with self._lock:
            self._factories.pop(where, None)
            self._arms = {key: arm for key, arm in self._arms.items() if key[0] != where}
            self._specs = {key: specs for key, specs in self._specs.items() if key[0] != where}

    def _factory(self, corpus: Corpus) -> ArmFactory:
        where = str(corpus.path.resolve())
        with self._lock:
            if where not in self._factories:
                self._factories[where] = _SharedModels(self.workspace, corpus, self._models, self._models_lock)
            return self._factories[where]

    def _drop_retrained(self, key: Key, spec: ArmSpec) -> None:
        """Unload a model whose adapter was trained anew under its old name: it would go on with the old weights."""
        with self._lock:
            if not any(old[1] == key[1] and old[2] != key[2] for old in self._arms):
                return
            self._arms.clear()
            self._factories.clear()
        with self._models_lock:
            for known in [known for known in self._models if known[0] == spec.model]:
                del self._models[known]

    def _record_time(self, spec: ArmSpec) -> float:
        """Return when an arm's adapter was written, 0 for an arm without one."""
        if spec.adapter is None:
            return 0.0
        return (self.workspace.adapter(spec.adapter) / "run_record.json").stat().st_mtime

    def _newest_record(self) -> float:
        """Return a number that changes when an adapter is added, removed or trained anew."""
        records = list(self.workspace.adapters.glob("*/run_record.json"))
        return max((path.stat().st_mtime for path in records), default=0.0) + len(records)


def _usable(workspace: Workspace, corpus: Corpus) -> tuple[ArmSpec, ...]:
    """Declare each kind on pocket, those that need an adapter only if one was trained on the corpus."""
    specs = []
    for kind in ORDER:
        if kind == EXTRACTIVE:
            specs.append(ArmSpec(kind, kind, model=None))
        elif kind not in ADAPTED:
            specs.append(ArmSpec(kind, kind))
        else:
            try:
                adapter = newest_adapter(workspace, corpus, context=kind == "raft")
            except ComparisonError:
                continue
            specs.append(ArmSpec(kind, kind, adapter=adapter))
    return tuple(specs)
