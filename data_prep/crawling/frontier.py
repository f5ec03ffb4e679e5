"""The frontier of a crawl in SQLite: what was found, what is done, what failed and why. It survives SIGKILL.

Nothing is marked as begun: a page that was being fetched when the process was killed is still waiting. A page is done
when its body lies on disk and its row is committed, in that order.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from data_prep.errors import DataError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS urls (
    url TEXT PRIMARY KEY, kind TEXT NOT NULL, depth INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
    reason TEXT, status INTEGER, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0,
    etag TEXT, last_modified TEXT, content_type TEXT, charset TEXT, body TEXT, fetched_at TEXT, target TEXT,
    requests INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS urls_state ON urls (state, kind, due);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
"""
_COLUMNS = (
    "url, kind, depth, state, reason, status, attempts, etag, last_modified, content_type, charset, body, fetched_at, "
    "target"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One address of a crawl. `kind` is page, picture or sitemap; `state` is waiting, done, failed or skipped."""

    url: str
    kind: str
    depth: int
    state: str
    reason: str | None
    status: int | None
    attempts: int
    etag: str | None
    last_modified: str | None
    content_type: str | None
    charset: str | None
    body: str | None
    fetched_at: str | None
    target: str | None


class Frontier:
    """The frontier in `folder`: `frontier.sqlite`, and the bodies in `bodies/`, named by their hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(folder / "frontier.sqlite", isolation_level=None, timeout=30)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise DataError(f"{folder / 'frontier.sqlite'}: {error}; delete the folder to crawl anew") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def fact(self, name: str) -> str | None:
        """Return what is noted of the crawl as a whole, or None."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def note(self, name: str, value: str) -> None:
        """Note something of the crawl as a whole."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def begin(self) -> bool:
        """Begin a run, or go on with one that was interrupted; returns whether it goes on.

        A new run asks for every known address again, with what is needed for conditional requests.
        """
        if self.fact("running") == "yes":
            return True
        with self._database:
            self._database.execute("BEGIN")
            self._database.execute("UPDATE urls SET state = 'waiting', attempts = 0, due = 0, reason = NULL")
            self._database.execute("INSERT OR REPLACE INTO facts VALUES ('running', 'yes')")
        return False

    def finish(self) -> None:
        """Note that the run came to its end."""
        self.note("running", "no")

    def add(self, urls: Iterable[tuple[str, str, int]]) -> int:
        """Add addresses (url, kind, depth) that are not known yet; returns how many were new."""
        before = self._database.total_changes
        with self._database:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO urls (url, kind, depth) VALUES (?, ?, ?)", urls)
        return self._database.total_changes - before

    def due(self, now: float, kinds: Iterable[str], busy: Iterable[str], limit: int) -> list[Row]:
        """Return the next addresses to fetch, those found at the least depth first; `busy` ones are left out."""
        wanted, taken = list(kinds), set(busy)
        marks = ", ".join("?" * len(wanted))
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM urls WHERE state = 'waiting' AND due <= ? AND kind IN ({marks}) "
            "ORDER BY depth, rowid LIMIT ?",
            (now, *wanted, limit + len(taken)),
        )
        return [Row(*row) for row in rows if row[0] not in taken][:limit]

    def waiting(self, kinds: Iterable[str]) -> int:
        """Return how many addresses of these kinds wait, also those not due yet."""
        return sum(self.counts().get((kind, "waiting"), 0) for kind in kinds)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of addresses by kind and state."""
        rows = self._database.execute("SELECT kind, state, COUNT(*) FROM urls GROUP BY kind, state")
        return {(kind, state): count for kind, state, count in rows}

    def asked(self, url: str) -> None:
        """Count a request that is being sent."""
        self._database.execute("UPDATE urls SET requests = requests + 1 WHERE url = ?", (url,))

    def requests(self) -> dict[str, int]:
        """Return how often each address was asked for, over all runs."""
        return dict(self._database.execute("SELECT url, requests FROM urls"))

    def done(self, url: str, **columns: object) -> None:
        """Settle an address as fetched, with the columns that the answer gave."""
        self._settle(url, "done", columns)

    def skipped(self, url: str, reason: str, **columns: object) -> None:
        """Settle an address as not taken."""
        self._settle(url, "skipped", {"reason": reason, **columns})

    def failed(self, url: str, reason: str, **columns: object) -> None:
        """Settle an address as failed for good."""
        self._settle(url, "failed", {"reason": reason, **columns})

    def again(self, url: str, due: float, reason: str) -> None:
        """Let an address wait for another attempt at the time `due`."""
        self._database.execute(
            "UPDATE urls SET attempts = attempts + 1, due = ?, reason = ? WHERE url = ?", (due, reason, url)
        )

    def rows(self, kind: str | None = None) -> Iterator[Row]:
        """Yield all addresses in the order in which they were found."""
        where, values = ("WHERE kind = ?", (kind,)) if kind else ("", ())
        for row in self._database.execute(f"SELECT {_COLUMNS} FROM urls {where} ORDER BY rowid", values):
            yield Row(*row)

    def row(self, url: str) -> Row | None:
        """Return one address, or None if it is not known."""
        found = self._database.execute(f"SELECT {_COLUMNS} FROM urls WHERE url = ?", (url,)).fetchone()
        return None if found is None else Row(*found)

    def store(self, data: bytes) -> str:
        """Write a body under its hash, whole or not at all; returns the hash."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.body_path(digest)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new")
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
        return digest

    def body_path(self, digest: str) -> Path:
        """Return where a body lies."""
        return self.folder / "bodies" / digest[:2] / digest

    def _settle(self, url: str, state: str, columns: dict[str, object]) -> None:
        values = {"state": state, "reason": None, **columns}
        assignments = ", ".join(f"{name} = ?" for name in values)
        self._database.execute(f"UPDATE urls SET {assignments} WHERE url = ?", (*values.values(), url))
