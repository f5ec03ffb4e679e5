"""`versus questions export`: training files for trl, LLaMA-Factory and Axolotl."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from comparison_app.commands import add_command
from comparison_app.console import print_json, print_table
from comparison_app.workspace import Workspace


def register(actions: Any) -> None:
    """Add the action."""
    parser = add_command(
        actions,
        "export",
        run,
        "write the questions as chat messages that trl, LLaMA-Factory or Axolotl train on",
        "versus questions export tern-manual --into training/ --format axolotl",
    )
    parser.add_argument("corpus", help="a corpus, by path or name")
    parser.add_argument("--into", required=True, type=Path, metavar="FOLDER", help="where the files are written")
    parser.add_argument(
        "--format", default="trl", choices=("trl", "llama-factory", "axolotl"), help="whose files (default: trl)"
    )
    parser.add_argument("--splits", default="train,dev", help="which question files (default: train,dev)")
    parser.add_argument("--passages", type=int, default=0, help="passages in each prompt (default: 0, closed-book)")
    parser.add_argument("--cite", action="store_true", help="ask for source numbers in the answer")
    parser.add_argument("--seed", type=int, default=0, help="of the passages' order (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    """Export, and say how many rows each file has."""
    from data_prep.exporting import ExportConfig, export_questions

    config = ExportConfig(
        format=arguments.format,
        splits=tuple(arguments.splits.split(",")),
        passages=arguments.passages,
        cite=arguments.cite,
        seed=arguments.seed,
    )
    corpus = Workspace.resolve(arguments.workspace).corpus(arguments.corpus)
    written = export_questions(corpus, arguments.into, config)
    if arguments.json:
        print_json({"folder": str(arguments.into), "format": config.format, "rows": written})
    else:
        print_table(f"{config.format} files in {arguments.into}", ["file", "rows"], list(written.items()))
    return 0
