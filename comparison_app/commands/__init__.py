"""One module for each sub-command of `versus`: its options, and what it prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from comparison_app.errors import ComparisonError
from comparison_app.workspace import run_name, training_name

Handler = Callable[[argparse.Namespace], int]


def add_command(
    subparsers: Any, name: str, handler: Handler, help_: str, example: str, *, corpus: bool = False
) -> argparse.ArgumentParser:
    """Add a sub-command with the options that all have; `example` stands at the end of its help."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=help_,
        description=help_[:1].upper() + help_[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(handler=handler)
    if corpus:
        parser.add_argument("--corpus", help="a corpus, by path or name (default: the sample manual)")
    parser.add_argument("--workspace", help="where all that is made lives (default: $VERSUS_WORKSPACE or ./workspace)")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_retrieval_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose how and where a corpus is indexed and searched."""
    parser.add_argument("--preset", help="retrieval settings: default, car-manual or intent-labels")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one retrieval setting as in an experiment's [arms.rag], say --set reranker=sentences",
    )
    parser.add_argument(
        "--store", metavar="ADDRESS", help="where the index lies: milvus://HOST:PORT/NAME (default: the workspace)"
    )


def add_name_option(
    parser: argparse.ArgumentParser, help_: str, *, required: bool = False, of_run: bool = False
) -> None:
    """Add `--name`, which is a folder of the workspace and is refused if it cannot be one (a run's may hold spaces)."""
    parser.add_argument("--name", type=_checked(run_name if of_run else training_name), required=required, help=help_)


def _checked(naming: Callable[[str], str]) -> Callable[[str], str]:
    """Return `naming` as a type of argparse's, whose errors it prints with the option's name."""

    def name(text: str) -> str:
        try:
            return naming(text)
        except ComparisonError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return name
