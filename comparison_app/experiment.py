"""An experiment: which corpus, which arms, which questions, and what is to be decided, declared before it is run.

An experiment is a TOML file; every mistake in it is reported at once.

    name = "my-manual"
    corpus = "my-manual"
    primary_metric = "token_f1"
    seed = 7
    new_documents = true            # ask the slice new-document after the new documents were indexed
    subset = "60"                   # the adapters saw this nested subset of the facts; leave it out for all

    [sample]                        # questions per slice; leave the table out to ask everything
    trained = 30
    unseen-page = 40

    [slice_weights]                 # your own mix of questions; equal questions where it is left out
    unseen-page = 2.0

    [prices]                        # see comparison_app.prices; or the path of such a file
    machine = 0.10

    [[arms]]
    name = "rag"
    kind = "rag"
    model = "pocket"

    [[arms]]
    name = "finetuned"
    kind = "finetuned"
    adapters = ["seed-1", "seed-2"] # trained alike but for the seed: arms finetuned-1 and finetuned-2, and their spread

    [[comparisons]]                 # what is decided, Holm-adjusted; all else is exploratory
    a = "rag"
    b = "finetuned"
    slices = ["overall", "unseen-page"]
"""

from __future__ import annotations

import hashlib
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comparison_app.errors import ExperimentError
from comparison_app.experiment_checks import TOP, experiment_problems, member_names
from comparison_app.kinds import CLOSED_BOOK, EXTRACTIVE, KINDS, OVERALL
from comparison_app.metrics.scoring import ABSTENTION
from comparison_app.prices import read_prices
from data_prep.questions import SLICES, Question

__all__ = [
    "KINDS",
    "OVERALL",
    "ArmSpec",
    "Comparison",
    "Experiment",
    "draw_sample",
    "experiment_from_mapping",
    "find_experiment",
    "load_experiment",
]


@dataclass(frozen=True)
class ArmSpec:
    """One arm as declared.

    `model`: "pocket", a local folder, a hub id, or the model's name at `endpoint` (an OpenAI-compatible URL, its key
    in the environment variable `api_key_env`); None for `rag-extractive`. `rag`: settings that replace those of
    `preset`. `input_price`, `output_price`: money per million tokens at an endpoint; `in_flight`: requests at once
    there. `family`: the entry that declared this arm as one of several trainings. `subset`: the nested subset of facts
    that its adapter was trained on, where it is another than the experiment's.
    """

    name: str
    kind: str
    model: str | None = "pocket"
    adapter: str | None = None
    preset: str | None = None
    rag: Mapping[str, Any] = field(default_factory=dict)
    quantization: str | None = None
    max_new_tokens: int = 64
    endpoint: str | None = None
    api_key_env: str | None = None
    input_price: float | None = None
    output_price: float | None = None
    in_flight: int = 48
    subset: str | None = None
    family: str | None = None

    @property
    def retrieves(self) -> bool:
        """Whether the arm reads documents."""
        return self.kind not in CLOSED_BOOK

    @property
    def generator(self) -> str:
        """What writes the answer, in words: the base model, an adapter, or the documents themselves."""
        if self.model is None:
            return "quoted from the documents"
        return f"{self.model} + {self.adapter}" if self.adapter else self.model


@dataclass(frozen=True)
class Comparison:
    """A declared comparison of arm `a` with arm `b` by `metric` on one `slice` ("overall" for all questions)."""

    a: str
    b: str
    slice: str
    metric: str


@dataclass(frozen=True)
class Experiment:
    """A whole experiment, checked. `sample` maps slices to numbers of questions, None for all of them.

    `subset` names the nested subset of the corpus's facts that the adapters were trained on; None for all of them.
    `machine_price` and `training_price` are money per hour. `latency_probe`: how many questions at most each arm is
    asked one by one, streamed, for its times. `judge`: settings of the judge, checked where it is made; so is
    `training`: adapters that the experiment brings along. `directions`: hold published findings against the run.
    """

    name: str
    corpus: str
    arms: tuple[ArmSpec, ...]
    comparisons: tuple[Comparison, ...]
    description: str = ""
    primary_metric: str = "token_f1"
    seed: int = 0
    new_documents: bool = False
    subset: str | None = None
    sample: Mapping[str, int] | None = None
    slice_weights: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 16
    latency_probe: int = 20
    machine_price: float = 0.10
    training_price: float | None = None
    currency: str = "USD"
    prices: str | None = None
    judge: Mapping[str, Any] = field(default_factory=dict)
    training: Sequence[Mapping[str, Any]] = ()
    directions: bool = False

    def arm(self, name: str) -> ArmSpec:
        """Return the arm called `name`."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def families(self) -> dict[str, tuple[str, ...]]:
        """The arms that were trained alike but for the seed, by the entry that declared them."""
        named = dict.fromkeys(arm.family for arm in self.arms if arm.family)
        return {str(name): tuple(arm.name for arm in self.arms if arm.family == name) for name in named}

    @property
    def slices(self) -> tuple[str, ...]:
        """The slices that are asked, in DESIGN's order."""
        return tuple(
            name
            for name in SLICES
            if (self.sample is None or self.sample.get(name, 0) > 0) and (self.new_documents or name != "new-document")
        )


