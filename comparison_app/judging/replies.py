"""Judges' replies, read strictly: one JSON object with exactly the keys and values asked for, or a problem."""

from __future__ import annotations

import json
import re
from typing import Any

from comparison_app.judging.prompts import CRITERIA

WINNERS = ("A", "B", "tie")
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n\s*```\Z", re.DOTALL)


class MalformedReplyError(ValueError):
    """A reply that is not what was asked for; the message says why, for the judge and for the report."""


def read_winner(reply: str) -> str:
    """Return "A", "B" or "tie"; raises `MalformedReplyError`."""
    found = _object(reply, {"reason", "winner"})
    if found["winner"] not in WINNERS:
        raise MalformedReplyError(f"winner must be one of {', '.join(WINNERS)}")
    return str(found["winner"])


def read_ratings(reply: str) -> dict[str, int]:
    """Return criterion -> whole number from 1 to 5; raises `MalformedReplyError`."""
    found = _object(reply, {"reason", *CRITERIA})
    for name in CRITERIA:
        value = found[name]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 5:
            raise MalformedReplyError(f"{name} must be a whole number from 1 to 5")
    return {name: int(found[name]) for name in CRITERIA}


def _object(reply: str, keys: set[str]) -> dict[str, Any]:
    """Return the one JSON object of `reply`; a thinking model's thoughts before it and one code fence are let pass."""
    text = _THOUGHT.sub("", reply, count=1).strip()
    fenced = _FENCED.match(text)
    try:
        found = json.loads(fenced[1] if fenced else text, object_pairs_hook=_without_repeats)
    except MalformedReplyError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedReplyError("it is not one JSON object") from error
    if not isinstance(found, dict):
        raise MalformedReplyError("it is not one JSON object")
    if set(found) != keys:
        raise MalformedReplyError(f"its keys must be exactly {', '.join(sorted(keys))}")
    if not isinstance(found["reason"], str):
        raise MalformedReplyError("reason must be a string")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedReplyError("a key stands there twice")
    return found
