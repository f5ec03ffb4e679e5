"""Recipes: what to train, on which model, and how, read from TOML into frozen dataclasses.

A recipe file has a `description` and the sections below, each a dataclass whose fields are the allowed keys. All that
is wrong with a file is reported in one `RecipeError`.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"
QUANTIZATIONS = ("nf4",)
DTYPES = ("auto", "bfloat16", "float16", "float32")
SCHEDULES = ("cosine", "linear", "constant")
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor")
PRETRAIN = "versus pretrain"
NO_LENGTH = "give epochs, max_steps or max_seconds"
_LIMITS = ("max_steps", "max_seconds")
REPORTERS = ("tensorboard", "wandb", "trackio")
PREFERENCE_LOSSES = ("sigmoid", "hinge", "ipo", "robust", "apo_zero", "sft")
REFERENCES = ("start", "base")
REPLIES = ("answer", "answer-and-quote", "quote")


@dataclass(frozen=True)
class ModelSection:
    """Section `[model]`: the base model and how its weights are held."""

    name: str = "pocket"
    """`pocket`, a folder, or a Hugging Face id that is in the local cache."""
    quantization: str | None = None
    """`nf4` for QLoRA (arXiv 2305.14314); absent for full weights."""
    double_quantization: bool = False
    """Quantise the quantisation constants as well (nf4 only)."""
    dtype: str = "auto"
    """Arithmetic; `auto` is bfloat16 where the device is fast at it, else float16 on CUDA and float32 on CPU."""

    def __post_init__(self) -> None:
        _refuse(
            _one_of("quantization", self.quantization, QUANTIZATIONS) if self.quantization is not None else None,
            _one_of("dtype", self.dtype, DTYPES),
            "name is empty" if not self.name.strip() else None,
            'double_quantization needs quantization = "nf4"'
            if self.double_quantization and self.quantization is None
            else None,
        )


@dataclass(frozen=True)
class DataSection:
    """Section `[data]`: how questions become training examples."""

    language: str = "en"
    """ISO 639-1 code of the corpus, for the sentence that declines."""
    max_length: int | None = None
    """Longest example in tokens; absent for the model's whole context."""
    leave_out_long: bool = False
    """Train without the questions that are longer than `max_length`, and name them in the run record; else an error."""
    packing: bool = True
    """Put several short examples into one row, kept apart by the attention mask."""
    wordings: int | None = None
    """Wordings of each fact that are trained, at most, spread over all it has; absent for all of them."""
    rewordings: int = 0
    """Made-up wordings trained beside each question (see `finetune.rewording`); epochs then count all of them."""
    context: bool = False
    """Train with retrieved passages in the prompt (RAFT, arXiv 2403.10131)."""
    distractors: int = 1
    """Passages without the answer that stand beside the gold one."""
    without_gold: float = 0.0
    """Share of answerable questions whose gold passage is withheld."""
    reply: str = "answer"
    """What is trained as the reply: the answer; behind it, in quotation marks, the words of its passage that carry it
    (`answer-and-quote`); or these words alone (`quote`), which a small model learns to copy more easily."""
    unanswerable: float = 1.0
    """Share of the unanswerable questions that are trained; a small model that sees many declines what it could say."""
    closed_book_share: float = 0.0
    """Share of the questions that a context recipe also trains without any passage."""

    def __post_init__(self) -> None:
        raft_only = self.without_gold != 0.0 or self.closed_book_share != 0.0 or self.reply != "answer"
        _refuse(
            _one_of("reply", self.reply, REPLIES),
            _at_least("max_length", self.max_length, 16),
            _at_least("distractors", self.distractors, 0),
            _at_least("wordings", self.wordings, 1),
            _at_least("rewordings", self.rewordings, 0),
            _between("without_gold", self.without_gold, 0, 1),
            _between("unanswerable", self.unanswerable, 0, 1),
            _between("closed_book_share", self.closed_book_share, 0, 1),
            "without_gold, closed_book_share and a reply that quotes need context = true"
            if raft_only and not self.context
            else None,
        )


