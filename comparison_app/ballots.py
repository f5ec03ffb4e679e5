"""A ballot: one question to two arms in an order that chance made, and at most one vote on it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from comparison_app.asking import Asking
from comparison_app.errors import ComparisonError
from comparison_app.votes import Vote, VoteStore


@dataclass
class Ballot:
    """One question to two masked arms, and what was voted."""

    asking: Asking
    outcome: str | None = None

    def cast(self, outcome: str, store: VoteStore) -> None:
        """Keep the vote; a second click changes nothing, after a failure it can be cast again."""
        if self.outcome is not None:
            return
        a, b = self.asking.columns
        question, answers = self.asking.question.question, (a.text, b.text)
        store.add(
            Vote(question, (a.arm, b.arm), outcome, answers=answers, corpus=self.asking.corpus, id=self.asking.id)
        )
        self.outcome = outcome


def drawn(arms: Sequence[str]) -> list[str]:
    """Return two of the arms, drawn and shuffled; raises `ComparisonError` where there are fewer."""
    if len(arms) < 2:
        raise ComparisonError("a vote needs two arms")
    return random.sample(list(arms), 2)
