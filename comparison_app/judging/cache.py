"""A judge's replies kept by content, so that what was asked once costs nothing again.

The key is a hash of the judge, its settings and the whole conversation: change a word of any of them and it is another
question. One SQLite file in the workspace, `judge.sqlite`, read and written by one process at a time or several.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison_app.errors import ComparisonError
from comparison_app.judging.prompts import Talk

_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL NOT NULL
)
"""


@dataclass(frozen=True)
class JudgeReply:
    """What a judge said; tokens are None where the server does not count them."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0


def reply_key(judge: Mapping[str, Any], talk: Talk, turn: int) -> str:
    """Return the key of one reply: `judge` names the model and its settings, `turn` tells a repeat from the first."""
    content = json.dumps({"judge": dict(judge), "talk": talk, "turn": turn}, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


class ReplyCache:
    """Replies by key. Raises `ComparisonError` that names the file if it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, keys: Iterable[str]) -> dict[str, JudgeReply]:
        """Return the replies that are known of `keys`."""
        wanted = list(dict.fromkeys(keys))
        if not wanted or not self.path.exists():
            return {}
        found: dict[str, JudgeReply] = {}
        with self._open() as database:
            for start in range(0, len(wanted), 500):
                some = wanted[start : start + 500]
                marks = ",".join("?" * len(some))
                rows = database.execute(
                    f"SELECT key, text, prompt_tokens, completion_tokens, seconds FROM replies WHERE key IN ({marks})",
                    some,
                )
                found.update({row[0]: JudgeReply(*row[1:]) for row in rows})
        return found

    def put(self, replies: Mapping[str, JudgeReply]) -> None:
        """Keep `replies`, all or none."""
        rows = [(k, r.text, r.prompt_tokens, r.completion_tokens, r.seconds) for k, r in replies.items()]
        if rows:
            with self._open() as database:
                database.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, timeout=30)
            try:
                with database:
                    database.execute(_TABLE)
                    yield database
            finally:
                database.close()
        except (OSError, sqlite3.Error) as error:
            raise ComparisonError(f"{self.path}: the judge's replies cannot be kept ({error}); delete it") from error
