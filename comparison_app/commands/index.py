"""`versus index`: bring a corpus's index up to its documents."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from comparison_app.commands import add_command
from comparison_app.console import console, print_json, progress_bar
from comparison_app.workspace import Workspace


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "index",
        run,
        "index a corpus, or bring its index up to date: only what changed is embedded",
        "versus index my-manual",
    )
    parser.add_argument("corpus", nargs="?", help="a corpus, by path or name (default: the sample manual)")
    parser.add_argument("--new-documents", action="store_true", help="take in the corpus's new_documents/ as well")
    parser.add_argument("--rebuild", action="store_true", help="embed everything anew, say with another embedder")
    parser.add_argument("--preset", help="retrieval settings: default, car-manual or intent-labels")


def run(arguments: argparse.Namespace) -> int:
    """Index, and say what was added, changed, removed and left."""
    from comparison_app.indexes import index_path, rag_config, update_index

    workspace = Workspace.resolve(arguments.workspace)
    corpus = workspace.corpus(arguments.corpus)
    config = rag_config(arguments.preset)
    with progress_bar(f"indexing {corpus.name}", quiet=arguments.json) as progress:
        report = update_index(
            workspace,
            corpus,
            config,
            include_new=arguments.new_documents,
            rebuild=arguments.rebuild,
            progress=progress,
        )
    path = index_path(workspace, corpus, config)
    if arguments.json:
        print_json({"corpus": corpus.name, "index": str(path), **asdict(report)})
        return 0
    console().print(
        f"[bold]{corpus.name}[/bold]: {report.added} documents added, {report.changed} changed, "
        f"{report.removed} removed, {report.unchanged} unchanged; {report.embedded} chunks embedded, "
        f"{report.chunks} in the index, {report.seconds:.1f} s"
    )
    return 0
