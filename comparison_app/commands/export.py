"""`versus export`: an adapter as something that others load: merged, quantised, GGUF, a hub's repository, Ollama."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command
from comparison_app.console import console, print_json
from comparison_app.errors import ComparisonError
from comparison_app.workspace import Workspace

if TYPE_CHECKING:
    from comparison_app.exporting import AnswerFigures

TARGETS = ("merged", "int8", "int4", "gguf", "hub", "ollama")
DTYPES = ("bfloat16", "float16", "float32")
GGUF_TYPES = ("f16", "bf16", "f32", "q8_0")


@dataclasses.dataclass(frozen=True)
class _Job:
    """What every target is told."""

    arguments: argparse.Namespace
    workspace: Workspace
    name: str
    adapter: Path
    into: Path


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "export",
        run,
        "turn an adapter into a model that others load: merged, in 8 or 4 bits, GGUF, on a hub, for Ollama",
        "versus export my-adapter --to int4 --corpus my-manual",
        corpus=True,
    )
    parser.add_argument("adapter", help="the adapter, by name or path")
    parser.add_argument("--to", required=True, choices=TARGETS, help="what to make of it")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="where to (default: models/ADAPTER-TO)")
    parser.add_argument("--dtype", choices=DTYPES, help="merged: weights written (default: as the base's)")
    parser.add_argument("--type", choices=GGUF_TYPES, default="f16", help="gguf, ollama: weights written")
    parser.add_argument(
        "--questions",
        type=int,
        default=32,
        metavar="N",
        help="merged, int8, int4: trained questions asked before and after",
    )
    parser.add_argument("--repo", metavar="OWNER/NAME", help="hub: the repository")
    parser.add_argument("--public", action="store_true", help="hub: a repository that everybody can read")
    parser.add_argument("--dry-run", action="store_true", help="hub: write the folder, push nothing")
    parser.add_argument("--merged", action="store_true", help="hub: share the merged model, not the adapter")
    parser.add_argument("--licence", help="hub: the licence in the card (default: the base model's own)")
    parser.add_argument("--run", metavar="RUN", help="hub: a run whose scores go into the card")


def run(arguments: argparse.Namespace) -> int:
    """Export, and say what came out."""
    workspace = Workspace.resolve(arguments.workspace)
    adapter = workspace.adapter(arguments.adapter)
    into = arguments.into or workspace.models / f"{adapter.name}-{arguments.to}"
    if into.resolve() == adapter.resolve():
        raise ComparisonError(f"--into {into} is the adapter itself: name another folder")
    job = _Job(arguments, workspace, adapter.name, adapter, into)
    makers: dict[str, Callable[[_Job], dict[str, Any]]] = {
        "merged": _merged,
        "int8": _quantised,
        "int4": _quantised,
        "gguf": _gguf,
        "hub": _hub,
        "ollama": _ollama,
    }
    told = {"adapter": job.name, "to": arguments.to, **makers[arguments.to](job)}
    if arguments.json:
        print_json({key: value for key, value in told.items() if key != "said"})
    else:
        console().print(f"[bold]{job.name}[/bold]: {told['said']}", soft_wrap=True)
    return 0


def _merged(job: _Job) -> dict[str, Any]:
    """Fold the adapter into its base."""
    from finetune.export import merge_adapter, stored_dtype
    from finetune.models import model_folder
    from finetune.run_record import read_run_record

    dtype = job.arguments.dtype or stored_dtype(model_folder(read_run_record(job.adapter).base_model))
    report = merge_adapter(job.adapter, job.into, dtype=dtype)
    said = (
        f"merged into {report.folder} ({_megabytes(report.size_bytes)}, {report.dtype}); loaded again, its logits "
        f"differ from base and adapter by {report.largest_difference:.1e} of the largest"
    )
    told, measured = _answers(_figures(job, report.folder, fold=False), memory=True)
    return {
        "path": str(report.folder),
        "dtype": report.dtype,
        "size_bytes": report.size_bytes,
        "largest_difference": report.largest_difference,
        "figures": told,
        "said": said + measured,
    }


def _quantised(job: _Job) -> dict[str, Any]:
    """Quantise, and measure what it costs on questions that the adapter was trained on."""
    from finetune.export_quantised import quantise_adapter

    report = quantise_adapter(job.adapter, job.into, job.arguments.to)
    told: dict[str, Any] = {**dataclasses.asdict(report), "path": str(report.folder)}
    del told["folder"]
    said = (
        f"{report.kind} in {report.folder}: {_megabytes(report.size_before)} → {_megabytes(report.size_bytes)} on "
        f"disk, {_megabytes(report.memory_before)} → {_megabytes(report.memory_bytes)} in memory"
    )
    told["figures"], measured = _answers(_figures(job, report.folder))
    return {**told, "said": said + measured}


def _answers(
    figures: tuple[AnswerFigures, AnswerFigures] | None, *, memory: bool = False
) -> tuple[dict[str, Any] | None, str]:
    """Return what asking the adapter and what came of it brought, for machines and in words."""
    if figures is None:
        return None, "; answers not measured (no trained question of the corpus)"
    before, after = figures
    told = {
        "before": dataclasses.asdict(before),
        "after": dataclasses.asdict(after),
        "f1_lost": before.token_f1 - after.token_f1,
    }
    held = f"; {_megabytes(before.memory_bytes)} → {_megabytes(after.memory_bytes)} in memory" if memory else ""
    return told, (
        f"{held}; {before.tokens_per_second:.0f} → {after.tokens_per_second:.0f} tokens/s; token F1 "
        f"{before.token_f1:.3f} → {after.token_f1:.3f} on {before.questions} trained questions"
    )


def _figures(job: _Job, folder: Path, *, fold: bool | None = None) -> tuple[AnswerFigures, AnswerFigures] | None:
    """Return how the adapter and the model made of it answer; None where no question can be asked.

    `fold=False` asks the adapter beside its base, and not folded into it as arms have a small one.
    """
    from comparison_app.exporting import measure_answers, trained_questions
    from finetune.run_record import read_run_record

    record = read_run_record(job.adapter)
    if job.arguments.questions < 1 or record.context:
        return None
    corpus = job.workspace.corpus(job.arguments.corpus)
    questions = trained_questions(corpus, record.trained_ids, job.arguments.questions)
    if not questions:
        return None
    before = measure_answers(record.base_model, questions, job.adapter, fold=fold)
    return before, measure_answers(str(folder), questions)


def _gguf(job: _Job) -> dict[str, Any]:
    """Merge, and have llama.cpp convert it."""
    from finetune.export_gguf import convert_to_gguf

    merged = _standing(job)
    with merged as folder:
        report = convert_to_gguf(folder, job.into / f"{job.name}-{job.arguments.type}.gguf", kind=job.arguments.type)
    said = (
        f"{report.file} ({_megabytes(report.size_bytes)}, {report.kind}, architecture {report.architecture}, "
        f"{report.tensors} tensors)"
    )
    told = dataclasses.asdict(report)
    return {**told, "file": str(report.file), "path": str(report.file), "said": said}


def _ollama(job: _Job) -> dict[str, Any]:
    """Merge, write what Ollama takes, and a Modelfile."""
    from finetune.export import merge_adapter, stored_dtype
    from finetune.export_gguf import check_architecture, convert_to_gguf
    from finetune.export_ollama import needs_gguf, write_modelfile
    from finetune.models import load_tokenizer, model_folder
    from finetune.new_folders import check_replaceable
    from finetune.run_record import read_run_record

    check_replaceable(job.into)
    base = model_folder(read_run_record(job.adapter).base_model)
    check_architecture(base)
    weights = "."
    if needs_gguf(base):
        with _standing(job) as folder:
            report = convert_to_gguf(folder, job.into / "model.gguf", kind=job.arguments.type)
            weights = report.file.name
            _copy_settings(folder, job.into)
    else:
        merge_adapter(job.adapter, job.into, dtype=stored_dtype(base))
    known = write_modelfile(job.into, weights, load_tokenizer(str(job.into)))
    template = f"template {known.name}" if known else "no template that is known: Ollama's own recognition decides"
    said = f"{job.into / 'Modelfile'} ({template}); now: ollama create {job.name} -f {job.into / 'Modelfile'}"
    return {"path": str(job.into), "weights": weights, "template": known.name if known else None, "said": said}


def _hub(job: _Job) -> dict[str, Any]:
    """Write the folder with its card, and push it."""
    from comparison_app.exporting import card_scores
    from finetune.export_hub import check_repository, push, stage

    arguments = job.arguments
    if not arguments.repo and not arguments.dry_run:
        raise ComparisonError("--to hub needs --repo OWNER/NAME, or --dry-run to see what would be pushed")
    if arguments.repo:
        check_repository(arguments.repo)
    scores = card_scores(job.workspace, arguments.run, job.name) if arguments.run else []
    staged = stage(
        job.adapter,
        job.into,
        name=arguments.repo.rpartition("/")[2] if arguments.repo else job.name,
        licence=arguments.licence,
        merged=arguments.merged,
        scores=scores,
        run=arguments.run or "",
    )
    files = dict(staged.files)
    listed = ", ".join(f"{name} ({_megabytes(size)})" for name, size in staged.files)
    if arguments.dry_run:
        said = f"nothing was pushed; {staged.folder} holds what would be: {listed}"
        return {"path": str(staged.folder), "files": files, "pushed": None, "said": said}
    address = push(staged, arguments.repo, private=not arguments.public)
    return {"path": str(staged.folder), "files": files, "pushed": address, "said": f"pushed to {address}: {listed}"}


def _standing(job: _Job) -> Any:
    """Return a context that gives the merged model in a folder that is gone afterwards; checks come first."""
    from contextlib import contextmanager

    from finetune.export import exact_dtype, merge_adapter
    from finetune.export_gguf import check_architecture, find_converter
    from finetune.models import model_folder
    from finetune.run_record import read_run_record

    base = read_run_record(job.adapter).base_model
    check_architecture(model_folder(base))
    find_converter()

    @contextmanager
    def merged() -> Any:
        with tempfile.TemporaryDirectory(prefix="versus-merged-") as temporary:
            folder = Path(temporary) / job.name
            merge_adapter(job.adapter, folder, dtype=exact_dtype(base))
            yield folder

    return merged()


def _copy_settings(source: Path, target: Path) -> None:
    """Copy what describes a model, without its weights."""
    import shutil

    for path in source.iterdir():
        if path.suffix in (".json", ".jinja", ".model"):
            shutil.copyfile(path, target / path.name)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
