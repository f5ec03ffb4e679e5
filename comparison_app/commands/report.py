"""`versus report`: a run's result again, its report written anew from the predictions."""

from __future__ import annotations

import argparse
import webbrowser
from typing import Any

from comparison_app.commands import add_command
from comparison_app.workspace import Workspace


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "report",
        run,
        "score a run again, write its report anew and show it",
        "versus report manual-demo --open",
    )
    parser.add_argument("run", help="a run, by name or path")
    parser.add_argument("--open", action="store_true", help="open report.html in the browser")


def run(arguments: argparse.Namespace) -> int:
    """Write the report and show the result."""
    from comparison_app.commands.compare import show_run
    from comparison_app.comparison import write_results
    from comparison_app.runner import read_run

    workspace = Workspace.resolve(arguments.workspace)
    finished = read_run(workspace.run(arguments.run))
    write_results(finished, workspace.corpus(finished.experiment.corpus))
    show_run(finished.folder, as_json=arguments.json)
    if arguments.open:
        webbrowser.open((finished.folder / "report.html").resolve().as_uri())
    return 0
