"""Pocket adapted to Russian: what a new vocabulary holds, and what its embeddings' start is worth, in one run.

    python benchmarks/russian.py [--steps 250] [--packages FOLDER] [--work FOLDER] [--json]

The Russian help of LibreOffice and GIMP is fetched from Debian (`apt-get download`, unpacked with `dpkg -x`, nothing is
installed) and converted by Versus's own converter; pages in another language are left out. A byte-level BPE is trained
on it and swapped into pocket, once with the mean of each token's old pieces, once with random embeddings; both are
then pretrained on the same rows. Words per token and bits per character are of pages that were held back.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.cleaning import language_of
from data_prep.convert import convert_file
from data_prep.errors import DataError, VersusError
from finetune.continual import continue_pretraining
from finetune.continual_recipe import continual_recipe
from finetune.models import load_base
from finetune.prepared_text import text_number
from finetune.swapped_model import swap_model
from finetune.text_rows import bits_per_character
from finetune.tokenizer import fertility_table, open_tokenizer, train_tokenizer_folder

PACKAGES = ("libreoffice-help-ru", "gimp-help-ru")
HELD_BACK = 0.03
MEASURED = 60_000
"""Characters of the held-back pages on which bits per character are measured."""


class MissingDataError(VersusError):
    """The packages cannot be fetched or unpacked here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns 1 with one line if the packages cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, default=250, help="of 8 rows of 256 tokens, for each of the two (default: 250)"
    )
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--pages", type=int, help="so many of the pages only, for a quick look")
    parser.add_argument("--packages", type=Path, metavar="FOLDER", help="where the two .deb files lie already")
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="keep everything there, and go on from what is there"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="russian-") as temporary:
        try:
            found = run(options, options.work or Path(temporary))
        except VersusError as error:
            print(f"russian: {error}", file=sys.stderr)
            return 1
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else as_text(found))
    return 0


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Fetch, convert, train the vocabulary, swap it both ways, pretrain both; return the figures."""
    work.mkdir(parents=True, exist_ok=True)
    pages = russian_pages(options.packages, work)[: options.pages]
    held = [page for page in pages if text_number(page) < HELD_BACK * 2**64]
    kept = [page for page in pages if text_number(page) >= HELD_BACK * 2**64]
    write_pages(work / "train.jsonl", kept)
    write_pages(work / "held-out.jsonl", held)
    train_tokenizer_folder([work / "train.jsonl"], work / "tokenizer", vocabulary=options.vocabulary)
    names = {"pocket": "pocket", "adapted": str(work / "tokenizer")}
    table = fertility_table({name: open_tokenizer(place) for name, place in names.items()}, {"ru": held})["ru"]
    found: dict[str, Any] = {
        "pages": len(kept),
        "held_back": len(held),
        "characters": sum(map(len, kept)),
        "words_per_token": {name: round(each.words_per_token, 4) for name, each in table.items()},
        "characters_per_token": {name: round(each.characters_per_token, 4) for name, each in table.items()},
        "times_words_per_token": round(table["adapted"].words_per_token / table["pocket"].words_per_token, 2),
    }
    found["unadapted_bits_per_character"] = round(unadapted(held), 4)
    for initialisation in ("mean", "random"):
        found[initialisation] = trained(options, work, initialisation)
    return found


def unadapted(held: Sequence[str]) -> float:
    """Return the bits that pocket as it is, with its own vocabulary, needs for a character of the held-back pages."""
    texts, room = [], MEASURED
    for page in held:
        texts.append(page[: max(0, room)])
        room -= len(page)
    model = load_base("pocket", device="cpu")
    return bits_per_character(model, open_tokenizer("pocket"), [text for text in texts if text])


def trained(options: argparse.Namespace, work: Path, initialisation: str) -> dict[str, Any]:
    """Swap the vocabulary in and pretrain; return bits per character before, on the way and after."""
    base = work / f"swapped-{initialisation}"
    swap_model("pocket", str(work / "tokenizer"), base, initialisation=initialisation)
    recipe = continual_recipe(
        {
            "model": {"name": str(base)},
            "text": {
                "files": [str(work / "train.jsonl")],
                "validation": [str(work / "held-out.jsonl")],
                "validation_characters": MEASURED,
            },
            "pretraining": {
                "steps": options.steps,
                "rows": 8,
                "row_length": 256,
                "learning_rate": options.learning_rate,
                "warmup_steps": max(1, options.steps // 12),
                "evaluate_every": max(1, options.steps // 5),
                "checkpoint_every": 50,
            },
        },
        name=initialisation,
        source="russian",
    )
    record = continue_pretraining(recipe, work / f"trained-{initialisation}", resume=True)
    course = [[int(each["tokens"]), each["bits_per_character"]] for each in record.figures["course"]]
    return {
        "tokens": record.trained_tokens,
        "seconds": round(record.seconds),
        "before": record.figures["before"]["bits_per_character"],
        "course": course,
        "after": record.figures["after"]["bits_per_character"],
    }


def russian_pages(packages: Path | None, work: Path) -> list[str]:
    """Return the Russian pages of the two packages as markdown; converted once for a work folder."""
    path = work / "pages.jsonl"
    if not path.is_file():
        tree = unpacked(packages or fetched(work / "packages"), work / "unpacked")
        write_pages(path, convert(tree))
        shutil.rmtree(tree)
    return [str(json.loads(line)["text"]) for line in path.read_text(encoding="utf-8").splitlines()]


def fetched(folder: Path) -> Path:
    """Fetch the packages with apt-get into `folder`; raises MissingDataError where there is no apt or no archive."""
    if shutil.which("apt-get") is None:
        raise MissingDataError(
            f"there is no apt-get here: fetch {' and '.join(PACKAGES)} elsewhere and give --packages FOLDER"
        )
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["apt-get", "download", *PACKAGES],
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingDataError(f"apt-get download failed ({reason}): run apt-get update, or give --packages FOLDER")
    return folder


def unpacked(folder: Path, into: Path) -> Path:
    """Unpack the packages of `folder`; nothing is installed."""
    if shutil.which("dpkg") is None:
        raise MissingDataError("there is no dpkg here to unpack Debian's packages with")
    for package in PACKAGES:
        files = sorted(folder.glob(f"{package}_*.deb"))
        if not files:
            raise MissingDataError(f"{folder} holds no {package}_*.deb")
        subprocess.run(["dpkg", "-x", str(files[-1]), str(into)], check=True)
    return into


def convert(tree: Path) -> list[str]:
    """Return the Russian pages under `tree` as markdown, each once."""
    found: dict[str, None] = {}
    for path in sorted(tree.rglob("*.html")):
        try:
            text = "\n\n".join(part.markdown for part in convert_file(path))
        except DataError:
            continue
        if language_of(text) == "ru":
            found.setdefault(text)
    if not found:
        raise MissingDataError(f"{tree}: no Russian page was found in the packages")
    return sorted(found, key=text_number)


def write_pages(path: Path, texts: Sequence[str]) -> None:
    """Write texts as JSONL, whole or not at all."""
    temporary = path.with_suffix(".partial")
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)


def as_text(found: dict[str, Any]) -> str:
    """Return the figures as lines."""
    words, characters = found["words_per_token"], found["characters_per_token"]
    lines = [
        f"{found['pages']} pages ({found['characters']:,} characters) to learn from, {found['held_back']} held back",
        f"words per token:      pocket {words['pocket']:.3f}, adapted {words['adapted']:.3f}: "
        f"{found['times_words_per_token']:.2f} times (goal: 1.5)",
        f"characters per token: pocket {characters['pocket']:.3f}, adapted {characters['adapted']:.3f}",
        f"bits per character:   pocket as it is {found['unadapted_bits_per_character']:.3f}",
    ]
    for kind in ("mean", "random"):
        one = found[kind]
        course = ", ".join(f"{tokens:,}: {bits:.3f}" for tokens, bits in one["course"])
        lines.append(
            f"{kind:>6} start: {one['before']:.3f} → {one['after']:.3f} bits per character, {one['tokens']:,} tokens "
            f"in {one['seconds']} s ({course})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
