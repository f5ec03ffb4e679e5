"""Measurements in processes of their own, one after the other: each is told at once, and none ends the others."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LAST_WORDS = 1500
"""Characters of what a failed process said last that are told."""


class Measurements:
    """Runs of a benchmark's `file`, all of them in `seconds` at most.

    What they find is printed as lines of JSON and, where the environment variable OUT names a folder, added to a file
    there.
    """

    def __init__(self, file: Path, seconds: float = math.inf) -> None:
        self._file = file
        self._end = time.monotonic() + seconds

    def tell(self, figures: dict[str, Any]) -> None:
        """Print `figures` now, and add them to `$OUT/<name of the file>.jsonl`."""
        line = json.dumps(figures)
        print(line, flush=True)
        if folder := os.environ.get("OUT"):
            with (Path(folder) / f"{self._file.stem}.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")

    def run(self, name: str, arguments: Sequence[str], seconds: float = math.inf) -> dict[str, Any] | None:
        """Run the file with `arguments`; tell, and return, the figures that it prints last.

        Where it fails, or is not done after `seconds`, that is told, and None returned.
        """
        try:
            figures = self._figures(arguments, min(seconds, self._end - time.monotonic()))
        except (subprocess.SubprocessError, ValueError, IndexError, RuntimeError) as error:
            self.tell({"measurement": name, "failed": str(error)})
            return None
        self.tell({"measurement": name, **figures})
        return figures

    def _figures(self, arguments: Sequence[str], seconds: float) -> dict[str, Any]:
        if seconds <= 0:
            raise RuntimeError("there was no time left for it")
        command = [sys.executable, str(self._file), *arguments]
        limit = None if seconds == math.inf else seconds
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"not done after {seconds:.0f} s: {_last_words(error.stderr)}") from error
        if done.returncode != 0:
            raise RuntimeError(f"exit code {done.returncode}: {_last_words(done.stderr)}")
        figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return figures


def _last_words(said: str | bytes | None) -> str:
    """Return the end of what a process wrote to its error stream; Python gives bytes where it ran out of time."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said or ""
    return text.strip()[-LAST_WORDS:]
