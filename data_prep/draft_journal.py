"""Every reply that was paid for, on disk before the next one is read: SQLite, so that a kill loses none of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import DataError

JUDGE_KEY = "judge:"
"""How the keys of verdicts begin; all others are of drafts."""
_COLUMNS = "key, document, status, reply, error, attempts, prompt_tokens, completion_tokens, seconds"


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What came of asking about one section: `status` is done or failed; tokens and seconds are over all attempts.

    `key` is a hash of the model's name and the prompt: another text or another wish is another entry.
    """

    key: str
    document: str
    status: str
    reply: str
    error: str | None
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class DraftJournal:
    """The replies of one corpus, in `questions/drafting.sqlite`. Written by one thread; a context manager."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, document TEXT NOT NULL, "
                "status TEXT NOT NULL, reply TEXT NOT NULL, error TEXT, attempts INTEGER NOT NULL, "
                "prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, seconds REAL NOT NULL)"
            )
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path}: not a drafting journal ({error}); move it away to start anew") from error

    def __enter__(self) -> DraftJournal:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; what was recorded is on disk already."""
        self._connection.close()

    def record(self, entry: JournalEntry) -> None:
        """Keep one reply; on return it is on disk. A failed section's earlier cost is added to."""
        self._connection.execute(
            f"INSERT INTO replies ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(key) DO UPDATE SET "
            "status = excluded.status, reply = excluded.reply, error = excluded.error, "
            "attempts = attempts + excluded.attempts, prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
            "completion_tokens = completion_tokens + excluded.completion_tokens, seconds = seconds + excluded.seconds",
            (
                entry.key,
                entry.document,
                entry.status,
                entry.reply,
                entry.error,
                entry.attempts,
                entry.prompt_tokens,
                entry.completion_tokens,
                entry.seconds,
            ),
        )

    def entries(self, keys: Iterable[str]) -> dict[str, JournalEntry]:
        """Return what is known of these keys."""
        found = {}
        with closing(self._connection.cursor()) as cursor:
            for key in keys:
                row = cursor.execute(f"SELECT {_COLUMNS} FROM replies WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = JournalEntry(*row)
        return found

    def mean_tokens(self) -> tuple[float, float] | None:
        """Return the mean prompt and completion tokens of a section so far; None before the first."""
        row = self._connection.execute(
            "SELECT avg(prompt_tokens), avg(completion_tokens) FROM replies WHERE prompt_tokens > 0 AND key NOT LIKE ?",
            (f"{JUDGE_KEY}%",),
        ).fetchone()
        return None if row[0] is None else (float(row[0]), float(row[1]))


def tokens_told(usage: Mapping[str, Any], kind: str) -> int:
    """Return the tokens that a server told of a reply, or 0 where it told none or no number."""
    told = usage.get(kind)
    return told if isinstance(told, int) else 0
