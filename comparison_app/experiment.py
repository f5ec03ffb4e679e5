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

    [[arms]]
    name = "rag"
    kind = "rag"
    model = "pocket"

    [[comparisons]]                 # what is decided, Holm-adjusted; all else is exploratory
    a = "rag"
    b = "finetuned"
    slices = ["overall", "unseen-page"]
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from comparison_app.errors import ExperimentError
from comparison_app.kinds import ADAPTED, CLOSED_BOOK, EXTRACTIVE, KINDS
from comparison_app.metrics.scoring import ABSTENTION, METRICS, TEXT_METRICS
from data_prep.questions import SLICES, Question

OVERALL = "overall"


@dataclass(frozen=True)
class ArmSpec:
    """One arm as declared.

    `model`: "pocket", a local folder, a hub id, or the model's name at `endpoint` (an OpenAI-compatible URL, its key
    in the environment variable `api_key_env`); None for `rag-extractive`. `rag`: settings that replace those of
    `preset`. `input_price`, `output_price`: money per million tokens at an endpoint.
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
    machine_price: float = 0.10
    currency: str = "USD"

    def arm(self, name: str) -> ArmSpec:
        """Return the arm called `name`."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def slices(self) -> tuple[str, ...]:
        """The slices that are asked, in DESIGN's order."""
        return tuple(
            name
            for name in SLICES
            if (self.sample is None or self.sample.get(name, 0) > 0) and (self.new_documents or name != "new-document")
        )


_ARM_KEYS = {item.name for item in fields(ArmSpec)}
_TEXT_KEYS = ("name", "kind", "model", "adapter", "preset", "quantization", "endpoint", "api_key_env")
_COMPARISON_KEYS = {"a", "b", "slices", "metric"}
_TOP: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "corpus": (str,),
    "description": (str,),
    "primary_metric": (str,),
    "seed": (int,),
    "new_documents": (bool,),
    "subset": (str,),
    "sample": (dict,),
    "slice_weights": (dict,),
    "batch_size": (int,),
    "machine_price": (int, float),
    "currency": (str,),
    "arms": (list,),
    "comparisons": (list,),
}


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
    return experiment_from_mapping(data, str(path))


def experiment_from_mapping(data: Mapping[str, Any], where: str = "experiment") -> Experiment:
    """Build an `Experiment` from decoded TOML; `where` names the source in the error."""
    problems = _top_problems(data)
    if not problems:
        problems = [*_sample_problems(data), *_arm_problems(data["arms"])]
    if not problems:
        problems = _comparison_problems(data)
    if problems:
        listed = "\n  - ".join(problems)
        raise ExperimentError(f"{where}: {len(problems)} to mend:\n  - {listed}")
    arms = tuple(_arm(item) for item in data["arms"])
    sample = data.get("sample")
    simple = {key: data[key] for key in _TOP if key in data and key not in ("arms", "comparisons", "sample")}
    return Experiment(
        **simple, arms=arms, sample=dict(sample) if sample is not None else None, comparisons=_comparisons(data, arms)
    )


def _arm(item: Mapping[str, Any]) -> ArmSpec:
    default = None if item["kind"] == EXTRACTIVE else "pocket"
    return ArmSpec(**{**item, "model": item.get("model", default)})


def _comparisons(data: Mapping[str, Any], arms: Sequence[ArmSpec]) -> tuple[Comparison, ...]:
    """Spread each declared comparison over its slices; where none is declared, every pair of arms overall."""
    primary = data.get("primary_metric", "token_f1")
    declared = data.get("comparisons")
    if declared is None:
        names = [arm.name for arm in arms]
        pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
        return tuple(Comparison(a, b, OVERALL, primary) for a, b in pairs)
    spread = (
        Comparison(item["a"], item["b"], name, item.get("metric") or _metric_of(name, primary))
        for item in declared
        for name in item.get("slices", [OVERALL])
    )
    return tuple(dict.fromkeys(spread))


def _metric_of(slice_name: str, primary: str) -> str:
    """Return what decides on a slice: the primary metric, or abstention where there is nothing to answer."""
    return ABSTENTION if slice_name == "unanswerable" else primary


