"""The stages that make pocket, read from recipes, and the training of one stage."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError
from finetune.pocket.copying import IdentityLoss
from finetune.pocket.evaluation import context_figures
from finetune.pocket.instruct import LEVELS, Example
from finetune.pocket.lessons import Course, LessonBatches
from finetune.pocket.neighbours import Neighbours
from finetune.pretraining import PretrainingConfig, PretrainingResult, Step, pretrain
from finetune.text_rows import TextRows, bits_per_character

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RECIPES = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True)
class Stage:
    """One stage: its name, how to train, what to teach, and the weight of the identity loss."""

    name: str
    config: PretrainingConfig
    course: Course
    identity_weight: float = 0.0


@dataclass(frozen=True)
class HeldOut:
    """What a stage is measured on: texts for bits per character, examples by level for answers."""

    texts: tuple[str, ...]
    examples: dict[str, list[Example]]


def load_stages(path: Path) -> list[Stage]:
    """Read the `[[stage]]` tables of a recipe, in order. Raises FinetuneError naming all unknown keys and levels."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("stage", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise FinetuneError(f"{path}: {error}") from error
    if not tables:
        raise FinetuneError(f"{path} has no [[stage]]")
    return [_stage(path, dict(table)) for table in tables]


def _stage(path: Path, table: dict[str, Any]) -> Stage:
    """Make a stage of one table: keys of Stage, of its config and of its course stand side by side."""
    config_keys = {each.name for each in fields(PretrainingConfig)}
    course_keys = {each.name for each in fields(Course)}
    name, weight = table.pop("name", ""), table.pop("identity_weight", 0.0)
    unknown = sorted(set(table) - config_keys - course_keys)
    levels = sorted(set(table.get("shares", {})) - set(LEVELS))
    if unknown or levels or not name or not table.get("shares"):
        raise FinetuneError(
            f"{path}, stage {name!r}: unknown keys {unknown}, unknown levels {levels} (known: {sorted(LEVELS)}); "
            "a stage needs a name and shares"
        )
    course = Course(**{key: value for key, value in table.items() if key in course_keys})
    config = PretrainingConfig(**{key: value for key, value in table.items() if key in config_keys})
    return Stage(name, config, course, weight)


def train_stage(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stage: Stage,
    examples: dict[str, list[Example]],
    text: Path,
    folder: Path,
    *,
    held_out: HeldOut,
    identity: IdentityLoss | None = None,
    neighbours: Neighbours | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> PretrainingResult:
    """Train `model` (loaded with eager attention) by one stage; checkpoints go to `folder`, a killed run resumes."""
    rows = TextRows(text, stage.config, tokenizer.eos_token_id)
    batches = LessonBatches(examples, rows, tokenizer, stage.course, stage.config, neighbours=neighbours)

    def evaluate(current: PreTrainedModel) -> dict[str, float]:
        return figures(current, tokenizer, held_out, list(stage.course.shares))

    return pretrain(
        model,
        batches,
        stage.config,
        folder,
        evaluate=evaluate,
        on_step=on_step,
        auxiliary=_weighted(identity, stage.identity_weight),
    )


def _weighted(identity: IdentityLoss | None, weight: float) -> IdentityLoss | None:
    """Return the identity loss with the stage's weight; None if it has none."""
    return replace(identity, weight=weight) if identity is not None and weight > 0 else None


def figures(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: HeldOut, levels: Sequence[str]
) -> dict[str, float]:
    """Return bits per character of held-out text, and for each level how well held-out questions are answered."""
    found = {"bits_per_character": bits_per_character(model, tokenizer, held_out.texts)}
    for level in levels:
        measured = context_figures(model, tokenizer, held_out.examples[level])
        found.update({f"{level}_{name}": value for name, value in measured.items()})
    return {name: round(value, 4) for name, value in found.items()}
