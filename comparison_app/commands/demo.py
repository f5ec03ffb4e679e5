"""`versus demo`: the whole job on the sample corpus, ending in a report."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

from comparison_app.commands import add_command
from comparison_app.console import console
from comparison_app.workspace import Workspace


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "demo",
        run,
        "index the sample manual, fine-tune on it live, ask all six arms, and report",
        "versus demo",
    )
    parser.add_argument(
        "--train-seconds", type=float, metavar="S", help="wall time of the live training (default: 150)"
    )
    parser.add_argument("--train-all", action="store_true", help="train the bundled adapters anew as well")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and show what came out."""
    from comparison_app.commands.compare import live_hooks, show_run
    from comparison_app.commands.train import live_loss
    from comparison_app.demo import run_demo

    started = time.monotonic()
    workspace = Workspace.resolve(arguments.workspace)
    with live_hooks(quiet=arguments.json) as hooks:
        folder = run_demo(
            workspace,
            train_all=arguments.train_all,
            live_loss=partial(live_loss, quiet=arguments.json),
            hooks=hooks,
            live_seconds=arguments.train_seconds,
        )
    show_run(folder, as_json=arguments.json)
    if not arguments.json:
        console().print(f"done in {time.monotonic() - started:.0f} s; next: versus ask, versus app, versus compare")
    return 0
