"""Recipe files of one task and one section, `task = "embedder"` say: found, told apart from adapters' and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from finetune.config import RECIPES, read_tables
from finetune.errors import RecipeError

Kind = TypeVar("Kind")
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}


def task_recipe_names(task: str) -> list[str]:
    """Return the names of the recipes of a task that ship, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.toml") if is_task_recipe(path, task))


def is_task_recipe(path_or_name: str | Path, task: str) -> bool:
    """Tell whether a recipe, by path or bundled name, is of this task; one that cannot be read is of none."""
    path = _find(path_or_name)
    try:
        return path is not None and read_tables(path).get("task") == task
    except RecipeError:
        return False


def load_task_recipe(path_or_name: str | Path, task: str, kind: type[Kind]) -> Kind:
    """Read a recipe into the dataclass `kind`: name, description, and the keys of the section named after the task.

    Raises `RecipeError` that names the file and every wrong key.
    """
    path = _find(path_or_name)
    if path is None:
        names = ", ".join(task_recipe_names(task))
        raise RecipeError(f"no {task} recipe {str(path_or_name)!r}; there are: {names}")
    tables = read_tables(path)
    values = tables.get(task, {})
    problems = [f"unknown key {key!r}" for key in sorted(tables.keys() - {"task", "description", task})]
    wrong = _wrong_values(values, task, kind) if isinstance(values, dict) else {"": f"[{task}] must be a table"}
    fitting = {key: values[key] for key in values.keys() - wrong.keys()} if isinstance(values, dict) else {}
    problems += wrong.values()
    make: Callable[..., Kind] = kind
    try:
        recipe = make(name=path.stem, description=str(tables.get("description", "")), **fitting)
    except RecipeError as error:
        problems += [f"[{task}]: {problem}" for problem in error.problems]
    if problems:
        raise RecipeError(f"{path}: {problems[0]}", *problems[1:])
    return recipe


def _wrong_values(values: dict[str, Any], task: str, kind: type[Any]) -> dict[str, str]:
    """Say by key which are not known, and whose values are of another type than the field of the same name."""
    kinds = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    allowed = kinds.keys() - {"name", "description"}
    problems = {}
    for key, value in values.items():
        if key not in allowed:
            problems[key] = f"[{task}]: unknown key {key!r}; allowed: {', '.join(sorted(allowed))}"
        elif isinstance(value, bool) or not isinstance(value, _TYPES[kinds[key].removesuffix(" | None")]):
            problems[key] = f"[{task}]: {key} is {value!r}; it must be {kinds[key]}"
    return problems


def _find(path_or_name: str | Path) -> Path | None:
    """Return the file of a recipe given by path or by bundled name; None if there is none."""
    path, bundled = Path(path_or_name), RECIPES / f"{path_or_name}.toml"
    if path.suffix == ".toml" and path.is_file():
        return path
    return bundled if path.name == str(path_or_name) and bundled.is_file() else None
