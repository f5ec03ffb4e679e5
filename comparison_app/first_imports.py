"""Haystack is imported by one thread: its modules import one another in a ring.

Two threads that enter such a ring at different places wait for each other, and Python ends that with an ImportError
in one of them. In a process that answers many visitors, whoever comes first imports, and the others wait.
"""

from __future__ import annotations

import threading

_importing = threading.Lock()


def import_haystack() -> None:
    """Import what every arm and every index uses; at once if that was done before."""
    with _importing:
        from haystack import Document, Pipeline, SuperComponent, component  # noqa: F401
        from haystack.dataclasses import ChatMessage, GeneratedAnswer, ImageContent  # noqa: F401
