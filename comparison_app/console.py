"""What a command says: JSON for machines, tables and progress bars for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int], None]


def print_json(data: Any) -> None:
    """Print one JSON document to standard output."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=2) + "\n")


def console() -> Console:
    """Return a console for people, on standard output."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def error_console() -> Console:
    """Return a console for progress, on standard error, so that standard output stays clean."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    numbers_from: int = 1,
    narrow: bool = False,
) -> None:
    """Print a table; columns from `numbers_from` on are aligned to the right. `narrow` leaves out upright lines."""
    from rich.box import HEAVY_HEAD, SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    box, padding = (SIMPLE_HEAD, 0) if narrow else (HEAVY_HEAD, (0, 1))
    table = Table(title=title or None, title_justify="left", header_style="bold", box=box, padding=padding)
    for place, name in enumerate(header):
        table.add_column(escape(name), justify="right" if place >= numbers_from else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    console().print(table)


@contextmanager
def progress_bar(label: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Yield a function of (done, total) that draws a progress bar with the time left on standard error."""
    if quiet:
        yield lambda done, total: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console()) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
