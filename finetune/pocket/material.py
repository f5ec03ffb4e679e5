"""What pocket is made of: vocabulary, swapped base, token file, examples and neighbours, each kept in a work folder.

Vocabulary and base are made by the functions behind `versus tokenizer train` and `versus tokenizer swap`.
"""

from __future__ import annotations

import random
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError
from finetune.pocket.asked import AskedFacts, read_asked, without
from finetune.pocket.copying import IdentityLoss, identity_loss
from finetune.pocket.heads import READ_LAYERS, encoder_layers, place_of
from finetune.pocket.instruct import ASKED, LEVELS, Example, examples, fact_by_rule, read_examples, write_examples
from finetune.pocket.neighbours import Neighbours, find_neighbours, read_neighbours, write_neighbours
from finetune.pocket.text import SHARDS, VALIDATION, read_pages
from finetune.swapped_model import MINILM, swap_model
from finetune.text_rows import write_tokens
from finetune.tokenizer import open_tokenizer, train_tokenizer_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Material:
    """All that a stage is trained and measured with; `texts` and `held_out` are never trained on."""

    tokenizer: PreTrainedTokenizerBase
    text: Path
    """The plain text as token ids."""
    taught: dict[str, list[Example]]
    texts: tuple[str, ...]
    held_out: dict[str, list[Example]]
    base: Path
    neighbours: Neighbours


def make_tokenizer(data: Path, work: Path, settings: dict[str, Any]) -> Path:
    """Train the vocabulary on a sample of the text, unless it lies in `work`; return its folder."""
    folder, sample = work / "tokenizer", dict(settings["sample"])
    if not (folder / "tokenizer.json").is_file():
        train_tokenizer_folder(
            [data / f"{shard}.jsonl.xz" for shard in sample],
            folder,
            vocabulary=settings["vocabulary"],
            share=list(sample.values()),
            seed=settings["seed"],
        )
    return folder


def make_base(work: Path, tokenizer: Path, layers: Sequence[int] = ()) -> Path:
    """Load MiniLM, or these layers of it, as a decoder, swap its vocabulary, save it to `work`; return the folder."""
    folder = work / "base"
    if not (folder / "model.safetensors").is_file():
        swap_model(MINILM, str(tokenizer), folder, as_decoder=True, layers=layers)
    return folder


def gather(data: Path, work: Path, base: Path, settings: dict[str, Any]) -> Material:
    """Make, or find in `work`, what the stages that start from `base` need. Raises FinetuneError."""
    tokenizer = open_tokenizer(str(base))
    text = make_text(data, work, tokenizer, settings["text"])
    taught, held = make_examples(data, work, settings["examples"])
    return Material(
        tokenizer=tokenizer,
        text=text,
        taught=taught,
        texts=tuple(page["text"][:2500] for page in read_pages(data / VALIDATION)),
        held_out=held,
        base=base,
        neighbours=make_neighbours(work, taught),
    )


def fit_identity(material: Material) -> IdentityLoss:
    """Fit the loss that keeps tokens readable on the base as it was before its first stage."""
    import torch
    from transformers import AutoModelForCausalLM

    fresh = AutoModelForCausalLM.from_pretrained(material.base, dtype=torch.bfloat16, local_files_only=True).eval()
    watched = {place_of(layer, encoder_layers(fresh.config)) for layer in READ_LAYERS}
    return identity_loss(fresh, sample_ids(material.text, 200), sorted(watched))


def make_text(data: Path, work: Path, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any]) -> Path:
    """Write the plain text as token ids to `work`, pages in random order; return the file."""
    path = work / "text.u16"
    if not path.is_file():
        pages = [page["text"] for shard in SHARDS[: settings["shards"]] for page in read_pages(data / shard)]
        random.Random(settings["seed"]).shuffle(pages)
        write_tokens(pages[: settings["pages"]], tokenizer, path)
    return path


def make_examples(
    data: Path, work: Path, settings: dict[str, Any]
) -> tuple[dict[str, list[Example]], dict[str, list[Example]]]:
    """Write examples of every level to `work`; return those to train on and those held out."""
    trained = SHARDS[: settings["shards"]]
    for kind, shards in (("train", trained), ("held-out", (VALIDATION,))):
        wanted = [level for level in LEVELS if not (work / f"{kind}-{level}.jsonl").is_file()]
        pages = [page for shard in shards for page in read_pages(data / shard)] if wanted else []
        asked = read_asked()
        if kind == "held-out" and any(level.startswith(ASKED) for level in wanted):
            asked = without(asked, (page["text"] for shard in trained for page in read_pages(data / shard)))
        for level in wanted:
            path = work / f"{kind}-{level}.jsonl"
            write_examples(path.with_suffix(".partial"), _level_examples(level, pages, settings, asked))
            path.with_suffix(".partial").replace(path)
    both = [
        {level: read_examples(work / f"{kind}-{level}.jsonl") for level in LEVELS} for kind in ("train", "held-out")
    ]
    return both[0], {level: found[: settings["held_out"]] for level, found in both[1].items()}


def _level_examples(
    level: str, pages: Sequence[dict[str, str]], settings: dict[str, Any], questions: Mapping[str, tuple[str, ...]]
) -> Iterator[Example]:
    """Make the examples of one level; drafted `questions` are asked several times, each time of pages cut anew."""
    seed, per_page = settings["seed"], settings["per_page"]
    if not level.startswith(ASKED):
        return examples(pages, LEVELS[level], fact_by_rule, seed=seed, per_page=per_page)
    asked = AskedFacts(questions)
    held = [page for page in pages if asked.of_page(page["text"])]
    rounds = range(settings.get("asked_rounds", 1))
    return (
        each
        for number in rounds
        for each in examples(held, LEVELS[level], asked.draw, seed=seed + number, per_page=sys.maxsize)
    )


def make_neighbours(work: Path, taught: dict[str, list[Example]]) -> Neighbours:
    """Find words of like meaning for the words of the questions made by rule, or read them from `work`."""
    path = work / "neighbours.json"
    if not path.is_file():
        made = [found for level, found in taught.items() if not level.startswith(ASKED)]
        write_neighbours(path, find_neighbours(each.question for found in made for each in found))
    return read_neighbours(path)


def sample_ids(text: Path, rows: int) -> torch.Tensor:
    """Return the first `rows` rows of 256 tokens of the text, for fitting the copy heads' maps."""
    import numpy as np
    import torch

    tokens = np.memmap(text, dtype=np.uint16, mode="r")
    rows = min(rows, len(tokens) // 256)
    return torch.from_numpy(tokens[: rows * 256].astype(np.int64).reshape(rows, 256))


def read_settings(*recipes: Path) -> dict[str, Any]:
    """Read the tables of recipes, later ones winning; the stages are left to `load_stages`. Raises FinetuneError."""
    return {key: value for path in recipes for key, value in _tables(path)}


def _tables(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        yield from tomllib.loads(path.read_text(encoding="utf-8")).items()
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise FinetuneError(f"{path}: {error}") from error
