"""Train a byte-level BPE vocabulary, and measure how much text a token of any vocabulary holds."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import write_text
from finetune.errors import FinetuneError, ModelError
from finetune.new_folders import check_replaceable, new_folder
from finetune.run_record import FILE_NAME, library_versions
from finetune.shards import OnBytes, find_shards, read_shards

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD = "<|pad|>"
END = "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL_TOKENS = (PAD, END, *ROLES)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- ' ' + message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""One token for a role, one for the end of a message: three tokens for a question. A reply begins with a space, so that
its first word is the same token as in the middle of a text, from which it may be copied."""


@dataclass(frozen=True)
class Fertility:
    """How much text a token holds, over one sample."""

    words: int
    characters: int
    tokens: int

    @property
    def words_per_token(self) -> float:
        """White-space separated words per token; higher is better."""
        return self.words / self.tokens

    @property
    def characters_per_token(self) -> float:
        """Characters per token; higher is better."""
        return self.characters / self.tokens


def train_tokenizer(texts: Iterable[str], *, vocabulary: int = 8192, positions: int = 512) -> PreTrainedTokenizerBase:
    """Train a cased byte-level BPE of `vocabulary` tokens on `texts`, with Versus's chat template.

    Every digit is a token of its own, so that a number is copied digit by digit and never guessed whole.
    Raises FinetuneError if `texts` is empty or the vocabulary is too small for the 256 bytes and special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    smallest = 256 + len(SPECIAL_TOKENS)
    if vocabulary < smallest:
        raise FinetuneError(f"a byte-level vocabulary needs at least {smallest} tokens; vocabulary is {vocabulary}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    counted = _Counted(texts)
    tokenizer.train_from_iterator(counted, trainer)
    if counted.seen == 0:
        raise FinetuneError("no text to train a tokenizer on: the sample is empty")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        model_max_length=positions,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


class _Counted:
    """Iterate `texts` and remember how many came, and how long they were."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.seen = 0
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.seen += 1
            self.characters += len(text)
            yield text


def train_tokenizer_folder(
    paths: Sequence[str | Path],
    output: Path,
    *,
    vocabulary: int = 8192,
    positions: int = 512,
    share: float | Sequence[float] = 1.0,
    seed: int = 0,
    field: str = "text",
    on_bytes: OnBytes | None = None,
) -> dict[str, Any]:
    """Train a vocabulary on a seeded `share` of the documents of `paths` and write it, with its record, to `output`.

    One share is for all paths; several are for each its own. Returns the record. `output` takes its content in one
    step. Raises FinetuneError.
    """
    shares = [share] * len(paths) if isinstance(share, int | float) else list(share)
    if wrong := [each for each in shares if not 0 < each <= 1]:
        raise FinetuneError(f"share is {wrong[0]}; it must be above 0 and at most 1")
    check_replaceable(output)
    started, clock = datetime.now(UTC), time.monotonic()
    shards = find_shards(paths)
    parts = [(find_shards([path]), each) for path, each in zip(paths, shares, strict=True)]
    texts = _Counted(_sampled(parts, random.Random(seed), field, on_bytes))
    tokenizer = train_tokenizer(texts, vocabulary=vocabulary, positions=positions)
    record = {
        "vocabulary": len(tokenizer),
        "asked_vocabulary": vocabulary,
        "files": [str(path) for path in shards],
        "documents": texts.seen,
        "characters": texts.characters,
        "share": shares[0] if len(set(shares)) == 1 else shares,
        "seed": seed,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 2),
        "versions": library_versions(),
    }
    with new_folder(output) as folder:
        tokenizer.save_pretrained(folder)
        write_text(folder / FILE_NAME, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    return record


def _sampled(
    parts: Sequence[tuple[Sequence[Path], float]], chance: random.Random, field: str, on_bytes: OnBytes | None
) -> Iterator[str]:
    """Yield of each part's files the share that is wanted, each file once; `on_bytes` follows all of them."""
    fresh, seen = [], set[Path]()
    for files, share in parts:
        fresh.append(([path for path in files if path not in seen], share))
        seen.update(files)
    total, before = sum(path.stat().st_size for path in seen), 0

    def follow(done: int, _: int) -> None:
        if on_bytes is not None:
            on_bytes(before + done, total)

    for files, share in fresh:
        yield from (text for text in read_shards(files, field=field, on_bytes=follow) if chance.random() < share)
        before += sum(path.stat().st_size for path in files)


def fertility(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Fertility:
    """Measure words and characters per token of `tokenizer` on `texts`. Raises FinetuneError if there are none."""
    words = characters = tokens = 0
    for text in texts:
        words += len(text.split())
        characters += len(text)
        tokens += len(tokenizer(text, add_special_tokens=False)["input_ids"])
    if tokens == 0:
        raise FinetuneError("fertility needs a text that is not empty")
    return Fertility(words=words, characters=characters, tokens=tokens)


def fertility_table(
    tokenizers: Mapping[str, PreTrainedTokenizerBase], samples: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Fertility]]:
    """Return language → tokenizer's name → fertility over that language's sample."""
    return {
        language: {name: fertility(tokenizer, texts) for name, tokenizer in tokenizers.items()}
        for language, texts in samples.items()
    }


def by_language(texts: Iterable[tuple[str | None, str]], *, characters: int = 1_000_000) -> dict[str, list[str]]:
    """Sort texts, each with its language's name or None, by language, at most `characters` of each.

    Where no name is given the language is told from the text; `unknown` where it is too short to tell.
    """
    from data_prep.cleaning import language_of

    found: dict[str, list[str]] = {}
    held: dict[str, int] = {}
    for label, text in texts:
        language = label or language_of(text) or "unknown"
        room = characters - held.get(language, 0)
        if room > 0:
            found.setdefault(language, []).append(text[:room])
            held[language] = held.get(language, 0) + len(text)
    return found


def open_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder that may hold nothing else, or that of the model `name`, with a pad token.

    One without pad token pads with its end token. Raises ModelError if it has neither, or is not there.
    """
    from finetune.models import load_tokenizer, quiet_libraries

    folder = Path(name)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")):
        return _padded(load_tokenizer(name, chat=False), name)
    quiet_libraries()
    from transformers import AutoTokenizer

    try:
        return _padded(AutoTokenizer.from_pretrained(str(folder), local_files_only=True), name)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: the tokenizer cannot be loaded: {str(error).strip().splitlines()[0]}") from error


def _padded(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer with a pad token."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{name}: its tokenizer has neither pad nor end token: set pad_token in tokenizer_config.json")
    return tokenizer
