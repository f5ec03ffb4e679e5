"""`versus serve`: every arm as a model of an OpenAI-compatible endpoint, and the documents API."""

from __future__ import annotations

import argparse
import os
from typing import Any

from comparison_app.commands import add_command
from comparison_app.commands.app import EXPERIMENT, LOCAL
from comparison_app.console import error_console
from comparison_app.errors import ComparisonError
from comparison_app.workspace import Workspace


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "serve",
        run,
        "serve every arm as a model of an OpenAI-compatible endpoint",
        "versus serve --corpus my-manual --port 8000",
        corpus=True,
    )
    parser.add_argument(
        "--experiment", metavar="FILE", help="serve the arms that an experiment declares (or $VERSUS_EXPERIMENT)"
    )
    parser.add_argument("--port", type=int, default=8000, help="where it listens (default: 8000)")
    parser.add_argument("--host", default="127.0.0.1", help="which address it listens on (default: this machine only)")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the key callers send")


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped; raises `ComparisonError` for what cannot be served."""
    import uvicorn

    from comparison_app.arm_pool import ArmPool
    from comparison_app.library import Library
    from comparison_app.serve.api import Service, create_app

    workspace = Workspace.resolve(arguments.workspace)
    corpus = workspace.corpus(arguments.corpus)
    key = os.environ.get(arguments.api_key_env) if arguments.api_key_env else None
    if arguments.api_key_env and not key:
        raise ComparisonError(f"the environment variable {arguments.api_key_env} is not set; it must hold the key")
    out = error_console()
    if arguments.host not in LOCAL and not key:
        out.print("[yellow]anybody who reaches this address can ask and change documents; see --api-key-env[/yellow]")
    pool = ArmPool(workspace, arguments.experiment or os.environ.get(EXPERIMENT) or None)
    pool.spare_torch()
    service = Service(pool, Library(workspace, pool.renew), arguments.corpus, key)
    out.print(f"{corpus.name}: {', '.join(spec.name for spec in pool.specs(corpus))}", markup=False)
    out.print(f"http://{arguments.host}:{arguments.port}/v1", markup=False)
    uvicorn.run(create_app(service), host=arguments.host, port=arguments.port, log_level="warning", access_log=False)
    return 0
