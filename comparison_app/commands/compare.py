"""`versus compare`: an experiment's arms asked the same questions, scored and reported."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command, add_name_option
from comparison_app.console import console, error_console, print_json, print_table
from comparison_app.prices import money_in_words
from comparison_app.stopping import telling_what_is_left
from comparison_app.workspace import Workspace

if TYPE_CHECKING:
    from comparison_app.comparison import Comparison, Hooks
    from comparison_app.judging.settings import JudgeSettings
    from comparison_app.planned_trainings import PlannedTraining
    from comparison_app.planning import Plan
    from comparison_app.runner import RunProgress


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "compare",
        run,
        "put all arms of an experiment to the same questions, and report which to trust where",
        "versus compare experiments/manual-full.toml",
    )
    parser.add_argument("experiment", help="an experiment file, or the name of one that ships")
    add_name_option(parser, "name of the run (default: the experiment's name and the time)", of_run=True)
    parser.add_argument("--resume", action="store_true", help="continue the newest run of this experiment, or --name")
    parser.add_argument("--plan", action="store_true", help="ask nothing; say what the run could see, take and cost")
    parser.add_argument(
        "--difference", type=float, default=10.0, metavar="POINTS", help="with --plan: the gap that matters (10)"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help='spread the work over a Ray cluster ("local" starts one here)')
    judging = parser.add_mutually_exclusive_group()
    judging.add_argument(
        "--judge",
        metavar="MODEL[@URL]",
        help="have the answers judged: by a model here, or at an OpenAI-compatible URL",
    )
    judging.add_argument("--no-judge", action="store_true", help="leave out the judge that the experiment names")
    parser.add_argument("--budget", type=float, metavar="MONEY", help="what the judge may cost at most")


def run(arguments: argparse.Namespace) -> int:
    """Run the comparison and show its result."""
    from comparison_app.comparison import Comparison
    from comparison_app.experiment import find_experiment
    from comparison_app.judging.settings import judge_settings

    workspace = Workspace.resolve(arguments.workspace)
    path = find_experiment(arguments.experiment)
    trainings = _planned(path, workspace) if arguments.plan else ()
    if not arguments.plan:
        _make_adapters(path, workspace, quiet=arguments.json)
    to_come = [item.adapter for item in trainings if item.needed]
    comparison = Comparison.prepare(path, workspace, planned=to_come)
    settings = comparison.experiment.judge
    judge = None if arguments.no_judge else judge_settings(settings, arguments.judge, arguments.budget)
    if arguments.plan:
        return _plan(comparison, arguments.difference / 100, judge, trainings, as_json=arguments.json)
    name = arguments.name or _run_name(workspace, comparison.experiment.name, resume=arguments.resume)
    run_file = workspace.runs / name / "run.json"
    with (
        telling_what_is_left(
            lambda: run_file if run_file.exists() else None, resumed=arguments.resume, what="the last answer"
        ),
        live_hooks(quiet=arguments.json) as hooks,
    ):
        folder = comparison.run(name, resume=arguments.resume, hooks=hooks, judge=judge, ray=arguments.ray)
    show_run(folder, as_json=arguments.json)
    return 0


def _make_adapters(path: Path, workspace: Workspace, *, quiet: bool) -> None:
    """Train the adapters that the experiment brings along."""
    from comparison_app.commands.train import live_loss
    from comparison_app.experiment import load_experiment
    from comparison_app.preparing import prepare_adapters, trainings_of

    experiment = load_experiment(path)
    if trainings_of(experiment):
        say = (lambda text: None) if quiet else (lambda text: error_console().print(f"· {text}", markup=False))
        corpus = workspace.corpus(experiment.corpus)
        prepare_adapters(experiment, corpus, workspace, partial(live_loss, quiet=quiet), say)


def _planned(path: Path, workspace: Workspace) -> tuple[PlannedTraining, ...]:
    """Return the trainings that a run would begin with."""
    from comparison_app.experiment import load_experiment
    from comparison_app.planned_trainings import plan_trainings

    experiment = load_experiment(path)
    return plan_trainings(experiment, workspace.corpus(experiment.corpus), workspace)


def _plan(
    comparison: Comparison,
    difference: float,
    judge: JudgeSettings | None,
    trainings: tuple[PlannedTraining, ...],
    *,
    as_json: bool,
) -> int:
    """Show what a run would see, take and cost."""
    from comparison_app.errors import ExperimentError
    from comparison_app.index_times import ArmIndexes
    from comparison_app.planning import make_plan

    if not 0 < difference <= 1:
        raise ExperimentError("--difference must be more than 0 and at most 100 points")
    experiment, workspace = comparison.experiment, comparison.workspace
    built = ArmIndexes(workspace, comparison.corpus, experiment.arms).building()["seconds"]
    plan = make_plan(experiment, comparison.questions, workspace.runs, difference, trainings, built)
    judging = None if judge is None else _plan_judge(comparison, judge)
    if as_json:
        print_json({**plan.as_dict(), "judge": judging})
        return 0
    asked = ", ".join(f"{count} {name}" for name, count in plan.slices.items())
    title = f"{plan.experiment}: {plan.questions} questions ({asked})"
    rows = [
        [f"{row.a} − {row.b}", row.slice, row.metric, row.questions, row.documents, _points(row.detectable),
         "–" if row.needed is None else f"{row.needed:,}", row.source]
        for row in plan.comparisons
    ]  # fmt: skip
    needed = f"questions for {100 * difference:g} points"
    print_table(
        title, ["pair", "slice", "metric", "questions", "documents", "seen 4 in 5", needed, "spread from"], rows
    )
    _show_trainings(plan)
    header = ["arm", "time", plan.currency, "from"]
    arms = [[row.arm, _time(row.seconds), money_in_words(row.cost), row.source] for row in plan.arms]
    if any(spec.retrieves for spec in experiment.arms):
        money = None if plan.indexing is None else plan.indexing * experiment.machine_price / 3600
        source = "last build" if plan.indexing else "none"
        arms.append(["indexing, at most", _time(plan.indexing), money_in_words(money), source])
    print_table("", header, [*arms, ["together", _time(plan.seconds), money_in_words(plan.cost), ""]])
    if plan.unknown:
        unknown = ", ".join(plan.unknown)
        console().print(f"Not known yet, and not in the sum: {unknown}. A run of a few questions tells.", markup=False)
    if judge is not None and judging is not None:
        from comparison_app.judging.run import estimate_in_words

        console().print(f"Beside them {estimate_in_words(judge, judging, plan.currency)}.", markup=False)
    return 0


def _show_trainings(plan: Plan) -> None:
    """Show the adapters that the run would train first, and those that are there."""
    if not plan.trainings:
        return
    rows = [
        [item.adapter, item.recipe, item.questions, "will be trained" if item.needed else "there already",
         _time(item.seconds), money_in_words(item.cost), item.source]
        for item in plan.trainings
    ]  # fmt: skip
    print_table("", ["adapter", "recipe", "questions", "", "time", plan.currency, "from"], rows)


def _plan_judge(comparison: Comparison, judge: JudgeSettings) -> dict[str, Any]:
    """Return what the judge will cost at most."""
    from comparison_app.judging.run import CACHE, planned_judge

    cache = comparison.workspace.path / CACHE
    return planned_judge(comparison.experiment, comparison.questions, comparison.corpus, judge, cache)


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} points"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _run_name(workspace: Workspace, experiment: str, *, resume: bool) -> str:
    """Return a new run's name, or with `resume` that of the experiment's newest run."""
    made = sorted(path.parent.name for path in workspace.runs.glob(f"{experiment}-*/experiment.toml"))
    if resume and made:
        return made[-1]
    return workspace.new_run_name(experiment)


@contextmanager
def live_hooks(*, quiet: bool = False) -> Iterator[Hooks]:
    """Yield hooks that show stages and a progress bar on standard error."""
    from comparison_app.comparison import Hooks

    if quiet:
        yield Hooks()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    err = error_console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=err) as bars:
        task = bars.add_task("", total=None, left="", visible=False)

        def indexing(done: int, total: int) -> None:
            bars.update(task, description="  chunks embedded", completed=done, total=total, left="", visible=total > 0)

        def asking(now: RunProgress) -> None:
            left = f"{now.seconds_left:.0f} s left" if now.seconds_left is not None else ""
            bars.update(task, description=f"  {now.arm}", completed=now.done, total=now.total, left=left, visible=True)

        def judging(done: int, total: int) -> None:
            bars.update(task, description="  judgements", completed=done, total=total, left="", visible=total > 0)

        def stage(text: str) -> None:
            bars.update(task, visible=False)
            bars.reset(task)
            bars.print(f"[bold]·[/bold] {text}")

        yield Hooks(stage=stage, indexing=indexing, asking=asking, judging=judging)
        bars.update(task, visible=False)


def show_run(folder: Path, *, as_json: bool = False) -> None:
    """Print a run's scores by slice with intervals, its latency and verdict; or its summary as JSON."""
    from comparison_app.report.directions import part_in_words
    from comparison_app.summary import read_summary

    summary = read_summary(folder / "summary.json")
    if as_json:
        print_json(summary)
        return
    metric = summary["primary_metric"]
    slices = [name for name in _slices(summary) if any(_shown(arm, name, metric) for arm in summary["arms"].values())]
    header = ["arm", *map(_folded, slices), "refusals\nright", "p50 s"]
    rows = [
        [
            name.replace("-", "-\n"),
            *(_shown(arm, slice_, metric) or "–" for slice_ in slices),
            _refusals(arm),
            _seconds(arm),
        ]
        for name, arm in summary["arms"].items()
    ]
    title = f"{summary['experiment']}: {metric} × 100, {summary['questions']} questions (95 % interval)"
    print_table(title, header, rows, narrow=True)
    failed = {name: arm["errors"] for name, arm in summary["arms"].items() if arm["errors"]}
    out = console()
    for name, count in failed.items():
        out.print(f"[red]{name} failed on {count} questions; they count as wrong[/red]")
    out.print(f"\n{summary['verdict']}\n", markup=False)
    for item in summary.get("directions", ()):
        out.print(f"{item['outcome']}: {item['claim']}", markup=False)
        for part in item["parts"]:
            out.print(f"    {part_in_words(part)}", markup=False)
    out.print(f"report: {folder / 'report.html'}", markup=False)


def _folded(name: str) -> str:
    """Return a name on two lines where it has a place for it, so that the table fits a terminal of 80 columns."""
    return name.replace("paraphrase", "para-phrase").replace("-", "-\n", 1)


def _slices(summary: dict[str, Any]) -> list[str]:
    first = next(iter(summary["arms"].values()))
    return [name for name in first["slices"] if name != "unanswerable"]


def _shown(arm: dict[str, Any], slice_: str, metric: str) -> str | None:
    found = arm["slices"].get(slice_, {}).get(metric)
    if found is None:
        return None
    if found["low"] is None:
        return f"{100 * found['mean']:.0f}"
    return f"{100 * found['mean']:.0f}\n({100 * found['low']:.0f}–{100 * found['high']:.0f})"


def _refusals(arm: dict[str, Any]) -> str:
    found = arm["slices"].get("unanswerable", {}).get("abstention_accuracy")
    return "–" if found is None else f"{100 * found['mean']:.0f} %"


def _seconds(arm: dict[str, Any]) -> str:
    middle = arm["latency"]["p50"]
    return "–" if middle is None else f"{middle:.3f}"
