"""`versus train`: an adapter from a recipe and a corpus's questions, with the loss on screen."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command, add_name_option
from comparison_app.console import console, error_console, print_json
from comparison_app.errors import ComparisonError
from comparison_app.launching import add_launch_options, launch
from comparison_app.stopping import telling_what_is_left
from comparison_app.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_prep.corpus import Corpus
    from finetune.calibration import Abstention
    from finetune.config import Recipe
    from finetune.run_record import RunRecord
    from finetune.training import TrainingStep

FOR_ADAPTERS = ("--launch", "--calibrate", "--leave-out-long")
FOR_CORPORA = ("--corpus", "--subset", "--max-seconds")


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
    add_name_option(parser, "name of the adapter (default: CORPUS-RECIPE)")
    parser.add_argument("--model", help="base model instead of the recipe's")
    parser.add_argument("--subset", metavar="NAME", help="train a nested subset of the facts only, say 60")
    parser.add_argument(
        "--max-seconds", type=float, metavar="S", help="stop after this wall time, whatever the recipe says"
    )
    parser.add_argument(
        "--leave-out-long", action="store_true", help="train without questions that the model's context cannot hold"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--calibrate", action="store_true", help="find on the dev questions how sure a closed-book answer must be"
    )
    parser.add_argument("--data", metavar="FILE", help="recipes of classifiers: JSONL or CSV of text and label")
    parser.add_argument("--onnx", action="store_true", help="recipes of classifiers: write ONNX beside the weights")
    add_launch_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, and say how it went."""
    from comparison_app.training import train_on_corpus
    from finetune.checkpoints import seal_left
    from finetune.classifier_data import is_classifier_recipe
    from finetune.embedder import is_embedder_recipe
    from finetune.processes import is_first

    workspace = Workspace.resolve(arguments.workspace)
    _refuse_adapters_options(arguments, is_classifier_recipe(arguments.recipe), is_embedder_recipe(arguments.recipe))
    if is_classifier_recipe(arguments.recipe):
        return _train_classifier(arguments, workspace)
    if arguments.data or arguments.onnx:
        raise ComparisonError("--data and --onnx belong to recipes of classifiers; others train on a --corpus")
    corpus = workspace.corpus(arguments.corpus)
    if is_embedder_recipe(arguments.recipe):
        return _tune_embedder(arguments, workspace, corpus)
    recipe = _recipe(arguments)
    name = arguments.name or f"{corpus.name}-{recipe.name}"
    if arguments.calibrate and (recipe.data.context or not corpus.questions("dev")):
        raise ComparisonError("--calibrate needs a recipe that trains closed-book, and dev questions in the corpus")
    with telling_what_is_left(lambda: seal_left(workspace.adapters / name), resumed=arguments.resume):
        if arguments.launch:
            return launch(arguments, recipe.model.dtype, _command(arguments, workspace))
        with live_loss(f"training {name}", quiet=arguments.json or not is_first()) as on_step:
            record = train_on_corpus(
                recipe, corpus, workspace, name, subset=arguments.subset, resume=arguments.resume, on_step=on_step
            )
    if is_first():
        threshold = _calibrate(recipe, corpus, workspace, name) if arguments.calibrate else None
        _report(arguments, name, workspace.adapters / name, record, threshold)
    return 0


def _refuse_adapters_options(arguments: argparse.Namespace, classifier: bool, embedder: bool) -> None:
    """Raise if an option is given that the recipe's kind has not, instead of leaving it aside silently."""
    given = [name for name in FOR_ADAPTERS if getattr(arguments, name.strip("-").replace("-", "_"))]
    if (classifier or embedder) and given:
        raise ComparisonError(f"{', '.join(given)} is for adapters: leave it out for classifiers and embedders")
    unread = [name for name in FOR_CORPORA if getattr(arguments, name.strip("-").replace("-", "_")) is not None]
    if classifier and unread:
        raise ComparisonError(f"{', '.join(unread)} is not for classifiers, which train on --data FILE: leave it out")


def _train_classifier(arguments: argparse.Namespace, workspace: Workspace) -> int:
    """Train a classifier of texts, and tell how well it does on those held out."""
    from comparison_app.classifier_training import train_classifier_on_file
    from finetune.checkpoints import seal_left
    from finetune.classifier_data import load_classifier_recipe
    from finetune.trainer import TrainingStep

    if not arguments.data:
        raise ComparisonError("a classifier is trained on labelled texts: give --data FILE (JSONL or CSV: text, label)")
    recipe = load_classifier_recipe(arguments.recipe)
    head, name = recipe.mode == "head", arguments.name or f"{Path(arguments.data).stem}-{recipe.name}"
    if head and arguments.resume:
        error_console().print("a head trains in seconds and keeps no checkpoints: it starts anew", soft_wrap=True)
    with (
        telling_what_is_left(lambda: seal_left(workspace.models / name), resumed=arguments.resume),
        live_loss(f"training {name}", quiet=head or arguments.json) as on_step,
    ):
        told = train_classifier_on_file(
            arguments.recipe,
            Path(arguments.data),
            workspace,
            name,
            model=arguments.model,
            onnx=arguments.onnx,
            resume=arguments.resume,
            on_step=lambda step, total, loss: on_step(TrainingStep(step, total, loss, 0.0)),
        )
    if arguments.json:
        print_json(told)
        return 0
    accuracy = "none held out" if told["dev_accuracy"] is None else f"{told['dev_accuracy']:.1%} of them right"
    cut = f" ({told['cut']} of them longer than max_length, and cut)" if told["cut"] else ""
    console().print(
        f"[bold]{told['classifier']}[/bold]: {len(told['labels'])} labels, {told['examples']} texts{cut}, "
        f"{told['dev_examples']} held out ({accuracy}); {told['epochs']} epochs in {told['seconds']:.0f} s "
        f"({told['stopped']}); {told['path']}",
        soft_wrap=True,
    )
    return 0


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """Return the recipe with what the command line changes in it."""
    from dataclasses import replace

    from finetune.config import load_recipe

    recipe = load_recipe(arguments.recipe)
    if arguments.model:
        recipe = replace(recipe, model=replace(recipe.model, name=arguments.model))
    if arguments.max_seconds is not None:
        recipe = replace(recipe, optimisation=replace(recipe.optimisation, max_seconds=arguments.max_seconds))
    if arguments.leave_out_long:
        recipe = replace(recipe, data=replace(recipe.data, leave_out_long=True))
    return recipe


