"""`versus ask`: one question to several arms, their answers side by side, with sources."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command
from comparison_app.console import console, print_json
from comparison_app.errors import ComparisonError
from comparison_app.kinds import ADAPTED, CLOSED_BOOK, EXTRACTIVE, KINDS
from comparison_app.workspace import Workspace
from data_prep.questions import Question

if TYPE_CHECKING:
    from rich.console import RenderableType

    from comparison_app.experiment import ArmSpec
    from comparison_app.passages import Passage, Picture
    from comparison_app.predictions import Prediction
    from data_prep.corpus import Corpus

NO_ANSWER = "no answer in the documents"


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers,
        "ask",
        run,
        "ask one question to several arms, side by side",
        'versus ask "How long does a full charge take at home?" --arms rag,finetuned',
        corpus=True,
    )
    parser.add_argument("question", help="what to ask")
    parser.add_argument(
        "--arms", default="rag-extractive,rag,finetuned", help=f"kinds of arm, separated by commas: {', '.join(KINDS)}"
    )
    parser.add_argument("--model", default="pocket", help="base model: pocket, a folder, or a Hugging Face id")
    parser.add_argument("--adapter", help="adapter of the fine-tuned arms (default: the newest one for this corpus)")
    parser.add_argument("--raft-adapter", help="adapter of the arm raft (default: likewise, trained with context)")
    parser.add_argument("--quantization", choices=["nf4"], help="load the base model in 4 bits")
    parser.add_argument("--endpoint", metavar="URL", help="ask --model at an OpenAI-compatible endpoint instead")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the endpoint's key")
    parser.add_argument(
        "--cite",
        action=argparse.BooleanOptionalAction,
        help="ask the models that read for the numbers of their sources; default: those that can give them",
    )
    parser.add_argument("--about", metavar="DOCUMENT", help="ask of this one document only")


def run(arguments: argparse.Namespace) -> int:
    """Ask every arm; exit code 1 only if all of them failed."""
    from comparison_app.asking import check_question

    check_question(arguments.question)
    workspace = Workspace.resolve(arguments.workspace)
    kinds = _kinds(arguments.arms)
    if kinds == [EXTRACTIVE]:
        from rag.torchfree import block_torch

        block_torch()
    corpus = workspace.corpus(arguments.corpus)
    from comparison_app.arms import ArmFactory
    from comparison_app.endpoints import RETRIES_WATCHED
    from comparison_app.indexes import indexed_text
    from comparison_app.passages import passages

    factory = ArmFactory(workspace, corpus, retries=RETRIES_WATCHED)
    question = Question(id="asked", question=arguments.question, about=arguments.about)
    predictions = []
    for kind in kinds:
        arm = factory.build(_spec(kind, arguments, workspace, corpus), batch_size=1)
        predictions += list(arm.answer([question]))
    sources = [passages(prediction, corpus, partial(indexed_text, workspace, corpus)) for prediction in predictions]
    if arguments.json:
        answers = [_as_json(*each) for each in zip(predictions, sources, strict=True)]
        print_json({"question": arguments.question, "corpus": corpus.name, "answers": answers})
    else:
        _show(arguments.question, predictions, sources)
    return 1 if all(prediction.error for prediction in predictions) else 0


def _kinds(text: str) -> list[str]:
    kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ComparisonError(f"--arms knows no {', '.join(unknown) or 'empty list'}; it knows {', '.join(KINDS)}")
    return list(dict.fromkeys(kinds))


def _spec(kind: str, arguments: argparse.Namespace, workspace: Workspace, corpus: Corpus) -> ArmSpec:
    """Declare the arm of one kind as the command line asks for it."""
    from comparison_app.experiment import ArmSpec

    if kind == EXTRACTIVE:
        return ArmSpec(kind, kind, model=None)
    adapter = None
    if kind in ADAPTED:
        given = arguments.raft_adapter if kind == "raft" else arguments.adapter
        adapter = given or newest_adapter(workspace, corpus, context=kind == "raft")
    endpoint = None if adapter else arguments.endpoint
    return ArmSpec(
        kind,
        kind,
        model=arguments.model,
        adapter=adapter,
        quantization=arguments.quantization,
        endpoint=endpoint,
        api_key_env=arguments.api_key_env if endpoint else None,
        rag={} if arguments.cite is None or kind in CLOSED_BOOK else {"cite": arguments.cite},
    )


def newest_adapter(workspace: Workspace, corpus: Corpus, *, context: bool) -> str:
    """Return the newest adapter that was trained on this corpus's questions, with or without context."""
    from finetune.run_record import read_run_record

    ids = {question.id for question in corpus.questions("train")}
    records = {name: read_run_record(workspace.adapter(name)) for name in workspace.adapter_names()}
    fitting = [name for name, record in records.items() if record.context == context and ids & set(record.trained_ids)]
    if not fitting:
        recipe = "pocket-raft" if context else "pocket-live"
        raise ComparisonError(
            f"no adapter was trained on {corpus.name}; `versus train {recipe} --corpus {corpus.name}` trains one, "
            "or leave the fine-tuned arms out with --arms rag,rag-extractive"
        )
    return max(fitting, key=lambda name: records[name].finished)


def _as_json(prediction: Prediction, sources: list[Passage]) -> dict[str, Any]:
    """Return a prediction with its sources in words beside it."""
    named = [
        {
            "document": source.document,
            "title": source.title,
            "section": source.section,
            "page": source.page,
            "url": source.link,
            "start": source.start,
            "end": source.end,
            "quotes": [text for text, marked in source.pieces if marked],
            "pictures": [{"title": picture.words, "path": str(picture.file)} for picture in source.pictures],
        }
        for source in sources
    ]
    unsupported = [text for text, is_unsupported in prediction.pieces if is_unsupported]
    return {**asdict(prediction), "sources": named, "unsupported": unsupported}


def _show(question: str, predictions: list[Prediction], sources: list[list[Passage]]) -> None:
    from rich.columns import Columns

    out = console()
    out.print(f"[bold]{_escape(question)}[/bold]\n")
    width = max(36, out.width // min(len(predictions), 3) - 2)
    panels = [_panel(*each, width) for each in zip(predictions, sources, strict=True)]
    out.print(Columns(panels, equal=True))


def _panel(prediction: Prediction, sources: list[Passage], width: int) -> RenderableType:
    from rich.panel import Panel

    if prediction.error:
        body, style = f"[red]failed: {_escape(prediction.error)}[/red]", "red"
    elif prediction.abstained:
        body, style = f"[dim]{NO_ANSWER}[/dim]", "dim"
    else:
        body, style = "".join(_piece(*piece) for piece in prediction.pieces), "green"
    for number, source in enumerate(sources, start=1):
        body += f"\n[dim]\\[{number}] {_escape(source.where)} ({_escape(source.document)}:{source.start}–{source.end})"
        body += f"\n    {_escape(source.link)}" if source.link else ""
        body += "".join(f"\n    picture: {_named(picture)}" for picture in source.pictures)
        body += "[/dim]"
    return Panel(body, title=prediction.arm, subtitle=f"{prediction.seconds:.2f} s", border_style=style, width=width)


def _piece(text: str, unsupported: bool) -> str:
    """Return a piece of an answer; a sentence that no source carries is marked."""
    return f"[yellow]{_escape(text)} (not in the sources)[/yellow]" if unsupported else _escape(text)


def _named(picture: Picture) -> str:
    file = "/".join(picture.file.parts[-2:])
    return _escape(f"{picture.words}, {file}" if picture.words else file)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
