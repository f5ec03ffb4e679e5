"""What visitors come back to after a reload: the latest of a kind, found by ids that cannot be guessed."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

KEPT = 200
"""How many of a kind are remembered."""

T = TypeVar("T")


class Kept(Generic[T]):
    """Remembers the latest things of one kind for as long as the process lives; safe between threads."""

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, item: T, name: str | None = None) -> str:
        """Remember `item` under `name`, or a new id, and return that; the oldest beyond the limit is forgotten."""
        name = name or secrets.token_urlsafe(9)
        with self._lock:
            self._kept[name] = item
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return name

    def find(self, name: str) -> T | None:
        """Return what is remembered under an id; None if it is unknown or long gone."""
        with self._lock:
            return self._kept.get(name)
