"""Replies of endpoints, kept as they arrive: what was paid for is not asked a second time.

A reply is found again by what was sent: address, model, limits and messages. In a run it stands in `replies.jsonl` too,
one line each, appended at once, so that a killed run loses no reply that had come in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from comparison_app.errors import RunError

if TYPE_CHECKING:
    from haystack.dataclasses import ChatMessage


def reply_key(settings: Sequence[object], conversation: Sequence[ChatMessage]) -> str:
    """Return the SHA-256 of all that decides a reply: the endpoint's `settings` and the messages."""
    said = [(message.role.value, message.text) for message in conversation]
    return hashlib.sha256(json.dumps([*settings, said], ensure_ascii=True, default=str).encode()).hexdigest()


class ReplyJournal:
    """Replies by key; with `path` they outlive the process, without it only a batch that failed in part.

    Safe to use from several threads.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lock = Lock()
        self._known: dict[str, dict[str, Any]] = self._read() if path is not None else {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the reply kept under `key`: {"text", "meta"}; None if there is none."""
        return self._known.get(key)

    def put(self, key: str, text: str, meta: dict[str, Any]) -> None:
        """Keep a reply; raises `RunError` if it cannot be written."""
        reply = {"text": text, "meta": meta}
        with self._lock:
            self._known[key] = reply
            if self.path is not None:
                self._append(json.dumps({"key": key, **reply}, ensure_ascii=True) + "\n")

    def release(self, keys: Iterable[str]) -> None:
        """Forget replies that were delivered, unless they are kept in a file."""
        if self.path is None:
            for key in keys:
                self._known.pop(key, None)

    def _append(self, line: str) -> None:
        assert self.path is not None
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(line.encode())
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror}); continue with --resume") from error

    def _read(self) -> dict[str, dict[str, Any]]:
        """Return what is kept in the file. A line torn by a kill is cut off; a damaged one is asked again."""
        assert self.path is not None
        try:
            data = self.path.read_bytes() if self.path.exists() else b""
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                with self.path.open("r+b") as file:
                    file.truncate(whole)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read ({error.strerror}); make it readable") from error
        found = {}
        for line in data[:whole].splitlines():
            try:
                row = json.loads(line)
                found[str(row["key"])] = {"text": str(row["text"]), "meta": dict(row["meta"])}
            except (ValueError, KeyError, TypeError):
                continue
        return found
