"""What Ctrl-C leaves of a long command, told truly: something that `--resume` goes on from, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from comparison_app.errors import ComparisonError


@contextmanager
def telling_what_is_left(kept: Callable[[], bool], what: str = "the last checkpoint") -> Iterator[None]:
    """Raise `ComparisonError` on Ctrl-C, which says whether `what`, which is there if `kept()`, can be gone on from."""
    try:
        yield
    except KeyboardInterrupt:
        if kept():
            raise ComparisonError(f"stopped; add --resume to go on from {what}") from None
        raise ComparisonError("stopped; nothing was kept to go on from: the same command starts again") from None