@dataclass(frozen=True)
class LoraSection:
    """Section `[lora]`: the adapter (LoRA, arXiv 2106.09685)."""

    rank: int = 8
    alpha: int = 32
    """The update is scaled by alpha / rank (by alpha / sqrt(rank) if `rslora`)."""
    dropout: float = 0.0
    rslora: bool = False
    target_modules: tuple[str, ...] = ()
    """Names of the layers to adapt; empty for all linear layers but the output head, found in the model."""

    def __post_init__(self) -> None:
        _refuse(
            _at_least("rank", self.rank, 1),
            _at_least("alpha", self.alpha, 1),
            _between("dropout", self.dropout, 0, 0.9),
        )


@dataclass(frozen=True)
class OptimisationSection:
    """Section `[optimisation]`: steps, rates and limits."""

    epochs: float | None = None
    """Passes over the data; give `epochs` or `max_steps`, or `max_seconds` alone."""
    max_steps: int | None = None
    max_seconds: float | None = None
    """Stop after this wall time, loading and saving included; the learning rate has come to its end by then."""
    batch_size: int = 8
    """Examples of one forward pass; `packing` lays them into as few rows as hold them."""
    accumulation: int = 1
    """Forward passes per optimiser step."""
    learning_rate: float = 2e-4
    schedule: str = "cosine"
    warmup: float = 0.03
    """Share of the training in which the learning rate rises from 0."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: str = "adamw_torch"
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""
    seed: int = 0

    def __post_init__(self) -> None:
        lengths = [self.epochs, self.max_steps, self.max_seconds]
        _refuse(
            NO_LENGTH if all(item is None for item in lengths) else None,
            "epochs and max_steps contradict each other: give one"
            if self.epochs is not None and self.max_steps is not None
            else None,
            _above("epochs", self.epochs),
            _at_least("max_steps", self.max_steps, 1),
            _above("max_seconds", self.max_seconds),
            _at_least("batch_size", self.batch_size, 1),
            _at_least("accumulation", self.accumulation, 1),
            _above("learning_rate", self.learning_rate),
            _one_of("schedule", self.schedule, SCHEDULES),
            _between("warmup", self.warmup, 0, 0.9),
            _at_least("weight_decay", self.weight_decay, 0),
            _above("max_grad_norm", self.max_grad_norm),
            _one_of("optimizer", self.optimizer, OPTIMIZERS),
        )


@dataclass(frozen=True)
class TrackingSection:
    """Section `[tracking]`: validation, checkpoints and where the figures go."""

    eval_every: int | None = None
    """Optimiser steps between two losses on the dev questions; absent for none."""
    patience: int | None = None
    """Stop after this many validations without improvement, and keep the best adapter."""
    save_every: int | None = None
    """Optimiser steps between two checkpoints; absent for none (an interrupted training starts again)."""
    report_to: tuple[str, ...] = ()
    """Trackers that get the loss as well: tensorboard, wandb, trackio (installed by you)."""

    def __post_init__(self) -> None:
        _refuse(
            _at_least("eval_every", self.eval_every, 1),
            _at_least("patience", self.patience, 1),
            _at_least("save_every", self.save_every, 1),
            "patience needs eval_every" if self.patience is not None and self.eval_every is None else None,
            self._uneven(),
            *(_one_of("report_to", item, REPORTERS) for item in self.report_to),
        )

    def _uneven(self) -> str | None:
        """Say if the best adapter of a validation would find no checkpoint of its own."""
        saves, evaluates = self.save_every, self.eval_every
        if self.patience is None or not saves or not evaluates or saves % evaluates == 0:
            return None
        return f"save_every ({saves}) must be a multiple of eval_every ({evaluates}) with patience"


@dataclass(frozen=True)
class DpoSection:
    """Section `[dpo]`: learning from preferred and rejected answers (Rafailov et al. 2023, arXiv 2305.18290)."""

    beta: float = 0.1
    """How dear it is to move away from the reference: low moves far, high stays near."""
    losses: tuple[str, ...] = ("sigmoid",)
    """Losses of trl's `DPOTrainer`, added up; `sft` beside `sigmoid` keeps the chosen answers likely in themselves."""
    loss_weights: tuple[float, ...] = ()
    """One weight per loss; empty for 1 each."""
    reference: str = "start"
    """What is not to be left far behind: the adapter that training starts from, or the bare base model."""
    label_smoothing: float = 0.0
    """Share of the votes taken to be wrong (for `robust`)."""
    min_pairs: int = 8
    """Fewer preferences than this are refused."""

    def __post_init__(self) -> None:
        uneven = bool(self.loss_weights) and len(self.loss_weights) != len(self.losses)
        _refuse(
            _above("beta", self.beta),
            "losses is empty" if not self.losses else None,
            *(_one_of("losses", item, PREFERENCE_LOSSES) for item in self.losses),
            f"loss_weights has {len(self.loss_weights)} numbers for {len(self.losses)} losses" if uneven else None,
            _one_of("reference", self.reference, REFERENCES),
            _between("label_smoothing", self.label_smoothing, 0, 0.49),
            _at_least("min_pairs", self.min_pairs, 1),
        )


