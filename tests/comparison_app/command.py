"""Runs the real command `versus` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

VERSUS = (sys.executable, "-m", "comparison_app.cli")


def versus(*arguments: str | Path, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run `versus` with these arguments, offline, and return what it printed and its exit code."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    command = [*VERSUS, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)


def take_interrupts() -> None:
    """Let a child process be interrupted, also where the tests run in the background: a shell has them ignore it there.

    For `preexec_fn` of a process that is to be sent SIGINT.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def assert_clear_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert exit code 1 and exactly one line of error that holds `words`, with no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("versus: error: ")]
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0], lines[0]