def _calibrate(recipe: Recipe, corpus: Corpus, workspace: Workspace, name: str) -> Abstention | None:
    """Calibrate the new adapter; None, and a line that says why, where its answers allow no threshold."""
    from comparison_app.closed_book import calibrate_adapter
    from finetune.answering import LocalModel
    from finetune.errors import FinetuneError

    try:
        model = LocalModel(recipe.model.name, quantization=recipe.model.quantization)
        model.add_adapter(name, workspace.adapters / name)
        return calibrate_adapter(
            model.generator(name), workspace.adapters / name, corpus.questions("dev"), corpus.language
        )
    except FinetuneError as error:
        error_console().print(f"{name} answers whatever it is asked: {error}", markup=False, soft_wrap=True)
        return None
    except KeyboardInterrupt:
        raise ComparisonError(f"stopped; {name} is trained, and answers whatever it is asked") from None


def _report(
    arguments: argparse.Namespace, name: str, path: Path, record: RunRecord, threshold: Abstention | None
) -> None:
    """Print what was trained, and how surely it has to answer."""
    losses = [loss for _, loss in record.losses]
    if arguments.json:
        figures = {
            "adapter": name,
            "path": str(path),
            "questions": len(record.trained_ids),
            "left_out": len(record.left_out_ids),
            "steps": record.steps,
            "seconds": record.seconds,
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "stopped": record.stopped,
            "forgetting": record.forgetting,
        }
        print_json({**figures, **({"abstention": asdict(threshold)} if threshold else {})})
        return
    shown = f"loss {losses[0]:.2f} → {losses[-1]:.3f}" if losses else "no step was made"
    left_out = f" ({len(record.left_out_ids)} left out)" if record.left_out_ids else ""
    console().print(
        f"[bold]{name}[/bold]: {len(record.trained_ids)} questions{left_out}, {record.steps} steps in "
        f"{record.seconds:.0f} s, {shown} ({record.stopped}); {path}"
    )
    if threshold is not None:
        console().print(
            f"answers under a mean log-probability of {threshold.abstain_below:.2f} are withheld: of the "
            f"{threshold.questions} dev answers {threshold.kept:.0%} of the right ones are given, "
            f"{threshold.withheld:.0%} of the wrong ones not (ROC AUC {threshold.roc_auc:.2f})"
        )


def _command(arguments: argparse.Namespace, workspace: Workspace) -> list[str]:
    """Return the command of one process of a training with `--launch`."""
    given = {
        "--corpus": arguments.corpus,
        "--name": arguments.name,
        "--workspace": workspace.path,
        "--model": arguments.model,
        "--subset": arguments.subset,
        "--max-seconds": arguments.max_seconds,
    }
    flags = {
        "--leave-out-long": arguments.leave_out_long,
        "--resume": arguments.resume,
        "--calibrate": arguments.calibrate,
        "--json": arguments.json,
        "--debug": arguments.debug,
    }
    options = [part for key, value in given.items() if value is not None for part in (key, str(value))]
    return ["train", arguments.recipe, *options, *(key for key, value in flags.items() if value)]


def _tune_embedder(arguments: argparse.Namespace, workspace: Workspace, corpus: Corpus) -> int:
    """Tune an embedder as the recipe says, and tell how to use it."""
    from dataclasses import replace

    from comparison_app.embedder_training import train_embedder_on_corpus
    from finetune.checkpoints import seal_left
    from finetune.embedder import load_embedder_recipe
    from finetune.trainer import TrainingStep

    recipe = load_embedder_recipe(arguments.recipe)
    changed = {"model": arguments.model, "max_seconds": arguments.max_seconds}
    recipe = replace(recipe, **{key: value for key, value in changed.items() if value is not None})
    name = arguments.name or f"{corpus.name}-{recipe.name}"
    path = workspace.models / name
    with (
        telling_what_is_left(lambda: seal_left(path), resumed=arguments.resume),
        live_loss(f"tuning {name}", quiet=arguments.json) as on_step,
    ):
        record = train_embedder_on_corpus(
            recipe,
            corpus,
            workspace,
            name,
            subset=arguments.subset,
            resume=arguments.resume,
            on_step=lambda step, total, loss: on_step(TrainingStep(step, total, loss, 0.0)),
        )
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
