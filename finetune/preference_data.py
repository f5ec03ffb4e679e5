"""Preferences as people give them: JSONL of a prompt, the answer that was preferred and the one that was not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import TrainingDataError
from finetune.json_lines import json_lines, json_value

KEYS = ("prompt", "chosen", "rejected")
SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class Preference:
    """A prompt, the answer that was preferred and the one that was not.

    `question_id` is the id of the corpus's question that the prompt is, where it is one: slices are recomputed from it.
    """

    prompt: str
    chosen: str
    rejected: str
    question_id: str | None = None

    def __post_init__(self) -> None:
        empty = [key for key in KEYS if not getattr(self, key).strip()]
        if empty:
            raise TrainingDataError(f"{' and '.join(empty)} must not be empty")
        if self.chosen.strip() == self.rejected.strip():
            raise TrainingDataError("chosen and rejected are the same answer, which teaches nothing: take the line out")


def read_preferences(path: Path, question_ids: Mapping[str, str] | None = None) -> list[Preference]:
    """Read a JSONL file of objects with the texts `prompt`, `chosen` and `rejected`; a repeated line counts once.

    `question_ids` maps a question's text to its id. Raises TrainingDataError that names the file and the lines.
    """
    found: dict[Preference, None] = {}
    problems = []
    for number, line in json_lines(path):
        try:
            found[_preference(line, question_ids or {})] = None
        except TrainingDataError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise TrainingDataError(f"{path}: {'; '.join(problems[:SHOWN_PROBLEMS])}{more}")
    if not found:
        raise TrainingDataError(f"{path}: it holds no preference; each line is {{{', '.join(KEYS)}}} as JSON")
    return list(found)


def _preference(line: str, question_ids: Mapping[str, str]) -> Preference:
    """Decode one line; raises TrainingDataError without its number."""
    try:
        row = json_value(line)
    except ValueError as error:
        raise TrainingDataError(str(error)) from error
    if not isinstance(row, dict):
        raise TrainingDataError(f"not an object with {', '.join(KEYS)}")
    missing = [key for key in KEYS if key not in row]
    if missing:
        raise TrainingDataError(f"{' and '.join(missing)} missing")
    wrong = [key for key in KEYS if not isinstance(row[key], str)]
    if wrong:
        raise TrainingDataError(f"{' and '.join(wrong)} must be text")
    prompt, chosen, rejected = (row[key] for key in KEYS)
    return Preference(prompt, chosen, rejected, question_ids.get(prompt.strip()))
