"""The command `versus`: its sub-commands, and how it fails.

Each sub-command is a module of `comparison_app.commands` with `register(subparsers)` and a handler that takes the
parsed arguments and returns the exit code: 0 done, 1 failed with one line, 2 usage. Everything heavy is imported inside
handlers, so that `versus --help` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from comparison_app.workspace import Workspace
from data_prep.errors import VersusError
from finetune.models import MODELS_VARIABLE

COMMANDS = (
    "demo",
    "scrape",
    "questions",
    "index",
    "search",
    "train",
    "pretrain",
    "tokenizer",
    "prefer",
    "export",
    "ask",
    "compare",
    "report",
    "app",
    "serve",
    "doctor",
)
_QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class _TellVersion(argparse.Action):
    """Prints the version installed, looked up only when it is asked for."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> NoReturn:
        from importlib.metadata import version

        print(f"versus {version('rag-vs-finetune')}")  # noqa: T201
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `versus` with all its sub-commands."""
    parser = argparse.ArgumentParser(
        prog="versus",
        description="Ask retrieval and a fine-tuned model the same questions; learn which to trust on your documents.",
        epilog="Start with `versus demo`. `versus COMMAND --help` shows each command's options and an example.",
    )
    parser.add_argument("--version", action=_TellVersion, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"comparison_app.commands.{name}").register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `versus`; returns the exit code."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    arguments = build_parser().parse_args(argv)
    _find_models_in(Workspace.resolve(arguments.workspace))
    try:
        return int(arguments.handler(arguments))
    except KeyboardInterrupt:
        return _fail("stopped; what was done is kept, and the same command goes on from there")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.debug:
            raise
        return _fail(_explain(error))


def _find_models_in(workspace: Workspace) -> None:
    """Let this process, and those that it starts, find the models of a workspace by name."""
    others = [place for place in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if place]
    own = str(workspace.models.resolve())
    os.environ[MODELS_VARIABLE] = os.pathsep.join([own, *(place for place in others if place != own)])


def _explain(error: Exception) -> str:
    if isinstance(error, VersusError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error} (this is a bug in versus; --debug shows where)"


def _fail(message: str) -> int:
    print("versus: error: " + " ".join(message.split()), file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
