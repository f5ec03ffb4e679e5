"""`versus pretrain`: continue a model's pretraining on your own text, as a recipe says."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command, add_name_option
from comparison_app.commands.train import live_loss
from comparison_app.console import console, print_json, print_table, progress_bar
from comparison_app.device_lock import only_training
from comparison_app.errors import ComparisonError
from comparison_app.launching import add_launch_options, launch
from comparison_app.stopping import telling_what_is_left
from comparison_app.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from finetune.continual_recipe import ContinualRecipe
    from finetune.forgetting import MultipleChoice
    from finetune.pretraining import Step
    from finetune.run_record import RunRecord


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "pretrain",
        run,
        "continue a causal model's pretraining on your own text, as a recipe says; the model lands in the workspace",
        "versus pretrain continual --model pocket --text manuals/ --name pocket-manuals",
    )
    parser.add_argument("recipe", help="a recipe that ships (continual, pocket-pretrain), or a TOML file")
    add_name_option(parser, "name of the model (default: MODEL-RECIPE)")
    parser.add_argument("--model", help="base model instead of the recipe's: pocket, a name here, a folder, an id")
    parser.add_argument(
        "--text", action="append", metavar="PATH", help="file or folder of new text instead of the recipe's; repeatable"
    )
    parser.add_argument(
        "--general", action="append", metavar="PATH", help="text to replay against forgetting; repeatable"
    )
    parser.add_argument("--replay", type=float, metavar="SHARE", help="share of the rows that are general text")
    parser.add_argument("--steps", type=int, help="optimiser steps instead of the recipe's")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="stop after this time, the rate decayed by then")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    add_launch_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pretrain, and say what it brought."""
    from comparison_app.preparing import general_checks
    from finetune.checkpoints import identity_left
    from finetune.models import default_device
    from finetune.pocket.pretrain import staged_recipe
    from finetune.processes import is_first

    if (stages := staged_recipe(arguments.recipe)) is not None:
        return _run_stages(arguments, stages)
    recipe = _recipe(arguments)
    workspace = Workspace.resolve(arguments.workspace)
    name = arguments.name or f"{recipe.model.name.strip('/').rpartition('/')[2]}-{recipe.name}"
    output = workspace.models / name
    if arguments.sharded and not arguments.launch:
        raise ComparisonError("--sharded is for several processes: add --launch")
    with telling_what_is_left(lambda: identity_left(output), resumed=arguments.resume, what="what is done"):
        if arguments.launch:
            _require_rows(recipe, arguments)
            return launch(arguments, recipe.model.dtype, _command(arguments, workspace))
        with only_training(workspace, default_device(), name):
            record = _pretrained(arguments, recipe, name, output, general_checks(workspace))
    if is_first():
        _report(arguments, name, output, record)
    return 0


def _require_rows(recipe: ContinualRecipe, arguments: argparse.Namespace) -> None:
    """Raise if the processes named are more than a step's rows, before any of them is started."""
    rows, count = recipe.pretraining.rows, (arguments.processes or 1) * arguments.nodes
    if count > rows:
        raise ComparisonError(
            f"{count} processes share the rows of a step, and the recipe has {rows}: set pretraining.rows to {count} "
            "or more, a multiple of it at best"
        )


def _report(arguments: argparse.Namespace, name: str, output: Path, record: RunRecord) -> None:
    if arguments.json:
        print_json(_figures(name, output, record))
    else:
        _show(name, output, record)


def _command(arguments: argparse.Namespace, workspace: Workspace) -> list[str]:
    """Return the command of one process of a run with `--launch`."""
    given = {
        "--name": [arguments.name],
        "--workspace": [workspace.path],
        "--model": [arguments.model],
        "--text": arguments.text or [],
        "--general": arguments.general or [],
        "--replay": [arguments.replay],
        "--steps": [arguments.steps],
        "--max-seconds": [arguments.max_seconds],
    }
    flags = {"--resume": arguments.resume, "--json": arguments.json, "--debug": arguments.debug}
    options = [part for key, values in given.items() for value in values if value is not None for part in (key, value)]
    return ["pretrain", arguments.recipe, *map(str, options), *(key for key, value in flags.items() if value)]


def _recipe(arguments: argparse.Namespace) -> ContinualRecipe:
    """Return the recipe with what the command line says instead."""
    from finetune.continual_recipe import load_continual_recipe

    changes = {
        "model_name": arguments.model,
        "text_files": arguments.text,
        "text_general": arguments.general,
        "text_replay": arguments.replay,
        "pretraining_steps": arguments.steps,
        "pretraining_max_seconds": arguments.max_seconds,
    }
    return load_continual_recipe(
        arguments.recipe, **{key: value for key, value in changes.items() if value is not None}
    )


