"""A corpus's folder, watched: tells when its documents have changed and come to rest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

State = dict[str, tuple[int, int]]


def corpus_state(folder: Path) -> State:
    """Return path → (size, time of change) of every file that decides the index of the corpus in `folder`."""
    patterns = ("documents/*.md", "new_documents/*.md", "corpus.toml", "manifest.json")
    state: State = {}
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        try:
            found = path.stat()
        except FileNotFoundError:  # deleted while we looked
            continue
        state[path.relative_to(folder).as_posix()] = (found.st_size, found.st_mtime_ns)
    return state


def changes(folder: Path, interval: float) -> Iterator[None]:
    """Yield once at the start, and again whenever the corpus has changed and then held still for `interval` seconds.

    A change made while the consumer works is seen after it. Runs until the consumer stops.
    """
    handled = corpus_state(folder)
    yield
    seen = handled
    while True:
        time.sleep(interval)
        now = corpus_state(folder)
        if now != handled and now == seen:
            handled = now
            yield
        seen = now
