"""Recipes of continual pretraining: `[model]`, `[text]` and `[pretraining]`, every wrong key reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.config import PRETRAIN, RECIPES, ModelSection, command_of, find_recipe, read_sections, read_tables
from finetune.errors import RecipeError
from finetune.pretraining import PretrainingConfig


@dataclass(frozen=True)
class TextSection:
    """Section `[text]`: what is read, and what is held back to measure on."""

    files: tuple[str, ...] = ()
    """Files and folders of new text: text, markdown, JSONL, each also packed (see `finetune.shards`)."""
    field: str = "text"
    """The field of a JSONL line that holds the text."""
    general: tuple[str, ...] = ()
    """Files and folders of text such as the model was made from, to be replayed."""
    replay: float = 0.0
    """Share of the rows that are general text (arXiv 2403.08763 finds 0.05 for a mild change, 0.25 for a language)."""
    validation: tuple[str, ...] = ()
    """Files to measure on, instead of a share held back."""
    validation_share: float = 0.01
    """Share of the documents that is held back, never trained on, and measured."""
    validation_characters: int = 200_000
    """As much of the held-back text is measured."""
    epochs: float | None = None
    """Passes over the new text; sets `pretraining.steps`."""

    def __post_init__(self) -> None:
        problems = []
        if not 0 <= self.replay < 1:
            problems.append(f"replay is {self.replay}; it must be at least 0 and under 1")
        if not 0 <= self.validation_share < 1:
            problems.append(f"validation_share is {self.validation_share}; it must be at least 0 and under 1")
        if self.validation_characters < 1:
            problems.append("validation_characters must be at least 1")
        if self.epochs is not None and self.epochs <= 0:
            problems.append(f"epochs is {self.epochs}; it must be above 0")
        if self.replay > 0 and not self.general:
            problems.append("replay needs general text: name its files in general")
        if self.general and not self.replay:
            problems.append("general text is named, but replay is 0: say how large its share is")
        if problems:
            raise RecipeError(*problems)


@dataclass(frozen=True)
class ContinualRecipe:
    """A whole recipe; `name` is the file's name without its ending."""

    name: str
    description: str = ""
    model: ModelSection = field(default_factory=ModelSection)
    text: TextSection = field(default_factory=TextSection)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)

    def __post_init__(self) -> None:
        if problems := _unsuited(vars(self.model), vars(self.pretraining)):
            raise RecipeError(*problems)

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as plain dictionaries, for a run record."""
        return dataclasses.asdict(self)

    def course(self) -> dict[str, Any]:
        """Return what must stay the same over a resume: all but names and the keys in `CHANGEABLE`."""
        data = self.as_dict()
        del data["name"], data["description"], data["model"]["name"]
        for key in CHANGEABLE:
            del data["pretraining"][key]
        return data


CHANGEABLE = (
    "threads",
    "evaluate_every",
    "checkpoint_every",
    "rows_at_once",
    "gradient_checkpointing",
    "workers",
    "learning_rate",
)
"""Keys of `[pretraining]` that may change while a run is interrupted; the rate, as a run that broke needs a lower."""
SECTIONS: dict[str, type[Any]] = {"model": ModelSection, "text": TextSection, "pretraining": PretrainingConfig}


def continual_recipe_names() -> list[str]:
    """Return the names of the recipes of this kind that ship, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.toml") if {"text", "pretraining"} <= set(read_tables(path)))


def load_continual_recipe(path_or_name: str | Path, **changes: Any) -> ContinualRecipe:
    """Read a recipe from a TOML file, or a bundled one by its name; `changes` are keys of sections (`text_files`).

    Raises RecipeError that names the file and lists every wrong key.
    """
    path = find_recipe(path_or_name)
    tables = read_tables(path)
    if path.parent == RECIPES and command_of(tables) != PRETRAIN:
        raise RecipeError(f"{path}: this recipe is for `{command_of(tables)}`")
    for key, value in changes.items():
        section, _, name = key.partition("_")
        tables.setdefault(section, {})[name] = value
    return continual_recipe(tables, name=path.stem, source=str(path))


def continual_recipe(tables: dict[str, Any], *, name: str, source: str) -> ContinualRecipe:
    """Build a recipe from the tables of a TOML file; `source` names it in errors. Raises RecipeError."""
    parts, problems = read_sections(tables, SECTIONS)
    problems += _contradictions(tables)
    problems += _unsuited(*(_table(tables, section) for section in ("model", "pretraining")))
    if problems:
        raise RecipeError(f"{source}: {problems[0]}", *problems[1:])
    return ContinualRecipe(name=name, **parts)


def _table(tables: dict[str, Any], section: str) -> dict[str, Any]:
    """Return a section as it stands in the file; empty where it is none."""
    found = tables.get(section)
    return found if isinstance(found, dict) else {}


def _unsuited(model: Mapping[str, Any], steps: Mapping[str, Any]) -> list[str]:
    """Return which settings of the model, and of the training, continual pretraining cannot follow."""
    checks = [
        (
            model.get("quantization") is None,
            "model.quantization: pretraining moves every weight, so they cannot be quantised",
        ),
        (model.get("dtype") != "float16", "model.dtype is float16; pretraining needs auto, bfloat16 or float32"),
        (not steps.get("guide_weight"), "pretraining.guide_weight belongs to pocket's own stages alone"),
    ]
    return [message for right, message in checks if not right]


def _contradictions(tables: dict[str, Any]) -> list[str]:
    """Return what the keys of two sections, or two keys, say against each other."""
    text, steps = _table(tables, "text"), _table(tables, "pretraining")
    warm = steps.get("warmup_steps", PretrainingConfig.warmup_steps)
    whole = steps.get("steps", PretrainingConfig.steps)
    numbers = isinstance(warm, int) and isinstance(whole, int) and ("steps" in steps or "epochs" not in text)
    checks = [
        (bool(text.get("files")), "[text] files names no text"),
        (
            not text.get("validation") or "validation_share" not in text,
            "[text] validation and validation_share contradict each other: give one",
        ),
        (
            "epochs" not in text or "steps" not in steps,
            "text.epochs and pretraining.steps contradict each other: give one",
        ),
        (not numbers or warm < whole, f"[pretraining] warmup_steps ({warm}) must be under steps ({whole})"),
    ]
    return [message for right, message in checks if not right]
