"""Do two judges say the same? As a share and as Cohen's kappa; between a judge and people, by question and pair."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.questions import Question

if TYPE_CHECKING:
    from comparison_app.judging.diagnostics import Ruling


@dataclass(frozen=True)
class Opinion:
    """A person's vote on two arms: the question's words, the arms, and "a", "b", "tie" or "both-bad"."""

    question: str
    a: str
    b: str
    outcome: str


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Return kappa = (p_o - p_e) / (1 - p_e) of pairs of labels (Cohen 1960).

    p_o is the share of equal labels, p_e the share expected of two judges who keep to their own label counts. None
    where p_e is 1: both always gave one and the same label, so that agreement by chance cannot be told from any other.
    """
    n = len(pairs)
    one, other = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    seen = sum(a == b for a, b in pairs) / n
    chance = sum(one[label] * other[label] for label in one) / n**2
    return None if chance >= 1 else (seen - chance) / (1 - chance)


def agreed(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return share, kappa and number of pairs of labels; at least one."""
    return {
        "share": sum(a == b for a, b in pairs) / len(pairs),
        "kappa": cohens_kappa(pairs),
        "n": len(pairs),
    }


def agreement(
    decided: Sequence[Ruling], opinions: Sequence[Opinion], questions: Mapping[str, Question]
) -> dict[str, Any] | None:
    """Compare a judge's verdicts with every vote on the same question and arms; None if there is none.

    "both-bad" is a tie. Questions are matched by their words, case and white space apart.
    """
    voted: dict[tuple[str, frozenset[str]], list[Opinion]] = defaultdict(list)
    for opinion in opinions:
        voted[_words(opinion.question), frozenset((opinion.a, opinion.b))].append(opinion)
    pairs = []
    for ruling in decided:
        key = _words(questions[ruling.question].question), frozenset((ruling.a, ruling.b))
        pairs += [(ruling.outcome, _from_side(opinion, ruling.a)) for opinion in voted.get(key, ())]
    return agreed(pairs) if pairs else None


def read_opinions(path: Path) -> list[Opinion]:
    """Return the votes of a workspace; none where nobody voted yet.

    Raises `VersusError` if the file is there and cannot be read.
    """
    if not path.is_file():
        return []
    from comparison_app.votes import read_votes

    return [Opinion(vote.question, vote.arms[0], vote.arms[1], vote.outcome) for vote in read_votes(path)]


def _from_side(opinion: Opinion, a: str) -> str:
    """Return a vote's outcome as seen from arm `a`."""
    if opinion.outcome not in ("a", "b"):
        return "tie"
    winner = opinion.a if opinion.outcome == "a" else opinion.b
    return "a" if winner == a else "b"


def _words(text: str) -> str:
    return " ".join(text.casefold().split())
