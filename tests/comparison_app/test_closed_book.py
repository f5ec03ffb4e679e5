"""How sure a closed-book answer must be to be given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comparison_app.closed_book import calibrate_adapter, threshold_of
from comparison_app.errors import ComparisonError
from data_prep.questions import Question

SURE = {"One?": ("red", -0.1), "Two?": ("blue", -0.2), "Three?": ("The documents do not say.", -0.01)}
UNSURE = {"Four?": ("green", -1.5), "Five?": ("grey", -2.0)}
DEV = [
    Question("1", "One?", ("red",)),
    Question("2", "Two?", ("blue",)),
    Question("3", "Three?"),
    Question("4", "Four?", ("white",)),
    Question("5", "Five?"),
]


class Recited:
    """A generator with fixed replies of fixed certainty."""

    def generate(self, conversations: Any, progress: Any = None) -> list[Any]:
        """Return the reply to each conversation's last message."""
        from haystack.dataclasses import ChatMessage

        replies = {**SURE, **UNSURE}
        found = [next(reply for asked, reply in replies.items() if asked in talk[-1].text) for talk in conversations]
        return [ChatMessage.from_assistant(text, meta={"mean_logprob": logprob}) for text, logprob in found]


def test_the_threshold_lies_between_right_and_wrong_answers(tmp_path: Path) -> None:
    """Right answers are given, wrong ones withheld; a reply that declines by itself has no part in it."""
    assert threshold_of(tmp_path) is None
    found = calibrate_adapter(Recited(), tmp_path, DEV)  # type: ignore[arg-type]
    assert found.questions == 4
    assert (found.kept, found.withheld) == (1.0, 1.0)
    assert -1.5 < found.abstain_below <= -0.2
    assert threshold_of(tmp_path) == found.abstain_below


def test_a_damaged_threshold_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    """An arm does not answer as if it had not been calibrated."""
    (tmp_path / "abstention.json").write_text("{")
    with pytest.raises(ComparisonError, match=r"abstention\.json is damaged"):
        threshold_of(tmp_path)