def _pretrained(
    arguments: argparse.Namespace, recipe: ContinualRecipe, name: str, output: Path, general: Sequence[MultipleChoice]
) -> RunRecord:
    """Run the recipe with its progress on screen."""
    from finetune.continual import continue_pretraining
    from finetune.processes import is_first
    from finetune.trainer import TrainingStep

    with ExitStack() as bars:
        quiet = arguments.json or not is_first()
        reading = bars.enter_context(progress_bar("reading the text", quiet=quiet))
        drawn: list[Callable[[TrainingStep], None]] = []

        def on_step(step: Step) -> None:
            if not drawn:
                bars.close()
                drawn.append(bars.enter_context(live_loss(f"pretraining {name}", quiet=quiet)))
            drawn[0](TrainingStep(step.step, step.total, step.loss, step.seconds))

        return continue_pretraining(
            recipe, output, general=general, resume=arguments.resume, on_bytes=reading, on_step=on_step
        )


def _run_stages(arguments: argparse.Namespace, recipe: Path) -> int:
    """Run a recipe of stages, such as pocket's own, on the folder of its shards."""
    from comparison_app.preparing import general_checks
    from finetune.checkpoints import identity_left
    from finetune.models import default_device
    from finetune.pocket.pretrain import pretrain_stages
    from finetune.trainer import TrainingStep

    unused = {
        "--general": arguments.general,
        "--replay": arguments.replay,
        "--steps": arguments.steps,
        "--max-seconds": arguments.max_seconds,
        "--launch": arguments.launch or arguments.sharded,
    }
    if given := [option for option, value in unused.items() if value]:
        raise ComparisonError(f"{recipe.stem} is a recipe of stages, which say it themselves: leave out {given[0]}")
    texts = arguments.text or [place for place in [os.environ.get("VERSUS_PRETRAIN_DATA")] if place]
    if arguments.model is None or len(texts) != 1:
        raise ComparisonError(
            f"{recipe.stem} needs --model, a base made by `versus tokenizer swap … --as-decoder`, and one --text, the "
            "folder of the shards (or $VERSUS_PRETRAIN_DATA)"
        )
    workspace = Workspace.resolve(arguments.workspace)
    name = arguments.name or f"{arguments.model.strip('/').rpartition('/')[2]}-{recipe.stem}"
    output = workspace.models / name
    with (
        telling_what_is_left(lambda: identity_left(output), resumed=arguments.resume, what="what is done"),
        only_training(workspace, default_device(), name),
        live_loss(f"pretraining {name}", quiet=arguments.json) as drawn,
    ):
        record = pretrain_stages(
            recipe,
            arguments.model,
            Path(texts[0]),
            output,
            general=general_checks(workspace),
            resume=arguments.resume,
            on_step=lambda step: drawn(TrainingStep(step.step, step.total, step.loss, step.seconds)),
        )
    _report(arguments, name, output, record)
    return 0


def _figures(name: str, output: Path, record: RunRecord) -> dict[str, Any]:
    """Return what the command prints as JSON."""
    return {
        "model": name,
        "path": str(output),
        "steps": record.steps,
        "tokens": record.trained_tokens,
        "epochs": record.epochs,
        "seconds": record.seconds,
        "first_loss": record.losses[0][1] if record.losses else None,
        "last_loss": record.losses[-1][1] if record.losses else None,
        "before": record.figures["before"],
        "after": record.figures["after"],
        "tokens_per_second": record.figures.get("tokens_per_second"),
        "general": record.forgetting or record.forgetting_unasked,
        "stopped": record.stopped,
    }


def _show(name: str, output: Path, record: RunRecord) -> None:
    """Print what it brought, for people."""
    rows = [
        (key.replace("_", " "), f"{before:.3f}", f"{record.figures['after'][key]:.3f}")
        for key, before in record.figures["before"].items()
    ]
    if rows:
        print_table("held-back text", ["lower is better", "before", "after"], rows)
    told = record.forgetting
    if told is None:
        console().print(f"general questions: not asked, since {record.forgetting_unasked}", soft_wrap=True)
    else:
        share = f"{told['before']:.0%} before, {told['after']:.0%} after"
        console().print(f"general questions right, of {told['questions']:.0f}: {share}")
    console().print(
        f"[bold]{name}[/bold]: {record.trained_tokens:,} tokens ({record.epochs:g} passes), {record.steps} steps in "
        f"{record.seconds:.0f} s ({record.stopped}); {output}",
        soft_wrap=True,
    )
