"""The benchmark of training speed measures what it says."""

from __future__ import annotations

from math import log

import pytest

from benchmarks.training_speed import SIDES, Job, answer, measure, pairs


@pytest.mark.slow
def test_both_sides_of_the_4_bit_comparison_train_the_same_tokens() -> None:
    """With a small model in place of the 7B one, each side trains in 4 bits; packed rows hold more that is useful."""
    plain, ours = (measure(Job(side, steps=1, warm=1, tiny=True)) for side in SIDES)
    assert ours["useful_tokens"] == plain["useful_tokens"] > 0
    assert ours["useful_share_of_the_rows"] > plain["useful_share_of_the_rows"]
    for figures in (plain, ours):
        assert figures["last_loss"] == pytest.approx(log(16384), abs=0.5), (
            "random weights know nothing of 16,384 tokens"
        )


@pytest.mark.slow
def test_answers_are_counted_in_batches_and_one_by_one() -> None:
    """The answering part reports a rate for each."""
    figures = answer(Job("ours", tiny=True), batch_size=4, questions=4, new_tokens=2)
    assert set(figures) == {"answers_per_second_in_batches_of_4", "answers_per_second_in_batches_of_1"}
    assert all(rate > 0 for rate in figures.values())


def test_the_order_of_the_pairs_is_fixed() -> None:
    """Two calls give the same pairs: both sides train the same examples in the same order."""
    assert pairs("tern-manual") == pairs("tern-manual")
    assert len(pairs("tern-manual")) > 1000
