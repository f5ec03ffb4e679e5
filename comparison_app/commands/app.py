"""`versus app`: the side-by-side web app."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from comparison_app.commands import add_command
from comparison_app.console import error_console
from comparison_app.errors import ComparisonError
from comparison_app.workspace import ENVIRONMENT_VARIABLE, Workspace

PAGES = Path(__file__).resolve().parent.parent / "web" / "app.py"
EXPERIMENT = "VERSUS_EXPERIMENT"
"""Environment variable that names an experiment where `--experiment` does not."""
LOCAL = ("localhost", "127.0.0.1", "::1")
_THEME = {
    "theme.light.primaryColor": "#2f5fd0",
    "theme.dark.primaryColor": "#4a78ea",
    "theme.light.backgroundColor": "#ffffff",
    "theme.dark.backgroundColor": "#14161b",
    "theme.dark.secondaryBackgroundColor": "#20242c",
    "theme.baseRadius": "0.5rem",
}


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(subparsers, "app", run, "open the side-by-side web app", "versus app --port 8501", corpus=True)
    parser.add_argument(
        "--experiment", metavar="FILE", help="ask the arms that an experiment declares (or $VERSUS_EXPERIMENT)"
    )
    parser.add_argument("--port", type=int, default=8501, help="where it listens (default: 8501)")
    parser.add_argument("--host", default="localhost", help="which address it listens on (default: localhost only)")
    parser.add_argument("--base-path", default="", metavar="PATH", help="path under which a reverse proxy shows it")
    parser.add_argument("--password-env", metavar="NAME", help="environment variable that holds a password to ask for")
    parser.add_argument(
        "--login", action="store_true", help="ask for a login by OpenID Connect, set up in .streamlit/secrets.toml"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def run(arguments: argparse.Namespace) -> NoReturn:
    """Become the app, until it is stopped; raises `VersusError` for what cannot be shown."""
    from comparison_app.experiment import find_experiment, load_experiment
    from comparison_app.login import check_login

    workspace = Workspace.resolve(arguments.workspace)
    workspace.corpus(arguments.corpus)  # what cannot be used is said here, not in the browser
    arguments.experiment = arguments.experiment or os.environ.get(EXPERIMENT) or None
    if arguments.experiment:
        load_experiment(find_experiment(arguments.experiment))
    if arguments.login:
        check_login()
    guarded = arguments.login or arguments.password_env
    if arguments.host not in LOCAL and not guarded:
        error_console().print(
            "[yellow]anybody who reaches this address can ask, change documents and train; "
            "see --password-env and --login[/yellow]"
        )
    command = [sys.executable, "-m", "streamlit", "run", str(PAGES), *_flags(arguments)]
    environment = _environment(arguments, workspace)
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # the app takes this process's place, and so its signals


def _flags(arguments: argparse.Namespace) -> list[str]:
    """Return Streamlit's settings as flags."""
    settings = {
        "server.address": arguments.host,
        "server.port": str(arguments.port),
        "server.headless": str(arguments.no_browser).lower(),
        "server.showEmailPrompt": "false",  # whoever never ran Streamlit would be asked before anything is shown
        "server.baseUrlPath": arguments.base_path.strip("/"),
        "server.maxUploadSize": "50",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "runner.postScriptGC": "false",  # a whole collection after every look at a page: 0.15 s each that all wait for
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        "client.showErrorLinks": "false",
        **_THEME,
    }
    return [f"--{name}={value}" for name, value in settings.items()]


def _environment(arguments: argparse.Namespace, workspace: Workspace) -> dict[str, str]:
    """Return what the pages read: workspace, corpus, arms, and who may come in."""
    environment = {**os.environ, ENVIRONMENT_VARIABLE: str(workspace.path.resolve())}
    environment.setdefault("VERSUS_EMBEDDING_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))  # pages need the rest
    for name in ("VERSUS_APP_PASSWORD", "VERSUS_APP_LOGIN"):
        environment.pop(name, None)
    if arguments.corpus:
        environment["VERSUS_CORPUS"] = arguments.corpus
    if arguments.experiment:
        environment[EXPERIMENT] = arguments.experiment
    if arguments.login:
        environment["VERSUS_APP_LOGIN"] = "1"
    if arguments.password_env:
        secret = os.environ.get(arguments.password_env)
        if not secret:
            raise ComparisonError(
                f"the environment variable {arguments.password_env} is not set; it must hold the password"
            )
        environment["VERSUS_APP_PASSWORD"] = secret
    return environment
