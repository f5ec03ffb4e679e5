"""`versus scrape`: somebody's documents into a corpus."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comparison_app.commands import add_command
from comparison_app.console import console, print_json
from comparison_app.workspace import Workspace
from data_prep.folders import scrape_files


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "scrape",
        run,
        "turn folders and files of markdown and text into a corpus",
        "versus scrape my-manual/ --into my-manual",
    )
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="a folder or a file")
    parser.add_argument("--into", required=True, metavar="CORPUS", help="a name (kept in the workspace) or a path")
    parser.add_argument("--language", default="en", help="language of the documents, ISO 639-1 (default: en)")
    parser.add_argument("--licence", help="licence of the documents, for the manifest")


def run(arguments: argparse.Namespace) -> int:
    """Scrape, and say what was added, changed, left and passed over."""
    folder = Workspace.resolve(arguments.workspace).corpus_folder(arguments.into)
    report = scrape_files(arguments.sources, folder, language=arguments.language, licence=arguments.licence)
    if arguments.json:
        print_json({"corpus": str(folder), **asdict(report)})
        return 0
    out = console()
    out.print(
        f"[bold]{folder}[/bold]: {len(report.added)} added, {len(report.changed)} changed, "
        f"{len(report.unchanged)} unchanged, {len(report.skipped)} passed over"
    )
    for name, reason in list(report.skipped.items())[:20]:
        out.print(f"  passed over {name}: {reason}", markup=False)
    out.print(f"next: versus questions import FILE --into {arguments.into}, or versus index --corpus {arguments.into}")
    return 0
