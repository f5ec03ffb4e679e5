"""What each process of `test_sharding` runs: one pretraining of a shared model, which may break off, and a report."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from finetune import continual
from finetune.continual_recipe import ContinualRecipe, continual_recipe
from finetune.forgetting import MultipleChoice
from finetune.pretraining import Step

QUESTIONS = [MultipleChoice("Is a tyre round?", ("Yes", "No"), 0), MultipleChoice("Is a door wet?", ("Yes", "No"), 1)]
HELD: list[int] = []


def plan(model: Path, text: Path) -> ContinualRecipe:
    """Return a recipe whose three rows two processes cannot share evenly."""
    tables = {
        "model": {"name": str(model), "dtype": "float32"},
        "text": {"files": [str(text)], "validation_share": 0.1},
        "pretraining": {
            "steps": 10, "rows": 3, "rows_at_once": 1, "row_length": 32, "learning_rate": 3e-3, "warmup_steps": 2,
            "checkpoint_every": 4, "evaluate_every": 5,
        },
    }  # fmt: skip
    return continual_recipe(tables, name="shared", source="test")


def main(model: Path, text: Path, output: Path, last: int) -> None:
    """Pretrain, killed after step `last` unless that is 0, and write what this process saw beside `output`."""
    share_out = continual.share_out

    def share_and_note(whole: Any, device: str) -> Any:
        compute = share_out(whole, device)
        HELD.extend(weight.to_local().numel() for weight in whole.parameters())
        return compute

    def stop(step: Step) -> None:
        if step.step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    continual.share_out = share_and_note
    record = continual.continue_pretraining(
        plan(model, text), output, general=QUESTIONS, resume=True, on_step=stop, device="cpu"
    )
    report = {"held": sum(HELD), "losses": record.losses, "figures": record.figures, "whole": output.is_dir()}
    (output.parent / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