def find_experiment(name: str | Path) -> Path:
    """Return the path of an experiment file, given by its path, or by the name of one that ships with Versus."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = Path(__file__).parent.parent / "experiments"
    candidate = shipped / (path.name if path.suffix == ".toml" else f"{path.name}.toml")
    if candidate.is_file() and path.parent in (Path(), Path("experiments")):
        return candidate
    known = ", ".join(sorted(file.stem for file in shipped.glob("*.toml")))
    raise ExperimentError(f"{name}: no such experiment file; those that ship are {known}")


def load_experiment(path: Path) -> Experiment:
    """Read an experiment; raises `ExperimentError` that names the file and lists every mistake with what is allowed."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ExperimentError(f"{path}: not TOML: {error}") from error
    return experiment_from_mapping(data, str(path), path.parent)


def experiment_from_mapping(
    data: Mapping[str, Any], where: str = "experiment", folder: Path | None = None
) -> Experiment:
    """Build an `Experiment` from decoded TOML; `where` names the source in the error, `folder` is where it lies."""
    problems = experiment_problems(data)
    if problems:
        listed = "\n  - ".join(problems)
        raise ExperimentError(f"{where}: {len(problems)} to mend:\n  - {listed}")
    prices = _prices(data.get("prices"), folder or Path())
    arms = tuple(arm for item in data["arms"] for arm in _arms(item, prices.get("models", {})))
    apart = ("arms", "comparisons", "sample", "prices")
    simple = {key: data[key] for key in TOP if key in data and key not in apart}
    for key, name in (("currency", "currency"), ("machine", "machine_price"), ("training_machine", "training_price")):
        if key in prices:
            simple.setdefault(name, prices[key])
    if isinstance(data.get("prices"), str):
        simple["prices"] = Path(data["prices"]).name
    sample = data.get("sample")
    return Experiment(
        **simple, arms=arms, sample=dict(sample) if sample is not None else None, comparisons=_comparisons(data, arms)
    )


def _prices(declared: str | Mapping[str, Any] | None, folder: Path) -> Mapping[str, Any]:
    """Return the price table: as it stands in the file, or from the file it names (a run keeps a copy beside it)."""
    if not isinstance(declared, str):
        return declared or {}
    named = folder / declared
    return read_prices(named if named.exists() else folder / named.name)


def _arms(item: Mapping[str, Any], models: Mapping[str, Mapping[str, float]]) -> list[ArmSpec]:
    """Return the arms that one entry declares, an endpoint's prices filled in from the table."""
    model = item.get("model", None if item["kind"] == EXTRACTIVE else "pocket")
    common = {**item, "model": model}
    listed = models.get(str(model), {}) if item.get("endpoint") else {}
    for key, name in (("input", "input_price"), ("output", "output_price")):
        if key in listed:
            common.setdefault(name, listed[key])
    adapters = common.pop("adapters", None)
    if adapters is None:
        return [ArmSpec(**common)]
    return [
        ArmSpec(**{**common, "name": name, "adapter": adapter, "family": item["name"]})
        for name, adapter in zip(member_names(item), adapters, strict=True)
    ]


def _comparisons(data: Mapping[str, Any], arms: Sequence[ArmSpec]) -> tuple[Comparison, ...]:
    """Spread each declared comparison over its slices and over the members of a family; by default every pair."""
    primary = data.get("primary_metric", "token_f1")
    declared = data.get("comparisons")
    if declared is None:
        pairs = [
            (a, b) for place, a in enumerate(arms) for b in arms[place + 1 :] if not a.family or a.family != b.family
        ]
        return tuple(Comparison(a.name, b.name, OVERALL, primary) for a, b in pairs)
    members = {arm.name: [arm.name] for arm in arms} | {item["name"]: member_names(item) for item in data["arms"]}
    spread = (
        Comparison(a, b, name, item.get("metric") or _metric_of(name, primary))
        for item in declared
        for a in members[item["a"]]
        for b in members[item["b"]]
        for name in item.get("slices", [OVERALL])
        if a != b
    )
    return tuple(dict.fromkeys(spread))


def _metric_of(slice_name: str, primary: str) -> str:
    """Return what decides on a slice: the primary metric, or abstention where there is nothing to answer."""
    return ABSTENTION if slice_name == "unanswerable" else primary


def draw_sample(experiment: Experiment, questions: Iterable[Question]) -> list[Question]:
    """Return the questions that the experiment asks, in their own order.

    Each slice's are drawn by a hash of seed and question id, so the same seed draws the same questions whatever else
    stands in the file, and a larger sample holds the smaller one. Questions without a slice raise `ExperimentError`.
    """
    pool = list(questions)
    by_slice: dict[str, list[Question]] = defaultdict(list)
    for question in pool:
        if question.slice is None:
            raise ExperimentError(f"question {question.id} has no slice; run `versus questions split` first")
        by_slice[question.slice].append(question)
    chosen: set[str] = set()
    for name in experiment.slices:
        ranked = sorted(by_slice[name], key=lambda question: _draw_key(experiment.seed, question.id))
        chosen |= {question.id for question in ranked[: None if experiment.sample is None else experiment.sample[name]]}
    if not chosen:
        raise ExperimentError(f"experiment {experiment.name} asks none of the {len(pool)} questions: see its [sample]")
    return [question for question in pool if question.id in chosen]


def _draw_key(seed: int, question_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{question_id}".encode()).digest()