@dataclass(frozen=True)
class Recipe:
    """A whole recipe; `name` is the file's name without its ending."""

    name: str
    description: str = ""
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    lora: LoraSection = field(default_factory=LoraSection)
    optimisation: OptimisationSection = field(default_factory=lambda: OptimisationSection(epochs=1))
    tracking: TrackingSection = field(default_factory=TrackingSection)
    dpo: DpoSection | None = None
    """Only in recipes for preferences (`versus prefer`)."""

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as plain dictionaries, for a run record; without `dpo` where it has none."""
        data = dataclasses.asdict(self)
        if self.dpo is None:
            del data["dpo"]
        return data

    def course(self) -> dict[str, Any]:
        """Return what decides a training's course.

        That is all but names, its time limit, gradient checkpointing, how often it is saved and measured.
        Where early stopping follows the measuring, that decides too. The base model is known by its weights.
        """
        data = self.as_dict()
        del data["name"], data["description"], data["model"]["name"], data["tracking"]
        del data["optimisation"]["max_seconds"], data["optimisation"]["gradient_checkpointing"]
        if self.tracking.patience is not None:
            data["tracking"] = {"eval_every": self.tracking.eval_every, "patience": self.tracking.patience}
        return data


SECTIONS: dict[str, type[Any]] = {
    "model": ModelSection,
    "data": DataSection,
    "lora": LoraSection,
    "optimisation": OptimisationSection,
    "tracking": TrackingSection,
    "dpo": DpoSection,
}


def recipe_names() -> list[str]:
    """Return the names of the recipes for `versus train` that ship with the package, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.toml") if _is_adapter_recipe(path))


def preference_recipe_names() -> list[str]:
    """Return the names of the recipes for `versus prefer` that ship with the package, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.toml") if "dpo" in read_tables(path))


def load_recipe(path_or_name: str | Path) -> Recipe:
    """Read a recipe from a TOML file, or a bundled one by its name.

    Raises RecipeError that names the file, lists every wrong key and says which keys are allowed, or which command
    takes a recipe of another kind.
    """
    path = find_recipe(path_or_name)
    tables = read_tables(path)
    if "task" in tables or command_of(tables) == PRETRAIN:
        raise RecipeError(f"{path}: this recipe is for `{command_of(tables)}`")
    return recipe_from_mapping(tables, name=path.stem, source=str(path))


def recipe_from_mapping(data: dict[str, Any], *, name: str, source: str) -> Recipe:
    """Build a recipe from the tables of a TOML file; `source` names it in errors. Raises RecipeError."""
    parts, problems = read_sections(data, SECTIONS)
    if problems:
        raise RecipeError(f"{source}: {problems[0]}", *problems[1:])
    return Recipe(name=name, **parts)


def read_sections(data: dict[str, Any], sections: dict[str, type[Any]]) -> tuple[dict[str, Any], list[str]]:
    """Build the `sections` (and `description`) of a recipe of any kind; return them, and all that is wrong."""
    problems = _unknown(data, ("description", *sections), "top level")
    parts: dict[str, Any] = {}
    for section, kind in sections.items():
        if section in data:
            parts[section] = _section(section, kind, data[section], problems)
    parts["description"] = data.get("description", "")
    if not isinstance(parts["description"], str):
        problems.append("description must be text")
    return parts, problems


def find_recipe(path_or_name: str | Path) -> Path:
    """Return the file of a recipe of any kind, given by path or by bundled name. Raises RecipeError."""
    path = Path(path_or_name)
    if path.suffix == ".toml" and path.is_file():
        return path
    bundled = RECIPES / f"{path_or_name}.toml"
    if path.name == str(path_or_name) and bundled.is_file():
        return bundled
    if path.suffix == ".toml":
        raise RecipeError(f"{path}: there is no such recipe file")
    raise RecipeError(f"no recipe named {str(path_or_name)!r}; there are {_names_by_command()}")


def command_of(tables: dict[str, Any]) -> str:
    """Return the command that takes a recipe of any kind, told by its sections."""
    if tables.keys() & {"text", "pretraining", "stage"}:
        return PRETRAIN
    return "versus prefer" if "dpo" in tables else "versus train"


def _names_by_command() -> str:
    """Return the recipes that ship, with the command that takes them."""
    names: dict[str, list[str]] = {}
    for path in sorted(RECIPES.glob("*.toml")):
        tables = read_tables(path)
        if "stage" not in tables or "text" in tables:  # stages without text are a part of `make pocket`
            names.setdefault(command_of(tables), []).append(path.stem)
    return "; ".join(f"for `{command}`: {', '.join(names[command])}" for command in sorted(names, reverse=True))


def _is_adapter_recipe(path: Path) -> bool:
    """Tell whether a bundled TOML file is a recipe of this module (others are of pretraining)."""
    return set(read_tables(path)) <= {"description", *SECTIONS} - {"dpo"}


def read_tables(path: Path) -> dict[str, Any]:
    """Return the tables of a recipe file of any kind; raises RecipeError that names the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a TOML recipe: {error}") from error


