"""JSONL files that people give: their lines, as every reader here cuts and reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from finetune.errors import TrainingDataError

_HALF = re.compile("[\ud800-\udfff]")


def json_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a JSONL file that are not blank, each with its number from 1.

    Lines end at a newline alone, as the characters U+2028 and U+0085 may stand inside a JSON text; a byte order mark
    is passed over. Raises TrainingDataError if the file is missing or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise TrainingDataError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingDataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def json_value(line: str) -> Any:
    """Return what a line holds. Raises ValueError, in words, if it is no JSON or holds half a character."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ValueError(f"no JSON ({error})") from error
    escaped = "\\ud" in line.lower()  # in UTF-8 there is no other way to write one
    if escaped and (half := _HALF.search(json.dumps(value, ensure_ascii=False))):
        raise ValueError(f"half a character (\\u{ord(half[0]):04x}); mend the line")
    return value
