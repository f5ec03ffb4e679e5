"""People's votes on pairs of answers: kept in SQLite, read by the leaderboard and the judge, exported for DPO.

The table `votes` of `votes.sqlite` holds one vote a row: `id`, `at`, `corpus`, `question`, `arm_a`, `arm_b`,
`answer_a`, `answer_b`, `outcome` (a, b, tie, both-bad), `reason`, `text`. A vote's id is the ballot's, so that a second
click on the same ballot is no second vote.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from comparison_app.errors import ComparisonError
from data_prep.atomic import write_text

OUTCOMES = ("a", "b", "tie", "both-bad")
FILE_NAME = "votes.sqlite"
LONGEST_TEXT = 2_000
"""Characters of free text that are kept of a vote."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS votes (
    id TEXT PRIMARY KEY, at TEXT NOT NULL, corpus TEXT NOT NULL, question TEXT NOT NULL,
    arm_a TEXT NOT NULL, arm_b TEXT NOT NULL, answer_a TEXT NOT NULL, answer_b TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('a', 'b', 'tie', 'both-bad')),
    reason TEXT NOT NULL DEFAULT '', text TEXT NOT NULL DEFAULT '')
"""
_COLUMNS = "id, at, corpus, question, arm_a, arm_b, answer_a, answer_b, outcome, reason, text"


@dataclass(frozen=True)
class Vote:
    """One person's judgement of two answers to a question.

    `arms` are the arms behind the answers shown as A and B, `outcome` is one of `OUTCOMES`. `reason` holds the reasons
    ticked, separated by commas; `text` what was written; `when` the moment in ISO 8601, UTC.
    """

    question: str
    arms: tuple[str, str]
    outcome: str
    reason: str = ""
    text: str = ""
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    answers: tuple[str, str] = ("", "")
    corpus: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ComparisonError(f"a vote's outcome is {self.outcome!r}; it must be one of {', '.join(OUTCOMES)}")
        if self.arms[0] == self.arms[1]:
            raise ComparisonError(f"a vote compares two arms, but both are {self.arms[0]!r}")


class VoteStore:
    """The votes of one workspace; safe for several processes and threads, each call opens its own connection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, vote: Vote) -> bool:
        """Keep a vote; returns False, and changes nothing, if its ballot was voted on before."""
        from secrets import token_hex

        row = (
            vote.id or token_hex(8),
            vote.when,
            vote.corpus,
            vote.question,
            *vote.arms,
            *vote.answers,
            vote.outcome,
            vote.reason,
            vote.text[:LONGEST_TEXT],
        )
        with self._connected() as connection:
            marks = ", ".join("?" * len(row))
            done = connection.execute(f"INSERT OR IGNORE INTO votes ({_COLUMNS}) VALUES ({marks})", row)
            return done.rowcount == 1

    def explain(self, vote_id: str, reason: str, text: str) -> None:
        """Add why somebody voted so, after the arms were shown."""
        with self._connected() as connection:
            values = (reason, text[:LONGEST_TEXT], vote_id)
            connection.execute("UPDATE votes SET reason = ?, text = ? WHERE id = ?", values)

    def votes(self) -> list[Vote]:
        """Return all votes, oldest first; none if nobody voted yet."""
        if not self.path.exists():
            return []
        with self._connected() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM votes ORDER BY at, rowid").fetchall()
        return [_vote(row) for row in rows]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in one transaction; what SQLite says is wrong becomes an error that names the file."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=30)
            try:
                with connection:
                    connection.execute(_SCHEMA)
                    yield connection
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise ComparisonError(f"{self.path}: votes cannot be read or written ({error}); move it away") from error


def read_votes(path: Path) -> list[Vote]:
    """Return the votes of the file at `path`, oldest first; none if there is no such file."""
    return VoteStore(path).votes()


def preference_pairs(votes: Sequence[Vote]) -> list[dict[str, str]]:
    """Return the votes that prefer one answer as DPO rows: `prompt`, `chosen`, `rejected` (Rafailov et al. 2023).

    Ties, and votes between equal or empty answers, teach nothing and are left out; so are repeated rows.
    """
    rows = {}
    for vote in votes:
        if vote.outcome not in ("a", "b"):
            continue
        chosen, rejected = vote.answers if vote.outcome == "a" else reversed(vote.answers)
        if chosen.strip() and rejected.strip() and chosen.strip() != rejected.strip():
            rows[vote.question, chosen, rejected] = {"prompt": vote.question, "chosen": chosen, "rejected": rejected}
    return list(rows.values())


def preferences_jsonl(votes: Sequence[Vote]) -> str:
    """Return the preference pairs as JSONL, one object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in preference_pairs(votes))


def export_preferences(votes: Sequence[Vote], path: Path) -> int:
    """Write the preference pairs to `path` as JSONL; returns how many there are."""
    write_text(path, preferences_jsonl(votes))
    return len(preference_pairs(votes))


def _vote(row: tuple[str, ...]) -> Vote:
    identity, when, corpus, question, arm_a, arm_b, answer_a, answer_b, outcome, reason, text = row
    return Vote(question, (arm_a, arm_b), outcome, reason, text, when, (answer_a, answer_b), corpus, identity)
