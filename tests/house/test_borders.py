"""The house: who imports whom, what is light to import, what every package exports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = {
    "data_prep": set[str](),
    "rag": {"data_prep"},
    "finetune": {"data_prep"},
    "comparison_app": {"data_prep", "rag", "finetune"},
}
HEAVY = ("torch", "transformers", "trl", "peft", "haystack", "faiss", "sentence_transformers", "streamlit", "scipy")


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_the_design_allows(package: str, repository: Path) -> None:
    """`rag` and `finetune` know `data_prep` alone; nobody knows `comparison_app`."""
    files = sorted((repository / package).rglob("*.py"))
    assert files
    for path in files:
        crossed = (_imports(path) & ALLOWED.keys()) - ALLOWED[package] - {package}
        assert not crossed, f"{path.relative_to(repository)} imports {crossed}"


def test_only_the_web_pages_know_streamlit(repository: Path) -> None:
    """A library that knows the screen cannot be used without one."""
    for package in ALLOWED:
        for path in (repository / package).rglob("*.py"):
            if "web" not in path.parts:
                assert "streamlit" not in _imports(path), path


def test_no_junk_drawers(repository: Path) -> None:
    """A thing lives in the package that owns its idea."""
    names = {path.stem for package in ALLOWED for path in (repository / package).rglob("*")}
    assert not names & {"utils", "util", "common", "helpers", "helper", "core", "misc"}


@pytest.mark.parametrize("package", ALLOWED)
def test_modules_are_light_to_import(package: str, repository: Path) -> None:
    """No module loads a model library when it is imported; the web pages, which Streamlit runs, are apart."""
    modules = [
        ".".join(path.relative_to(repository).with_suffix("").parts)
        for path in sorted((repository / package).rglob("*.py"))
        if "web" not in path.parts and path.stem != "__main__"
    ]
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nprint([h for h in {HEAVY!r} if h in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
