"""What each process of a training with a time limit runs in `test_launching`: the second is slower at the questions."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import peft  # noqa: F401
import trl
from transformers import BertGenerationDecoder  # noqa: F401

from finetune import training
from finetune.config import recipe_from_mapping
from finetune.forgetting import MultipleChoice, multiple_choice_score
from tests.finetune.tiny import questions

LOADED = trl.SFTTrainer, trl.SFTConfig
"""Like the imports above, here before the clock runs: on a busy machine they take longer than the training."""
SECONDS = 12.0
SLOWER = 4.0


def main(model: str, output: Path) -> None:
    """Train until the time is over, and note how many steps this process made."""

    def ask_slowly(*others: Any, **options: Any) -> float:
        time.sleep(SLOWER * int(os.environ["RANK"]))
        return multiple_choice_score(*others, **options)

    training.multiple_choice_score = ask_slowly  # type: ignore[attr-defined]
    tables = {
        "model": {"name": model, "dtype": "float32"},
        "lora": {"rank": 4, "alpha": 8},
        "optimisation": {"max_seconds": SECONDS, "batch_size": 1},
    }
    record = training.train_adapter(
        recipe_from_mapping(tables, name="timed", source="test"),
        questions(),
        output,
        device="cpu",
        general=[MultipleChoice("Is a tyre round?", ("Yes", "No"), 0)],
        on_step=lambda step: time.sleep(0.1),
    )
    report = {"steps": record.steps, "stopped": record.stopped, "forgetting": record.forgetting}
    (output.parent / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
