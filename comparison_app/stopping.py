"""What Ctrl-C leaves of a long command, told truly: something that `--resume` goes on from, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from comparison_app.errors import ComparisonError


@contextmanager
def telling_what_is_left(
    left: Callable[[], Path | None], *, resumed: bool, what: str = "the last checkpoint"
) -> Iterator[None]:
    """Raise `ComparisonError` on Ctrl-C, which says whether the command can be gone on with, and from `what`.

    `left` returns the file that makes this so, None while there is none. Where it is there before, of a command that
    was not `resumed`, and stays as it is, that is an earlier command's.
    """
    before = None if resumed else _version(left())
    try:
        yield
    except KeyboardInterrupt:
        now = _version(left())
        if now is None:
            said = "nothing was kept to go on from: the same command starts again"
        elif now == before:
            said = f"{what} of an earlier start is untouched: --resume goes on from it where it is of the same training"
        else:
            said = f"add --resume to go on from {what}"
        raise ComparisonError(f"stopped; {said}") from None


def _version(path: Path | None) -> tuple[Path, int] | None:
    """Return what tells a file from one that took its place."""
    return (path, path.stat().st_mtime_ns) if path else None