def _unknown(keys: Iterable[str], allowed: Iterable[str], place: str) -> list[str]:
    """Say which keys are not known, with the nearest one that is."""
    allowed = sorted(allowed)
    found = []
    for key in sorted(set(keys) - set(allowed)):
        near = difflib.get_close_matches(key, allowed, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        found.append(f"{place}: unknown key {key!r}{hint}; allowed are {', '.join(allowed)}")
    return found


def _top_problems(data: Mapping[str, Any]) -> list[str]:
    """Check the keys and types of the whole file."""
    problems = _unknown(data, _TOP, "top level")
    for key, kinds in _TOP.items():
        value = data.get(key)
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            problems.append(f"{key} must be a {kinds[0].__name__}, not {value!r}")
    for key in ("name", "corpus", "arms"):
        if not data.get(key):
            problems.append(f"{key} is missing or empty")
    for key in ("arms", "comparisons"):
        if isinstance(data.get(key), list) and not all(isinstance(item, dict) for item in data[key]):
            problems.append(f"{key} must be tables: write [[{key}]]")
    metric = data.get("primary_metric", "token_f1")
    if metric not in TEXT_METRICS:
        problems.append(f"primary_metric {metric!r} is not one of {', '.join(TEXT_METRICS)}")
    for key, least in (("seed", 0), ("batch_size", 1), ("machine_price", 0)):
        if isinstance(data.get(key), int | float) and data[key] < least:
            problems.append(f"{key} must be at least {least}")
    return problems


def _sample_problems(data: Mapping[str, Any]) -> list[str]:
    """Check the tables `sample` and `slice_weights`."""
    problems = _unknown(data.get("sample", {}), SLICES, "[sample]")
    problems += _unknown(data.get("slice_weights", {}), SLICES, "[slice_weights]")
    for name, count in data.get("sample", {}).items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            problems.append(f"[sample] {name} must be a whole number of at least 0, not {count!r}")
    for name, weight in data.get("slice_weights", {}).items():
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < 1e9:
            problems.append(f"[slice_weights] {name} must be a number of at least 0, not {weight!r}")
    if data.get("sample", {}).get("new-document") and not data.get("new_documents"):
        problems.append("[sample] new-document is asked only with new_documents = true")
    return problems


def _arm_problems(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Check every arm, and that their names are unique and fit for a file."""
    problems = []
    names = [arm.get("name") for arm in arms]
    for number, arm in enumerate(arms, start=1):
        place = f"arm {arm.get('name') or number}"
        problems += _unknown(arm, _ARM_KEYS, place)
        problems += [f"{place}: {text}" for text in _one_arm(arm)]
        if names.count(arm.get("name")) > 1 and names.index(arm.get("name")) == number - 1:
            problems.append(f"{place}: the name is given to {names.count(arm.get('name'))} arms")
    return problems


def _one_arm(arm: Mapping[str, Any]) -> list[str]:
    """Check one arm's values and that they agree with its kind."""
    problems = [
        f"{key} must be a non-empty string"
        for key in _TEXT_KEYS
        if key in arm and (not isinstance(arm[key], str) or not arm[key].strip())
    ]
    if not arm.get("name"):
        problems.append("name is missing")
    kind = arm.get("kind")
    if kind not in KINDS:
        return [*problems, f"kind {kind!r} is not one of {', '.join(KINDS)}"]
    if kind in ADAPTED and not arm.get("adapter"):
        problems.append(f"kind {kind} needs an adapter")
    if kind not in ADAPTED and "adapter" in arm:
        problems.append(f"kind {kind} takes no adapter")
    if kind in CLOSED_BOOK and ("preset" in arm or "rag" in arm):
        problems.append(f"kind {kind} retrieves nothing: leave preset and rag out")
    if kind == EXTRACTIVE and ("model" in arm or "endpoint" in arm):
        problems.append(f"kind {kind} has no model")
    if not isinstance(arm.get("rag", {}), dict):
        problems.append("rag must be a table of settings")
    for key in ("max_new_tokens", "input_price", "output_price"):
        value = arm.get(key, 1)
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            problems.append(f"{key} must be a number of at least 0")
    return problems


def _comparison_problems(data: Mapping[str, Any]) -> list[str]:
    """Check that comparisons name arms, slices and metrics that exist and are asked."""
    names = [arm["name"] for arm in data["arms"]]
    places = (OVERALL, *SLICES)
    problems = []
    for number, item in enumerate(data.get("comparisons") or [], start=1):
        place = f"comparison {number}"
        problems += _unknown(item, _COMPARISON_KEYS, place)
        for side in ("a", "b"):
            if item.get(side) not in names:
                problems.append(f"{place}: {side} = {item.get(side)!r} is no arm; the arms are {', '.join(names)}")
        if item.get("a") == item.get("b"):
            problems.append(f"{place}: a and b are the same arm")
        slices = item.get("slices", [OVERALL])
        if not isinstance(slices, list) or not slices or not set(map(str, slices)) <= set(places):
            problems.append(f"{place}: slices must be a list of {', '.join(places)}")
        if item.get("metric", METRICS[0]) not in METRICS:
            problems.append(f"{place}: metric {item['metric']!r} is not one of {', '.join(METRICS)}")
    return problems


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