def _section(section: str, kind: type[Any], table: Any, problems: list[str]) -> Any:
    """Build one section, or add to `problems` and return None."""
    if not isinstance(table, dict):
        problems.append(f"[{section}] must be a table")
        return None
    hints = typing.get_type_hints(kind)
    found = _unknown(table, tuple(hints), f"[{section}]")
    values: dict[str, Any] = {}
    for key in table.keys() & hints.keys():
        value = tuple(table[key]) if isinstance(table[key], list) else table[key]
        if _fits(value, hints[key]):
            values[key] = value
        else:
            found.append(f"{section}.{key} must be {_type_name(hints[key])}, not {table[key]!r}")
    problems.extend(found)
    try:
        return kind(**values)
    except RecipeError as error:
        mistyped = any(f"{section}.{key} must be" in item for item in found for key in ("epochs", *_LIMITS))
        problems.extend(f"[{section}] {item}" for item in error.problems if not (mistyped and item == NO_LENGTH))
        return None


def _unknown(table: dict[str, Any], allowed: tuple[str, ...], place: str) -> list[str]:
    """Return one message about all unknown keys of a table, or none."""
    unknown = sorted(set(table) - set(allowed))
    if not unknown:
        return []
    return [f"unknown key {', '.join(unknown)} in {place} (allowed: {', '.join(allowed)})"]


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a TOML value has the type of a field; an integer is a number too, a boolean is not."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
            kind_of_item = typing.get_args(kind)[0]
            if isinstance(value, tuple) and all(_fits(item, kind_of_item) for item in value):
                return True
        elif kind is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return True
        elif kind is not type(None) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return True
    return False


def _type_name(hint: Any) -> str:
    """Name a field's type in words."""
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    lists = {tuple[float, ...]: "a list of numbers"}
    return " or ".join(words.get(kind, lists.get(kind, "a list of texts")) for kind in kinds if kind is not type(None))


def _refuse(*problems: str | None) -> None:
    """Raise one RecipeError with all problems that are not None."""
    found = [problem for problem in problems if problem is not None]
    if found:
        raise RecipeError(*found)


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    return None if value in allowed else f"{name} is {value!r}; allowed: {', '.join(allowed)}"


def _at_least(name: str, value: float | None, low: float) -> str | None:
    return None if value is None or value >= low else f"{name} is {value}; it must be at least {low}"


def _above(name: str, value: float | None) -> str | None:
    return None if value is None or value > 0 else f"{name} is {value}; it must be above 0"


def _between(name: str, value: float, low: float, high: float) -> str | None:
    return None if low <= value <= high else f"{name} is {value}; it must be between {low} and {high}"
