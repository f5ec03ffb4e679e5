"""The indexes of a run's arms: brought up to date, and what that took for the index that each arm reads.

Arms whose settings chunk and embed alike read one index; others have their own, and are not charged for those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison_app.console import Progress
from comparison_app.experiment import ArmSpec
from comparison_app.indexes import build_seconds, index_path, rag_config, update_index
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus
from rag.config import RagConfig


@dataclass
class IndexWork:
    """What was done to one index: seconds, and how many documents were added or changed."""

    seconds: float = 0.0
    documents: int = 0


@dataclass(frozen=True)
class ArmIndexes:
    """The indexes that the retrieving ones of `arms` read."""

    workspace: Workspace
    corpus: Corpus
    arms: Sequence[ArmSpec]

    def configs(self) -> dict[str, RagConfig]:
        """Return the retrieval settings of each arm that retrieves."""
        return {spec.name: rag_config(spec.preset, dict(spec.rag)) for spec in self.arms if spec.retrieves}

    def update(self, *, include_new: bool, progress: Progress | None = None) -> dict[str, IndexWork]:
        """Bring every index up to the corpus's documents; return, per arm, what was done to the index it reads."""
        configs = self.configs()
        work: dict[tuple[Path, str | None], IndexWork] = {}
        for config in dict.fromkeys(configs.values()):
            done = work.setdefault(self._place(config), IndexWork())
            report = update_index(self.workspace, self.corpus, config, include_new=include_new, progress=progress)
            done.seconds += report.seconds
            done.documents += report.added + report.changed
        return {arm: work[self._place(config)] for arm, config in configs.items()}

    def building(self) -> dict[str, Any]:
        """Return what building from nothing took, though the indexes may have been there: the entry "indexing".

        `arms`: arm -> seconds for its index; `seconds`: all indexes together. None where it is not known.
        """
        configs = self.configs()
        taken = {arm: build_seconds(self.workspace, self.corpus, config) for arm, config in configs.items()}
        known = {self._place(config): taken[arm] for arm, config in configs.items()}
        whole = [seconds for seconds in known.values() if seconds is not None]
        return {"seconds": sum(whole) if len(whole) == len(known) else None, "arms": taken}

    def _place(self, config: RagConfig) -> tuple[Path, str | None]:
        return index_path(self.workspace, self.corpus, config), config.store


def updated(earlier: Mapping[str, Any] | None, work: Mapping[str, IndexWork], documents: int) -> dict[str, Any] | None:
    """Return the entry "update" of a run: what taking in its new documents took, per arm and for all indexes together.

    `earlier`: what the run has noted already, which stays for an index that was current this time: a resumed run finds
    its work done. None where nothing is known.
    """
    before = earlier or {}
    fresh = {arm: done for arm, done in work.items() if done.documents}
    arms = {**(before.get("arms") or {}), **{arm: done.seconds for arm, done in fresh.items()}}
    if not arms:
        return dict(before) or None
    together = sum({id(done): done.seconds for done in fresh.values()}.values())
    return {"seconds": (before.get("seconds") or 0.0) + together, "documents": documents, "arms": arms}
