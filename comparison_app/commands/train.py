"""`versus train`: an adapter from a recipe and a corpus's questions, with the loss on screen."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command
from comparison_app.console import console, error_console, print_json
from comparison_app.errors import ComparisonError
from comparison_app.launching import add_launch_options, launch
from comparison_app.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_prep.corpus import Corpus
    from finetune.training import TrainingStep


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "train",
        run,
        "train an adapter on a corpus's questions, as a recipe says",
        "versus train pocket-live --corpus my-manual --name my-adapter",
        corpus=True,
    )
    parser.add_argument("recipe", help="a recipe that ships, by name, or a TOML file")
    parser.add_argument("--name", help="name of the adapter (default: CORPUS-RECIPE)")
    parser.add_argument("--model", help="base model instead of the recipe's")
    parser.add_argument("--subset", metavar="NAME", help="train a nested subset of the facts only, say 60")
    parser.add_argument(
        "--max-seconds", type=float, metavar="S", help="stop after this wall time, whatever the recipe says"
    )
    parser.add_argument(
        "--leave-out-long", action="store_true", help="train without questions that the model's context cannot hold"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    add_launch_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, and say how it went."""
    from dataclasses import replace

    from comparison_app.training import train_on_corpus
    from finetune.config import load_recipe
    from finetune.embedder import is_embedder_recipe
    from finetune.processes import is_first

    workspace = Workspace.resolve(arguments.workspace)
    corpus = workspace.corpus(arguments.corpus)
    if is_embedder_recipe(arguments.recipe):
        if arguments.launch:
            raise ComparisonError("an embedder is tuned in one process: leave --launch out")
        return _tune_embedder(arguments, workspace, corpus)
    recipe = load_recipe(arguments.recipe)
    if arguments.model:
        recipe = replace(recipe, model=replace(recipe.model, name=arguments.model))
    if arguments.max_seconds is not None:
        recipe = replace(recipe, optimisation=replace(recipe.optimisation, max_seconds=arguments.max_seconds))
    if arguments.leave_out_long:
        recipe = replace(recipe, data=replace(recipe.data, leave_out_long=True))
    name = arguments.name or f"{corpus.name}-{recipe.name}"
    if arguments.launch:
        return launch(arguments, recipe.model.dtype, _command(arguments, workspace, name))
    with live_loss(f"training {name}", quiet=arguments.json or not is_first()) as on_step:
        record = train_on_corpus(
            recipe, corpus, workspace, name, subset=arguments.subset, resume=arguments.resume, on_step=on_step
        )
    if not is_first():
        return 0
    losses = [loss for _, loss in record.losses]
    if arguments.json:
        print_json(
            {
                "adapter": name,
                "path": str(workspace.adapters / name),
                "questions": len(record.trained_ids),
                "left_out": len(record.left_out_ids),
                "steps": record.steps,
                "seconds": record.seconds,
                "first_loss": losses[0] if losses else None,
                "last_loss": losses[-1] if losses else None,
                "stopped": record.stopped,
            }
        )
        return 0
    shown = f"loss {losses[0]:.2f} → {losses[-1]:.3f}" if losses else "no step was made"
    left_out = f" ({len(record.left_out_ids)} too long, left out)" if record.left_out_ids else ""
    console().print(
        f"[bold]{name}[/bold]: {len(record.trained_ids)} questions{left_out}, {record.steps} steps in "
        f"{record.seconds:.0f} s, {shown} ({record.stopped}); {workspace.adapters / name}"
    )
    return 0


def _command(arguments: argparse.Namespace, workspace: Workspace, name: str) -> list[str]:
    """Return the command of one process of a training with `--launch`."""
    given = {
        "--corpus": arguments.corpus,
        "--name": name,
        "--workspace": workspace.path,
        "--model": arguments.model,
        "--subset": arguments.subset,
        "--max-seconds": arguments.max_seconds,
    }
    flags = {
        "--leave-out-long": arguments.leave_out_long,
        "--resume": arguments.resume,
        "--json": arguments.json,
        "--debug": arguments.debug,
    }
    options = [part for key, value in given.items() if value is not None for part in (key, str(value))]
    return ["train", arguments.recipe, *options, *(key for key, value in flags.items() if value)]


def _tune_embedder(arguments: argparse.Namespace, workspace: Workspace, corpus: Corpus) -> int:
    """Tune an embedder as the recipe says, and tell how to use it."""
    from dataclasses import replace

    from comparison_app.embedder_training import train_embedder_on_corpus
    from finetune.embedder import load_embedder_recipe
    from finetune.trainer import TrainingStep

    recipe = load_embedder_recipe(arguments.recipe)
    changed = {"model": arguments.model, "max_seconds": arguments.max_seconds}
    recipe = replace(recipe, **{key: value for key, value in changed.items() if value is not None})
    name = arguments.name or f"{corpus.name}-{recipe.name}"
    with live_loss(f"tuning {name}", quiet=arguments.json) as on_step:
        record = train_embedder_on_corpus(
            recipe,
            corpus,
            workspace,
            name,
            subset=arguments.subset,
            on_step=lambda step, total, loss: on_step(TrainingStep(step, total, loss, 0.0)),
        )
    path = workspace.path / "models" / name
    figures = {"questions": len(record.trained_ids), "steps": record.steps, "seconds": record.seconds}
    if arguments.json:
        losses = {"first_loss": record.losses[0][1], "last_loss": record.losses[-1][1]}
        print_json({"embedder": name, "path": str(path), **figures, **losses, "stopped": record.stopped})
        return 0
    console().print(
        f"[bold]{name}[/bold]: {len(record.trained_ids)} questions, {record.steps} steps in {record.seconds:.0f} s, "
        f"loss {record.losses[0][1]:.2f} → {record.losses[-1][1]:.3f} ({record.stopped}); "
        f"use it with --set embedder={path}",
        soft_wrap=True,
    )
    return 0


@contextmanager
def live_loss(label: str, *, quiet: bool = False) -> Iterator[Callable[[TrainingStep], None]]:
    """Yield a function that draws each training step: steps, loss, and a line of the loss so far."""
    if quiet:
        yield lambda step: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    history: list[float] = []
    with Progress(*columns, console=error_console()) as bars:
        task = bars.add_task(label, total=None, loss="loading the model")

        def on_step(step: TrainingStep) -> None:
            history.append(step.loss)
            bars.update(task, completed=step.step, total=step.total, loss=f"loss {step.loss:.3f} {_sparkline(history)}")

        yield on_step


def _sparkline(values: list[float], width: int = 24) -> str:
    """Draw values as a line of block characters, the newest on the right, from 0 to the largest."""
    size = max(1, -(-len(values) // width))
    means = [
        sum(values[start : start + size]) / len(values[start : start + size]) for start in range(0, len(values), size)
    ]
    top = max(means) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * value / top))] for value in means)
