"""The price table: what a machine's hour costs, and what models at endpoints charge for tokens.

In an experiment it is a table `[prices]`, or the path of a TOML file of the same shape (`prices = "prices.toml"`):

    currency = "EUR"
    machine = 0.10              # an hour of the machine that answers
    training_machine = 1.20     # an hour of the machine that trains; `machine` where it is left out

    [models."qwen3:8b"]         # money per million tokens
    input = 0.15
    output = 0.60
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.errors import ExperimentError

if TYPE_CHECKING:
    from comparison_app.experiment import ArmSpec

_KEYS = ("currency", "machine", "training_machine", "models")
_MODEL_KEYS = ("input", "output")


def read_prices(path: Path) -> dict[str, Any]:
    """Read a price table; raises `ExperimentError` that names the file and every mistake in it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExperimentError(f"{path}: the price table cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ExperimentError(f"{path}: not TOML: {error}") from error
    problems = price_problems(table)
    if problems:
        listed = "\n  - ".join(problems)
        raise ExperimentError(f"{path}: {len(problems)} to mend:\n  - {listed}")
    return table


def price_problems(table: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a price table; an empty list if nothing is."""
    problems = [
        f"[prices]: unknown key {key!r}; allowed are {', '.join(_KEYS)}" for key in sorted(set(table) - set(_KEYS))
    ]
    if not isinstance(table.get("currency", ""), str):
        problems.append("[prices] currency must be a string")
    for key in ("machine", "training_machine"):
        problems += _amount(table.get(key, 0), f"[prices] {key}")
    models = table.get("models", {})
    if not isinstance(models, Mapping):
        return [*problems, '[prices] models must be tables: write [prices.models."NAME"]']
    for name, entry in models.items():
        place = f"[prices] model {name!r}"
        if not isinstance(entry, Mapping) or not set(entry) <= set(_MODEL_KEYS):
            problems.append(f"{place} must be a table of {' and '.join(_MODEL_KEYS)}")
            continue
        for key in _MODEL_KEYS:
            problems += _amount(entry.get(key, 0), f"{place} {key}")
    return problems


def _amount(value: object, place: str) -> list[str]:
    """Say so if `value` is no amount of money."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
        return []
    return [f"{place} must be a number of at least 0, not {value!r}"]


def money_in_words(money: float | None) -> str:
    """Write an amount of 0 or more with cents, or, below 1, with two telling digits and no exponent."""
    if money is None:
        return "–"
    digits = 2 if money == 0 or money >= 1 else 1 - math.floor(math.log10(money))
    return f"{money:.{digits}f}"


def charge_in_words(cost: float | None, spec: ArmSpec, currency: str) -> str:
    """Return what an answer of the arm `spec` is charged, `cost` being None where that is not known."""
    if cost is not None:
        return f"cost {cost:.6f} {currency}"
    if not spec.endpoint:
        return "local, no charge"
    if spec.input_price is None and spec.output_price is None:
        return "price not given"
    return "cost not known: the endpoint tells no tokens"
