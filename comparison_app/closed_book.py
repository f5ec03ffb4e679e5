"""From which certainty on an adapter answers closed-book: a threshold, calibrated on the corpus's dev questions.

It lies in the adapter's folder as `abstention.json`; arms that answer closed-book with the adapter withhold what is
under it. Without the file every answer is given.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from comparison_app.errors import ComparisonError
from data_prep.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_prep.questions import Question
    from finetune.answering import AdapterGenerator
    from finetune.calibration import Abstention

FILE = "abstention.json"
RIGHT = 0.5
"""Token F1 from which on an answer was worth giving."""


def calibrate_adapter(
    generator: AdapterGenerator, folder: Path, dev: Sequence[Question], language: str = "en"
) -> Abstention:
    """Ask the dev questions closed-book, find the threshold, and write it into the adapter's folder.

    Worth giving is an answer with a token F1 of at least `RIGHT`. Answers that decline in words have no part in it.
    Raises FinetuneError where all answers were right, or none.
    """
    from comparison_app.metrics.overlap import token_f1
    from finetune.answering import FinetunedAnswerer
    from finetune.calibration import calibrate_abstention

    answers = FinetunedAnswerer(generator, language).answer([question.question for question in dev])
    told = [
        (float(answer.meta["mean_logprob"]), token_f1(answer.data, question.answers) >= RIGHT)
        for question, answer in zip(dev, answers, strict=True)
        if answer.meta["mean_logprob"] is not None and not answer.meta["abstained"]
    ]
    found = calibrate_abstention([logprob for logprob, _ in told], [right for _, right in told])
    write_text(folder / FILE, json.dumps(asdict(found), indent=1) + "\n")
    return found


def threshold_of(folder: Path) -> float | None:
    """Return the threshold in an adapter's folder, None if it was not calibrated; raises ComparisonError if damaged."""
    path = folder / FILE
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["abstain_below"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ComparisonError(f"{path} is damaged ({error}): delete it, or calibrate the adapter again") from error
