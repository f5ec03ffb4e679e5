"""`versus search`: retrieval alone, for one query or measured over a file of questions."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command, add_retrieval_options
from comparison_app.console import console, print_json, print_table
from comparison_app.errors import ComparisonError
from comparison_app.workspace import Workspace

if TYPE_CHECKING:
    from rag.refining import Search


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "search",
        run,
        "search a corpus, with the score of each stage; or measure retrieval on a file of questions",
        'versus search "how do I charge at home?" --top 5',
        corpus=True,
    )
    parser.add_argument("query", nargs="?", help="what to look for")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="measure recall, MRR and nDCG on these")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="how many chunks to show (default: 5)")
    parser.add_argument("--about", metavar="DOCUMENT", help="search this one document only")
    parser.add_argument(
        "--filter", action="append", default=[], metavar="FIELD=VALUE", help="only chunks whose metadata say this"
    )
    add_retrieval_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Search once, or measure."""
    from comparison_app.endpoints import MAX_RETRIES, RETRIES_WATCHED
    from comparison_app.indexes import chosen_settings, needs_torch, open_retriever, rag_config
    from rag.torchfree import block_torch

    if bool(arguments.query) == bool(arguments.questions):
        raise ComparisonError("give a query, or --questions FILE")
    config = rag_config(arguments.preset, chosen_settings(arguments))
    if not needs_torch(config):
        block_torch()
    workspace = Workspace.resolve(arguments.workspace)
    corpus = workspace.corpus(arguments.corpus)
    retries = MAX_RETRIES if arguments.questions else RETRIES_WATCHED
    retriever = open_retriever(workspace, corpus, config, retries=retries)
    if arguments.questions:
        return _measure(arguments, retriever)
    return _search(arguments, retriever)


def _search(arguments: argparse.Namespace, retriever: Search) -> int:
    about = [arguments.about] if arguments.about else None
    chunks = retriever.retrieve_many([arguments.query], about, arguments.top, _filters(arguments.filter))[0]
    found = [
        {
            "document": chunk.meta["document"],
            "title": chunk.meta["title"],
            "section": chunk.meta["section"],
            "start": chunk.meta["start"],
            "end": chunk.meta["end"],
            "scores": chunk.meta["scores"],
            "text": chunk.content,
        }
        for chunk in chunks
    ]
    if arguments.json:
        print_json({"query": arguments.query, "found": found})
        return 0
    rows = [
        (
            row["document"],
            row["section"],
            _score(row, "fused"),
            _score(row, "dense"),
            _score(row, "lexical"),
            _shorten(row),
        )
        for row in found
    ]
    print_table("", ["document", "section", "fused", "dense", "BM25", "text"], rows, numbers_from=9)
    return 0


def _filters(conditions: list[str]) -> dict[str, Any] | None:
    """Return FIELD=VALUE conditions, all of which must hold, as a Haystack filter."""
    pairs = [condition.partition("=") for condition in conditions]
    if wrong := [name for name, sign, _ in pairs if not sign or not name]:
        raise ComparisonError(f"--filter {wrong[0]!r}: must read FIELD=VALUE, say language=en")
    found = [{"field": f"meta.{name}", "operator": "==", "value": value} for name, _, value in pairs]
    return {"operator": "AND", "conditions": found} if found else None


def _measure(arguments: argparse.Namespace, retriever: Search) -> int:
    from data_prep.questions import read_questions
    from rag.evaluation import evaluate_retrieval

    questions = [question for question in read_questions(arguments.questions) if question.evidence]
    if not questions:
        raise ComparisonError(f"{arguments.questions}: no question has evidence, so nothing can be measured")
    started = time.perf_counter()
    queries = [question.question for question in questions]
    retrieved = retriever.retrieve_many(queries, [question.about for question in questions], top_k=50)
    seconds = (time.perf_counter() - started) / len(questions)
    figures = {"questions": len(questions), **evaluate_retrieval(questions, retrieved), "seconds_per_query": seconds}
    if arguments.json:
        print_json(figures)
        return 0
    rows = [(name, f"{value:.4f}" if isinstance(value, float) else value) for name, value in figures.items()]
    print_table(str(arguments.questions), ["measure", "value"], rows)
    console().print("recall and rank are of the right document, each document counted once")
    return 0


def _score(row: dict[str, Any], stage: str) -> str:
    value = row["scores"].get(stage)
    return "–" if value is None else f"{value:.3f}"


def _shorten(row: dict[str, Any]) -> str:
    text = " ".join(row["text"].split())
    return text if len(text) <= 160 else text[:159] + "…"
