"""What can be wrong with an experiment file: every mistake is found and said at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comparison_app.kinds import ADAPTED, CLOSED_BOOK, EXTRACTIVE, KINDS, OVERALL
from comparison_app.metrics.scoring import METRICS, TEXT_METRICS
from comparison_app.prices import price_problems
from data_prep.questions import SLICES

_TEXT_KEYS = ("name", "kind", "model", "adapter", "subset", "preset", "quantization", "endpoint", "api_key_env")
_COUNT_KEYS = ("max_new_tokens", "in_flight", "input_price", "output_price")
_ARM_KEYS = {*_TEXT_KEYS, *_COUNT_KEYS, "adapters", "rag"}
_COMPARISON_KEYS = {"a", "b", "slices", "metric"}
TOP: dict[str, tuple[type, ...]] = {
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
    "latency_probe": (int,),
    "prices": (str, dict),
    "judge": (dict,),
    "training": (list,),
    "directions": (bool,),
    "machine_price": (int, float),
    "currency": (str,),
    "arms": (list,),
    "comparisons": (list,),
}
"""The keys of an experiment file and the types that their values may have."""


def experiment_problems(data: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a decoded experiment file; an empty list if nothing is."""
    problems = _top_problems(data)
    if not problems:
        problems = [*_sample_problems(data), *_price_problems(data), *_arm_problems(data["arms"])]
    return problems or _comparison_problems(data)


def member_names(arm: Mapping[str, Any]) -> list[str]:
    """Return the names of the arms that one entry declares: one, or one for each of its `adapters`."""
    if "adapters" not in arm:
        return [arm["name"]]
    return [f"{arm['name']}-{number}" for number in range(1, len(arm["adapters"]) + 1)]


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
    problems = _unknown(data, TOP, "top level")
    for key, kinds in TOP.items():
        value = data.get(key)
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            problems.append(f"{key} must be a {kinds[0].__name__}, not {value!r}")
    for key in ("name", "corpus", "arms"):
        if not data.get(key):
            problems.append(f"{key} is missing or empty")
    for key in ("arms", "comparisons", "training"):
        if isinstance(data.get(key), list) and not all(isinstance(item, dict) for item in data[key]):
            problems.append(f"{key} must be tables: write [[{key}]]")
    metric = data.get("primary_metric", "token_f1")
    if metric not in TEXT_METRICS:
        problems.append(f"primary_metric {metric!r} is not one of {', '.join(TEXT_METRICS)}")
    for key, least in (("seed", 0), ("batch_size", 1), ("latency_probe", 0), ("machine_price", 0)):
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


def _price_problems(data: Mapping[str, Any]) -> list[str]:
    """Check a price table that stands in the file itself."""
    table = data.get("prices")
    return price_problems(table) if isinstance(table, Mapping) else []


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
    if not problems:
        every = [name for arm in arms for name in member_names(arm)]
        problems += [
            f"arm {name}: the name is given to {every.count(name)} arms" for name in {*every} if every.count(name) > 1
        ]
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
    problems += _adapter_problems(arm, kind)
    if kind in CLOSED_BOOK and ("preset" in arm or "rag" in arm):
        problems.append(f"kind {kind} retrieves nothing: leave preset and rag out")
    if kind == EXTRACTIVE and ("model" in arm or "endpoint" in arm):
        problems.append(f"kind {kind} has no model")
    if not isinstance(arm.get("rag", {}), dict):
        problems.append("rag must be a table of settings")
    for key in _COUNT_KEYS:
        value = arm.get(key, 1)
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            problems.append(f"{key} must be a number of at least 0")
    if isinstance(arm.get("in_flight", 1), float) or arm.get("in_flight", 1) == 0:
        problems.append("in_flight must be a whole number of at least 1")
    return problems


def _adapter_problems(arm: Mapping[str, Any], kind: str) -> list[str]:
    """Check that an arm has the adapters that its kind needs; `adapters` are trainings with several seeds."""
    if kind not in ADAPTED:
        given = [key for key in ("adapter", "adapters") if key in arm]
        return [f"kind {kind} takes no adapter"] if given else []
    if "adapters" not in arm:
        return [] if arm.get("adapter") else [f"kind {kind} needs an adapter"]
    several = arm["adapters"]
    if "adapter" in arm:
        return ["give either adapter or adapters"]
    if not isinstance(several, list) or len(several) < 2 or not all(isinstance(item, str) and item for item in several):
        return ["adapters must be a list of at least two names, one for each training seed"]
    return ["adapters names one adapter twice"] if len(set(several)) < len(several) else []


def _comparison_problems(data: Mapping[str, Any]) -> list[str]:
    """Check that comparisons name arms, slices and metrics that exist and are asked."""
    names = list(dict.fromkeys(name for arm in data["arms"] for name in (*member_names(arm), arm["name"])))
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
