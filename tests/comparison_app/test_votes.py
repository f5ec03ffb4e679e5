"""Votes: kept once each, ranked by Bradley–Terry with honest intervals, exported for preference training."""

from __future__ import annotations

import json
import random
import threading
from math import log10
from pathlib import Path

import pytest

from comparison_app.errors import ComparisonError
from comparison_app.leaderboard import MOST_NEEDED, expected_score, leaderboard, votes_needed
from comparison_app.votes import Vote, VoteStore, export_preferences, preference_pairs, read_votes


def _vote(a: str, b: str, outcome: str, number: int = 0) -> Vote:
    return Vote(f"question {number}", (a, b), outcome, answers=(f"{a} says", f"{b} says"))


def test_votes_come_back_as_they_were_cast(tmp_path: Path) -> None:
    """Question, arms, outcome, reason, text, time and answers survive; no file means no votes."""
    path = tmp_path / "workspace" / "votes.sqlite"
    assert read_votes(path) == []
    vote = Vote("Why?", ("rag", "base"), "b", "complete", "it's 'right'", answers=("x", "y"), corpus="lamp", id="1")
    assert VoteStore(path).add(vote)
    assert read_votes(path) == [vote]
    VoteStore(path).explain("1", "shorter", "<script>alert(1)</script>")
    assert read_votes(path)[0].text == "<script>alert(1)</script>"


def test_a_double_click_is_one_vote(tmp_path: Path) -> None:
    """Twenty threads vote on the same ballot: one vote is kept."""
    store = VoteStore(tmp_path / "votes.sqlite")
    vote = Vote("Why?", ("rag", "base"), "a", id="ballot")
    threads = [threading.Thread(target=store.add, args=(vote,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.votes()) == 1


def test_impossible_votes_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    """An unknown outcome, an arm against itself, a file that is no database."""
    with pytest.raises(ComparisonError, match="both-bad"):
        Vote("Why?", ("rag", "base"), "c")
    with pytest.raises(ComparisonError, match="two arms"):
        Vote("Why?", ("rag", "rag"), "a")
    (tmp_path / "votes.sqlite").write_bytes(b"this is not a database, by far" * 50)
    with pytest.raises(ComparisonError, match=r"votes\.sqlite"):
        read_votes(tmp_path / "votes.sqlite")


def test_two_arms_have_the_closed_form() -> None:
    """With many votes the fitted odds are wins over losses, whatever side the winner was shown on."""
    votes = [_vote("x", "y", "a", n) for n in range(300)] + [_vote("y", "x", "a", n) for n in range(100)]
    first, second = leaderboard(votes, rounds=200)
    assert (first.arm, first.wins, first.losses, second.wins) == ("x", 300, 100, 100)
    assert first.points - second.points == pytest.approx(400 * log10(3), abs=1.0)  # a chance of 0.75 is odds of 3
    assert first.low and first.high and first.low < first.points < first.high
    assert second.needed == 0


def test_true_strengths_are_found_and_intervals_cover_them() -> None:
    """Votes drawn from known strengths: the order comes out, and most intervals hold the truth."""
    rng = random.Random(3)
    truth = {"a": 1150.0, "b": 1000.0, "c": 850.0}
    covered = 0
    for _ in range(20):
        votes = []
        for number in range(240):
            left, right = rng.sample(sorted(truth), 2)
            won = rng.random() < expected_score(truth[left] - truth[right])
            votes.append(_vote(left, right, "a" if won else "b", number))
        standings = leaderboard(votes, rounds=200, seed=1)
        assert [item.arm for item in standings] == ["a", "b", "c"]
        covered += sum((item.low or 0) <= truth[item.arm] <= (item.high or 0) for item in standings)
    assert covered >= 51  # of 60: 0.95 nominal, less four standard errors


def test_ties_move_nobody_and_one_vote_promises_little() -> None:
    """Equal arms need more votes than anyone has; a single win gives no interval, and no infinity."""
    even = leaderboard([_vote("x", "y", "tie"), _vote("y", "x", "both-bad")], rounds=100)
    assert even[0].points == even[1].points == pytest.approx(1000)
    assert even[1].needed == MOST_NEEDED
    single = leaderboard([_vote("x", "y", "a")], rounds=100)
    assert single[0].arm == "x"
    assert 0 < single[0].points - single[1].points < 1000
    assert (single[0].low, single[0].high) == (None, None)
    assert leaderboard([]) == []


def test_votes_needed_agrees_with_the_textbook() -> None:
    """To tell 60 % from 50 % with a power of 80 % takes 194 votes in the normal approximation."""
    assert votes_needed(0.6, 0) == 194
    assert votes_needed(0.6, 190) == 4
    assert votes_needed(0.9, 100) == 0


def test_preferences_hold_only_what_teaches(tmp_path: Path) -> None:
    """Ties, equal and empty answers are left out; the chosen answer is the voted one; rows are JSONL."""
    votes = [
        Vote("q1", ("x", "y"), "a", answers=("good", "bad")),
        Vote("q1", ("x", "y"), "a", answers=("good", "bad")),
        Vote("q2", ("x", "y"), "b", answers=("bad", "good")),
        Vote("q3", ("x", "y"), "tie", answers=("one", "two")),
        Vote("q4", ("x", "y"), "a", answers=("same", "same ")),
        Vote("q5", ("x", "y"), "b", answers=("words", "")),
    ]
    assert preference_pairs(votes) == [
        {"prompt": "q1", "chosen": "good", "rejected": "bad"},
        {"prompt": "q2", "chosen": "good", "rejected": "bad"},
    ]
    assert export_preferences(votes, tmp_path / "pairs.jsonl") == 2
    lines = (tmp_path / "pairs.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["q1", "q2"]
