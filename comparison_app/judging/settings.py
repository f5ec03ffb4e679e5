"""How a judge is set up: the table `[judge]` of an experiment, or the options of `versus compare`.

[judge]
model = "qwen3:8b"
endpoint = "http://localhost:11434/v1"  # an OpenAI-compatible server; leave it out for a model on this machine
api_key_env = "MY_KEY"                  # the environment variable that holds the key
kinds = ["pairwise", "rubric"]
questions = 60                          # judged at most, drawn by the experiment's seed
repeats = 20                            # of the judgements, asked a second time: does the judge agree with itself?
input_price = 0.15                      # money per million tokens
output_price = 0.60
budget = 1.0                            # money that the judge may cost
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from comparison_app.errors import ExperimentError

PAIRWISE, RUBRIC = "pairwise", "rubric"
KINDS = (PAIRWISE, RUBRIC)
_WHOLE = {"questions": 1, "repeats": 0, "retries": 0, "max_new_tokens": 16, "in_flight": 1}
_MONEY = ("input_price", "output_price", "budget")


@dataclass(frozen=True)
class JudgeSettings:
    """A judge, checked. `endpoint` None: a model on this machine, by folder or hub id, `quantization` "nf4" or None.

    `questions`: how many are judged at most; `repeats`: judgements asked twice; `retries`: times that a reply which
    breaks the format is asked for again. Prices are money per million tokens, None where unknown; `budget` caps what
    the judge may cost, None does not.
    """

    model: str
    endpoint: str | None = None
    api_key_env: str | None = None
    quantization: str | None = None
    kinds: tuple[str, ...] = KINDS
    questions: int = 60
    repeats: int = 20
    retries: int = 2
    max_new_tokens: int = 256
    in_flight: int = 8
    input_price: float | None = None
    output_price: float | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            listed = "\n  - ".join(problems)
            raise ExperimentError(f"[judge]: {len(problems)} to mend:\n  - {listed}")

    @property
    def name(self) -> str:
        """The judge in words: its model, and where it runs."""
        return f"{self.model} at {self.endpoint}" if self.endpoint else self.model


def judge_settings(
    table: Mapping[str, Any], model: str | None = None, budget: float | None = None
) -> JudgeSettings | None:
    """Return the judge of an experiment's table `[judge]`; None if there is none.

    `model` ("MODEL" or "MODEL@URL") and `budget` take the place of what the table says. Raises `ExperimentError` that
    lists every mistake.
    """
    values = dict(table)
    known = {item.name for item in fields(JudgeSettings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ExperimentError(f"[judge]: unknown key {', '.join(unknown)}; allowed are {', '.join(sorted(known))}")
    if model:
        values["model"], _, address = model.partition("@")
        values["endpoint"] = address or None
    if budget is not None:
        values["budget"] = budget
    if not values:
        return None
    if "model" not in values:
        raise ExperimentError("[judge]: model is missing; name the judge's model")
    if isinstance(values.get("kinds"), list):
        values["kinds"] = tuple(values["kinds"])
    judge = JudgeSettings(**values)
    if judge.api_key_env and not os.environ.get(judge.api_key_env):
        raise ExperimentError(f"[judge]: the environment variable {judge.api_key_env} is not set; it must hold the key")
    return judge


def _problems(judge: JudgeSettings) -> list[str]:
    """Say what is wrong with a judge's settings."""
    found = []
    for key in ("model", "endpoint", "api_key_env", "quantization"):
        value = getattr(judge, key)
        if not (value is None and key != "model") and not (isinstance(value, str) and value.strip()):
            found.append(f"{key} must be a non-empty string")
    if not isinstance(judge.kinds, tuple) or not judge.kinds or not {str(kind) for kind in judge.kinds} <= set(KINDS):
        found.append(f"kinds must be a list of {', '.join(KINDS)}")
    for key, least in _WHOLE.items():
        value = getattr(judge, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            found.append(f"{key} must be a whole number of at least {least}")
    for key in _MONEY:
        value = getattr(judge, key)
        if value is not None and not _is_amount(value):
            found.append(f"{key} must be a number of at least 0")
    if judge.budget is not None and judge.endpoint and (judge.input_price is None or judge.output_price is None):
        found.append("a budget needs input_price and output_price, the money for a million tokens at the endpoint")
    return found


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
