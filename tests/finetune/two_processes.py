"""What each process of `test_launching` runs: one training, and a report of what this process saw and ended with."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from finetune import training
from finetune.config import Recipe, recipe_from_mapping
from finetune.dataset import Collator
from tests.finetune.tiny import questions

SEEN: list[list[int]] = []
HASHES: list[str] = []


class RecordingCollator(Collator):
    """A collator that notes the examples it lays out."""

    def __call__(self, rows: Any) -> Any:
        SEEN.extend(row["input_ids"] for row in rows)
        return super().__call__(rows)


def plan(model: str, batch_size: int) -> Recipe:
    """Return a recipe of two passes over the four questions."""
    tables = {
        "model": {"name": model, "dtype": "float32"},
        "lora": {"rank": 4, "alpha": 8},
        "optimisation": {"epochs": 2, "max_seconds": 1e6, "learning_rate": 5e-3, "batch_size": batch_size, "seed": 5},
        "tracking": {"save_every": 2},
    }
    return recipe_from_mapping(tables, name="two", source="test")


def main(model: str, output: Path) -> None:
    """Train, and write what this process saw to `rank-N.json` beside `output`."""
    training.Collator = RecordingCollator  # type: ignore[misc]
    write = training.write_adapter

    def write_and_note(adapted: Any, *others: Any) -> None:
        weights = b"".join(p.detach().numpy().tobytes() for p in adapted.parameters() if p.requires_grad)
        HASHES.append(hashlib.sha256(weights).hexdigest())
        write(adapted, *others)

    training.write_adapter = write_and_note
    shown: list[int] = []
    record = training.train_adapter(
        plan(model, 1), questions(), output, device="cpu", on_step=lambda step: shown.append(step.step)
    )
    report = {"seen": SEEN, "weights": HASHES, "losses": record.losses, "shown": shown, "whole": output.is_dir()}
    (output.parent / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
