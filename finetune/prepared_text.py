"""Text made ready for pretraining: documents held back to measure on, the others as token files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.atomic import write_text
from finetune.continual_recipe import TextSection
from finetune.errors import TrainingDataError
from finetune.shards import OnBytes, find_shards, read_shards
from finetune.text_rows import token_file, write_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE_NAME = "prepared.json"


@dataclass(frozen=True)
class TokenFile:
    """One kind of text: its token file, how many tokens that holds and its SHA-256, and the documents held back."""

    path: Path
    tokens: int
    sha256: str
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """New text and, where some is replayed, general text."""

    new: TokenFile
    general: TokenFile | None

    @property
    def sha256(self) -> str:
        """The hash of all that is trained on."""
        parts = [self.new.sha256, self.general.sha256 if self.general else ""]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def prepare_text(
    text: TextSection, tokenizer: PreTrainedTokenizerBase, folder: Path, on_bytes: OnBytes | None = None
) -> Prepared:
    """Turn the text into token files in `folder`, or find there what an interrupted run left whole.

    Raises TrainingDataError if there is nothing to train on, or nothing to measure on though that was asked for.
    """
    path = folder / FILE_NAME
    if path.is_file():
        return _read(path)
    new = _write(text.files, text, tokenizer, token_file(folder, "new", tokenizer), on_bytes)
    general = None
    if text.general:
        general = _write(text.general, text, tokenizer, token_file(folder, "general", tokenizer), on_bytes)
    if text.validation:
        texts = read_shards(find_shards(text.validation), field=text.field)
        new = replace(new, held_out=tuple(_first(texts, text.validation_characters)))
    if text.validation_share and not new.held_out:
        raise TrainingDataError(
            "one document alone cannot be held back to measure on: name text.validation, "
            "or set text.validation_share = 0 to do without"
        )
    prepared = Prepared(new, general)
    write_text(path, json.dumps(asdict(prepared), ensure_ascii=False, default=lambda file: file.name))
    return prepared


def _read(path: Path) -> Prepared:
    """Read what an earlier part of the run prepared."""
    state = json.loads(path.read_text(encoding="utf-8"))
    files = [
        entry and TokenFile(path.parent / entry["path"], entry["tokens"], entry["sha256"], tuple(entry["held_out"]))
        for entry in (state["new"], state["general"])
    ]
    return Prepared(files[0], files[1])


def _write(
    files: Sequence[str],
    text: TextSection,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    on_bytes: OnBytes | None,
) -> TokenFile:
    """Write a token file of all documents but the share held back, or but one where the share is less than one.

    Which documents are held back, their text decides, so that copies of one are on the same side.
    """
    share = 0.0 if text.validation else text.validation_share
    below = int(share * 2**64)
    for _ in range(2):
        split = _Split(below, text.validation_characters)
        texts = read_shards(find_shards(files), field=text.field, on_bytes=on_bytes)
        count = write_tokens(split.kept(texts), tokenizer, path)
        if split.held or not share or split.documents < 2:
            break
        below = split.smallest + 1
    if not count:
        raise TrainingDataError(f"{', '.join(files)}: no text to train on; every file is empty, or all is held back")
    with path.open("rb") as file:
        return TokenFile(path, count, hashlib.file_digest(file, "sha256").hexdigest(), tuple(split.held))


class _Split:
    """Pass documents on whose number is not `below`, and hold `characters` of the others."""

    def __init__(self, below: int, characters: int) -> None:
        self._below, self._room = below, characters
        self.held: list[str] = []
        self.documents = 0
        self.smallest = 2**64

    def kept(self, texts: Iterator[str]) -> Iterator[str]:
        """Yield what is trained on."""
        for text in texts:
            number = text_number(text)
            self.documents += 1
            self.smallest = min(self.smallest, number)
            if number >= self._below:
                yield text
            elif self._room > 0:
                self.held.append(text[: self._room])
                self._room -= len(text)


def text_number(text: str) -> int:
    """Return a number of 64 bits that a text alone decides."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _first(texts: Iterator[str], characters: int) -> list[str]:
    """Return the first documents, at most `characters` in all."""
    found: list[str] = []
    room = characters
    for text in texts:
        if room <= 0:
            break
        found.append(text[:room])
        room -= len(text)
    return found
