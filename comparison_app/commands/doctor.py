"""`versus doctor`: versions, devices, models and the workspace, in a table."""

from __future__ import annotations

import argparse
from typing import Any

from comparison_app.commands import add_command
from comparison_app.console import print_json, print_table
from comparison_app.workspace import Workspace


def register(subparsers: Any) -> None:
    """Add the command."""
    add_command(
        subparsers,
        "doctor",
        run,
        "show versions, devices, which models are usable offline, and what the workspace holds",
        "versus doctor",
    )


def run(arguments: argparse.Namespace) -> int:
    """Diagnose; exit code 1 if a bundled model cannot be used."""
    from comparison_app.doctor import diagnose

    found = diagnose(Workspace.resolve(arguments.workspace))
    if arguments.json:
        print_json(found)
    else:
        _show(found)
    return 0 if all(model["usable"] for model in found["models"]) else 1


def _show(found: dict[str, Any]) -> None:
    versions = [(name, version or "not installed") for name, version in found["versions"].items()]
    print_table("versions", ["package", "version"], versions, numbers_from=2)
    print_table("devices", ["what", "value"], _rows(found["devices"]), numbers_from=2)
    models = [(m["model"], m["role"], "usable" if m["usable"] else "NOT usable", m["detail"]) for m in found["models"]]
    print_table("models usable offline", ["model", "role", "state", "detail"], models, numbers_from=4)
    print_table("workspace", ["what", "value"], _rows(found["workspace"]), numbers_from=2)


def _rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), _plain(value)) for key, value in values.items()]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if value is None:
        return "unknown"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
