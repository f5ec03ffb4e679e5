"""`versus prefer`: an adapter that learns which answers people preferred."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command, add_name_option
from comparison_app.console import console, print_json
from comparison_app.workspace import Workspace

if TYPE_CHECKING:
    from finetune.run_record import RunRecord


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "prefer",
        run,
        "train an adapter on people's votes (DPO): the answers they preferred, and those they did not",
        "versus prefer pocket-dpo --corpus my-manual --adapter my-adapter --name my-voted-adapter",
        corpus=True,
    )
    parser.add_argument("recipe", help="a recipe with a section [dpo]: pocket-dpo, mistral-7b-dpo, or a TOML file")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="JSONL of prompt, chosen, rejected (default: the workspace's votes on the corpus)",
    )
    parser.add_argument("--adapter", help="the adapter to go on from (default: a fresh one on the base model)")
    add_name_option(parser, "name of the new adapter (default: CORPUS-RECIPE)")
    parser.add_argument("--model", help="base model instead of the recipe's")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="stop after this wall time")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")


def run(arguments: argparse.Namespace) -> int:
    """Train, and say how far the preferences were taken up."""
    from dataclasses import replace

    from comparison_app.commands.train import live_loss
    from comparison_app.errors import ComparisonError
    from comparison_app.preferring import prefer_on_corpus
    from comparison_app.stopping import telling_what_is_left
    from finetune.checkpoints import seal_left
    from finetune.config import load_recipe

    workspace = Workspace.resolve(arguments.workspace)
    corpus = workspace.corpus(arguments.corpus)
    recipe = load_recipe(arguments.recipe)
    if arguments.model:
        recipe = replace(recipe, model=replace(recipe.model, name=arguments.model))
    if arguments.max_seconds is not None:
        recipe = replace(recipe, optimisation=replace(recipe.optimisation, max_seconds=arguments.max_seconds))
    name = arguments.name or f"{corpus.name}-{recipe.name}"
    if name == arguments.adapter:
        raise ComparisonError(f"--name {name} is the adapter to go on from: give the new one another name")
    start = workspace.adapter(arguments.adapter) if arguments.adapter else None
    with (
        telling_what_is_left(lambda: seal_left(workspace.adapters / name), resumed=arguments.resume),
        live_loss(f"training {name}", quiet=arguments.json) as on_step,
    ):
        record = prefer_on_corpus(
            recipe,
            corpus,
            workspace,
            name,
            start=start,
            data=arguments.data,
            resume=arguments.resume,
            on_step=on_step,
        )
    _show(name, workspace.adapters / name, record, as_json=arguments.json)
    return 0


def _show(name: str, path: Path, record: RunRecord, *, as_json: bool) -> None:
    told = record.preferences or {}
    if as_json:
        figures = {"steps": record.steps, "seconds": record.seconds, "stopped": record.stopped}
        print_json({"adapter": name, "path": str(path), **told, **figures})
        return
    console().print(
        f"[bold]{name}[/bold]: {told['pairs']} preferences, {record.steps} steps in {record.seconds:.0f} s "
        f"({record.stopped}); log-probability of the preferred answer over the other "
        f"{told['margin_before']:+.2f} → {told['margin_after']:+.2f}, grown for {told['grown']:.0%} of them; {path}"
    )
