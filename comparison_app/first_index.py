"""The index that is made when a corpus is asked for the first time: once, however many ask at that moment."""

from __future__ import annotations

import threading
import time

from comparison_app.indexes import open_store, rag_config, update_index
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus
from rag.config import RagConfig
from rag.errors import IndexLocked

_making = threading.Lock()


def ensure_index(
    workspace: Workspace, corpus: Corpus, config: RagConfig | None = None, patience: float = 300.0
) -> None:
    """Make the index of a corpus if there is none; wait where another thread or process is making it.

    Raises `IndexLocked` if another process is still at it after `patience` seconds.
    """
    config = config or rag_config()
    if _is_made(workspace, corpus, config):
        return
    deadline = time.monotonic() + patience
    with _making:
        while not _is_made(workspace, corpus, config):
            try:
                update_index(workspace, corpus, config)
            except IndexLocked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)


def _is_made(workspace: Workspace, corpus: Corpus, config: RagConfig) -> bool:
    """Tell whether an index was ever committed; the file of one that is being made for the first time is there too."""
    return open_store(workspace, corpus, config).generation > 0
