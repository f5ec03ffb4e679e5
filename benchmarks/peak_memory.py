"""The most memory that a benchmark's own process has held."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """Return the highest resident bytes of this process.

    By /proc: `getrusage` begins with what the process was forked from had, and does not forget it with exec.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
