"""Pocket's own pretraining as a model folder of its own: the stages of one recipe, from a base that was swapped.

`versus pretrain pocket-pretrain` runs it; `make` goes through the same stages with the same material.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.checkpoints import enter, scratch_of
from finetune.config import RECIPES, read_tables
from finetune.errors import RecipeError, TrainingDataError
from finetune.forgetting import MultipleChoice, general_score, why_not_asked
from finetune.models import base_fingerprint, default_device, model_folder, quiet_libraries
from finetune.new_folders import check_replaceable
from finetune.pocket.material import Material, gather, read_settings
from finetune.pocket.stages import Stage, load_stages, run_stages
from finetune.pocket.text import SHARDS, VALIDATION
from finetune.pretraining import Step
from finetune.pretraining_state import CHECKPOINT
from finetune.run_record import RunRecord, library_versions
from finetune.swapped_model import write_model
from finetune.text_rows import bits_per_character

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TABLES = ("text", "examples", "stage")


def staged_recipe(path_or_name: str) -> Path | None:
    """Return the file of a recipe, bundled or not, that has stages; None if it is another one, or not there."""
    path = Path(path_or_name)
    path = path if path.suffix == ".toml" else RECIPES / f"{path_or_name}.toml"
    return path if path.is_file() and "stage" in read_tables(path) else None


def pretrain_stages(
    recipe: Path,
    base: str,
    data: Path,
    output: Path,
    *,
    general: Sequence[MultipleChoice] = (),
    resume: bool = False,
    on_step: Callable[[Step], None] | None = None,
) -> RunRecord:
    """Train the model `base` by the recipe's stages on the shards in `data`; write the last model to `output`.

    `output` takes its content in one step at the end; a killed run goes on with `resume`. Raises FinetuneError.
    """
    check_replaceable(output)
    started, settings = datetime.now(UTC), _settings(recipe)
    stages, folder = load_stages(recipe), model_folder(base)
    if gone := [name for name in (*SHARDS[: settings["text"]["shards"]], VALIDATION) if not (data / name).is_file()]:
        raise TrainingDataError(f"{data} is not the folder of the pretraining text: it lacks {', '.join(gone)}")
    hashes = {name: _sha256(data / name) for name in (*SHARDS[: settings["text"]["shards"]], VALIDATION)}
    fingerprint = base_fingerprint(str(folder))
    identity = {"base": fingerprint, "files": hashes, "recipe": settings}
    scratch = scratch_of(output)
    enter(scratch, identity, resume=resume, kept=CHECKPOINT)
    quiet_libraries()
    material = gather(data, scratch, folder, settings)
    last, courses = run_stages(stages, folder, material, scratch, None if on_step is None else lambda _, s: on_step(s))
    model = _load(last)
    record = replace(
        _record(base, fingerprint, hashes, {"name": recipe.stem, **settings}, stages, courses, started),
        **_measured(_load(folder), model, material, general),
    )
    record.figures["stages"] = courses
    write_model(model, material.tokenizer, record, output)
    shutil.rmtree(scratch, ignore_errors=True)
    return record


def _measured(
    old: PreTrainedModel, new: PreTrainedModel, material: Material, general: Sequence[MultipleChoice]
) -> dict[str, Any]:
    """Return the fields of the record that tell before from after."""
    unasked = why_not_asked(material.tokenizer, general)
    shares = [] if unasked else [general_score(model, material.tokenizer, general) for model in (old, new)]
    return {
        "forgetting": {"before": shares[0], "after": shares[1], "questions": len(general)} if shares else None,
        "forgetting_unasked": unasked,
        "figures": {"before": _bits(old, material), "after": _bits(new, material)},
    }


def _record(
    base: str,
    fingerprint: str,
    hashes: dict[str, str],
    recipe: dict[str, Any],
    stages: Sequence[Stage],
    courses: Sequence[dict[str, Any]],
    started: datetime,
) -> RunRecord:
    """Collect what was done, over all stages."""
    return RunRecord(
        recipe=recipe,
        base_model=base,
        base_fingerprint=fingerprint,
        data_sha256=hashlib.sha256(json.dumps(hashes).encode()).hexdigest(),
        trained_ids=(),
        seed=stages[0].config.seed,
        device=default_device(),
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=float(sum(course["seconds"] for course in courses)),
        steps=sum(course["steps"] for course in courses),
        epochs=0.0,
        trained_tokens=sum(course["tokens"] for course in courses),
        losses=_losses(courses),
        versions=library_versions(),
    )


def _settings(recipe: Path) -> dict[str, Any]:
    """Return the recipe's tables; raise RecipeError if it has stages alone, as the one of the instruction stage."""
    settings = read_settings(recipe)
    if missing := [f"[{name}]" for name in TABLES if name not in settings]:
        raise RecipeError(
            f"{recipe}: it has stages but no {' and no '.join(missing)}, so it is no pretraining of its own: run "
            "`make pocket`, or take pocket-pretrain"
        )
    return settings


def _load(folder: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    return model.eval().to(default_device())


def _bits(model: PreTrainedModel, material: Material) -> dict[str, float]:
    return {"bits_per_character": round(bits_per_character(model, material.tokenizer, material.texts), 4)}


def _losses(courses: Sequence[dict[str, Any]]) -> tuple[tuple[int, float], ...]:
    """Return (step, loss) over all stages, the steps counted on."""
    found: list[tuple[int, float]] = []
    before = 0
    for course in courses:
        found += [(before + step, loss) for step, loss in course["losses"]]
        before += course["steps"]
    return tuple(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
