"""`versus app`: the side-by-side web app."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from comparison_app.commands import add_command
from comparison_app.workspace import ENVIRONMENT_VARIABLE, Workspace

PAGES = Path(__file__).resolve().parent.parent / "web" / "app.py"


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(subparsers, "app", run, "open the side-by-side web app", "versus app --port 8501", corpus=True)
    parser.add_argument("--port", type=int, default=8501, help="where it listens (default: 8501)")
    parser.add_argument("--host", default="localhost", help="which address it listens on (default: localhost only)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def run(arguments: argparse.Namespace) -> int:
    """Serve the app until it is stopped."""
    workspace = Workspace.resolve(arguments.workspace)
    workspace.corpus(arguments.corpus)  # a corpus that cannot be used is said here, not in the browser
    settings = {
        "server.address": arguments.host,
        "server.port": str(arguments.port),
        "server.headless": str(arguments.no_browser).lower(),
        "server.maxUploadSize": "50",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    environment = {**os.environ, ENVIRONMENT_VARIABLE: str(workspace.path.resolve())}
    if arguments.corpus:
        environment["VERSUS_CORPUS"] = arguments.corpus
    command = [sys.executable, "-m", "streamlit", "run", str(PAGES), *flags]
    return subprocess.run(command, env=environment, check=False).returncode
