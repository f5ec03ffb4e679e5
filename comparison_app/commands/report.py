"""`versus report`: a run's result again, its report written anew from the predictions."""

from __future__ import annotations

import argparse
import webbrowser
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command
from comparison_app.console import console, print_json, print_table
from comparison_app.workspace import Workspace

if TYPE_CHECKING:
    from comparison_app.regression import Comparison


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
    parser.add_argument("--against", metavar="RUN", help="show what changed since another run of the same experiment")
    parser.add_argument(
        "--fail-on-regression", action="store_true", help="with --against: exit with 1 if an arm fell decisively"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report and show the result, or what changed since another run."""
    from comparison_app.commands.compare import show_run
    from comparison_app.comparison import compare_with, write_results
    from comparison_app.errors import RunError
    from comparison_app.runner import read_run

    if arguments.fail_on_regression and not arguments.against:
        raise RunError("--fail-on-regression needs --against RUN: the run that this one is measured by")
    workspace = Workspace.resolve(arguments.workspace)
    finished = read_run(workspace.run(arguments.run))
    other = read_run(workspace.run(arguments.against)) if arguments.against else None
    corpus = workspace.corpus(finished.experiment.corpus)
    evaluation = write_results(finished, corpus)
    changes = compare_with(finished, evaluation, other, corpus) if other else None
    if changes is None:
        show_run(finished.folder, as_json=arguments.json)
    else:
        show_changes(changes, as_json=arguments.json)
    if arguments.open:
        webbrowser.open((finished.folder / "report.html").resolve().as_uri())
    return 1 if changes is not None and changes.falls and arguments.fail_on_regression else 0


def show_changes(changes: Comparison, *, as_json: bool = False) -> None:
    """Print what changed between two runs, decisive changes marked."""
    from comparison_app.regression import HEADER

    if as_json:
        print_json(changes.as_dict())
        return
    rows = [list(change.in_words) for change in changes.changes]
    title = f"{changes.now} against {changes.then}: worth in points, on {changes.questions} questions of both"
    print_table(title, list(HEADER), rows, numbers_from=2)
    out = console()
    for key, (then, now) in changes.provenance.items():
        out.print(f"{key}: {then} → {now}", markup=False)
    for note in changes.notes:
        out.print(note, markup=False)
    out.print(changes.outcome, markup=False)
