"""`versus index`: bring a corpus's index up to its documents, once or whenever they change."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command, add_retrieval_options
from comparison_app.console import console, error_console, print_json, progress_bar
from comparison_app.workspace import Workspace
from data_prep.errors import VersusError

if TYPE_CHECKING:
    from data_prep.corpus import Corpus
    from rag.abstention import AbstentionCalibration
    from rag.config import RagConfig
    from rag.embedding import Embedder
    from rag.indexing import IndexReport


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "index",
        run,
        "index a corpus, or bring its index up to date: only what changed is embedded",
        "versus index my-manual --watch",
    )
    parser.add_argument("corpus", nargs="?", help="a corpus, by path or name (default: the sample manual)")
    parser.add_argument("--new-documents", action="store_true", help="take in the corpus's new_documents/ as well")
    parser.add_argument("--rebuild", action="store_true", help="embed everything anew, say with another embedder")
    parser.add_argument("--watch", action="store_true", help="stay, and index again whenever documents change")
    parser.add_argument(
        "--interval", type=float, default=2.0, metavar="S", help="seconds between two looks of --watch (default: 2)"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="embed on a Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT"
    )
    add_retrieval_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Index, and say what was added, changed, removed and left."""
    from comparison_app.indexes import chosen_settings, rag_config

    workspace = Workspace.resolve(arguments.workspace)
    corpus = workspace.corpus(arguments.corpus)
    config = rag_config(arguments.preset, chosen_settings(arguments))
    with _embedder(config, arguments.ray) as embedder:
        if arguments.watch:
            return _watch(arguments, workspace, corpus, config, embedder)
        _index(arguments, workspace, corpus, config, embedder)
    return 0


@contextmanager
def _embedder(config: RagConfig, ray: str | None) -> Iterator[Embedder | None]:
    """Give the cluster's embedder, or None for the one that the settings name."""
    if ray is None:
        yield None
        return
    from rag.ray_embedding import RayEmbedder

    with RayEmbedder(config, ray) as embedder:
        yield embedder


def _watch(
    arguments: argparse.Namespace, workspace: Workspace, corpus: Corpus, config: RagConfig, embedder: Embedder | None
) -> int:
    """Index now and after every change, until interrupted; what cannot be indexed is said, and waited for."""
    from comparison_app.watching import changes

    try:
        for _ in changes(corpus.path, arguments.interval):
            try:
                _index(arguments, workspace, workspace.corpus(arguments.corpus), config, embedder)
                arguments.rebuild = False
            except VersusError as error:
                error_console().print(f"versus: {error}; waiting for the next change", markup=False, soft_wrap=True)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 0
    return 0


def _index(
    arguments: argparse.Namespace, workspace: Workspace, corpus: Corpus, config: RagConfig, embedder: Embedder | None
) -> None:
    from comparison_app.abstention import described
    from comparison_app.indexes import index_path, language_note, update_index

    with progress_bar(f"indexing {corpus.name}", quiet=arguments.json) as progress:
        report = update_index(
            workspace,
            corpus,
            config,
            include_new=arguments.new_documents,
            rebuild=arguments.rebuild,
            progress=progress,
            embedder=embedder,
        )
    note = language_note(corpus, config) if report.added or report.changed else None
    path = config.store or str(index_path(workspace, corpus, config))
    found = None if arguments.watch else _abstention(workspace, corpus, config)
    if arguments.json:
        declines = found and found.as_dict()
        print_json({"corpus": corpus.name, "index": path, **asdict(report), "abstention": declines, "warning": note})
        return
    console().print(_sentence(corpus.name, report))
    if found:
        console().print(described(found), markup=False, soft_wrap=True)
    if note:
        error_console().print(f"warning: {note}", style="yellow", markup=False, soft_wrap=True)


def _abstention(workspace: Workspace, corpus: Corpus, config: RagConfig) -> AbstentionCalibration | None:
    """Return when answers from this index decline; calibrated now, so that the first question need not wait for it.

    Settings with a cross-encoder are calibrated when they are first asked, which loads it.
    """
    from comparison_app.abstention import calibration_of
    from comparison_app.indexes import open_retriever
    from rag.refining import without_writer
    from rag.reranking import SENTENCES

    if config.reranker not in (None, SENTENCES):
        return None

    return calibration_of(config, open_retriever(workspace, corpus, without_writer(config)), corpus)


def _sentence(name: str, report: IndexReport) -> str:
    return (
        f"[bold]{name}[/bold]: {report.added} documents added, {report.changed} changed, "
        f"{report.removed} removed, {report.unchanged} unchanged; {report.embedded} chunks embedded, "
        f"{report.chunks} in the index, {report.seconds:.1f} s"
    )
