"""Plain text as training rows, and how well a model predicts it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import FinetuneError
from finetune.packing import IGNORED, PackedBatch, block_causal_mask
from finetune.pretraining import PretrainingConfig, TrainingBatch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NARROW, WIDE = ".u16", ".u32"
"""Endings of token files: integers of 16 and of 32 bits."""

LOGITS_AT_ONCE = 2**26
"""Logits that measuring holds at a time: 256 MB in float32."""


class TextRows:
    """Plain text as training rows: documents end to end, cut into rows, each with its own block mask.

    Token ids lie in a file of 16-bit integers (32-bit for a large vocabulary), written once per tokenizer and text and
    read by memory mapping; rows are drawn in an order that the seed fixes, every row once before any comes again.
    """

    def __init__(self, path: Path, config: PretrainingConfig, end_token: int) -> None:
        import numpy as np

        kind = np.uint32 if path.suffix == WIDE else np.uint16
        if path.stat().st_size == 0:
            raise FinetuneError(f"{path} holds no tokens: the text is empty")
        self._tokens = np.memmap(path, dtype=kind, mode="r")
        self.config, self.end_token = config, end_token
        self._order: tuple[int, Any] = (-1, None)
        self.rows = len(self._tokens) // config.row_length
        if self.rows == 0:
            raise FinetuneError(f"{path} holds {len(self._tokens)} tokens, less than one row of {config.row_length}")

    def row(self, number: int) -> torch.Tensor:
        """Return the token ids (row_length,) of the number-th row in shuffled order, starting again at the end."""
        import numpy as np
        import torch

        epoch, place = divmod(number, self.rows)
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.config.seed, epoch]).permutation(self.rows)
        start = int(self._order[1][place]) * self.config.row_length
        return torch.from_numpy(self._tokens[start : start + self.config.row_length].astype(np.int64))

    def __call__(self, step: int) -> TrainingBatch:
        """Return the step's batch: every token is predicted, but none across documents."""
        import torch

        first = step * self.config.rows
        ids = torch.stack([self.row(first + number) for number in range(self.config.rows)])
        return text_batch(ids, self.end_token)


class ReplayedRows:
    """Rows of new text with a share of rows of general text among them, evenly spread: replay (arXiv 2403.08763).

    Which rows a step holds depends on the step alone.
    """

    def __init__(self, new: TextRows, general: TextRows, share: float) -> None:
        self._new, self._general, self._share = new, general, share

    def row(self, number: int) -> torch.Tensor:
        """Return the token ids (row_length,) of the number-th row."""
        before, after = math.floor(number * self._share), math.floor((number + 1) * self._share)
        return self._general.row(before) if after > before else self._new.row(number - before)

    def __call__(self, step: int) -> TrainingBatch:
        """Return the step's batch."""
        import torch

        rows = self._new.config.rows
        ids = torch.stack([self.row(step * rows + number) for number in range(rows)])
        return text_batch(ids, self._new.end_token)


def text_batch(ids: torch.Tensor, end_token: int) -> TrainingBatch:
    """Return rows (b, t) of documents end to end as a batch; a document ends with `end_token`, positions restart."""
    import torch

    ended = torch.nn.functional.pad((ids == end_token)[:, :-1], (1, 0)).long()
    segments = ended.cumsum(dim=1) + 1
    columns = torch.arange(ids.shape[1]).expand_as(ids)
    starts = torch.where(ended.bool(), columns, torch.zeros_like(columns)).cummax(dim=1).values
    labels = ids.masked_fill(columns == starts, IGNORED)
    packed = PackedBatch(input_ids=ids, position_ids=columns - starts, labels=labels, segments=segments)
    return TrainingBatch(packed, weights=torch.ones(ids.shape))


def token_file(folder: Path, name: str, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Return the path of a token file for `tokenizer`: its ending says how wide the integers are."""
    return folder / f"{name}{NARROW if len(tokenizer) <= 2**16 else WIDE}"


def write_tokens(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, path: Path) -> int:
    """Write the token ids of `texts`, each ended by the end token, as integers of 16 bits; return how many.

    A `path` that ends in `.u32` holds 32 bits. Raises FinetuneError if the vocabulary needs them and it does not.
    """
    import numpy as np

    kind = np.uint32 if path.suffix == WIDE else np.uint16
    if len(tokenizer) > np.iinfo(kind).max + 1:
        raise FinetuneError(f"{path} holds 16-bit ids, and the tokenizer has {len(tokenizer)} tokens: use {WIDE}")
    count = 0
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        for batch in _batched(texts, 256):
            encoded = tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
            ids = np.array([token for text in encoded for token in [*text, tokenizer.eos_token_id]], dtype=kind)
            file.write(ids.tobytes())
            count += len(ids)
    temporary.replace(path)
    return count


def _batched(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def bits_per_character(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, row_length: int = 256
) -> float:
    """Return the mean bits that `model` needs per character of `texts`, each cut to rows of `row_length` tokens.

    The first token of each row is not predicted, so its characters are not counted either.
    """
    import torch

    nats, characters = 0.0, 0
    rows = [row for text in texts for row in _rows_of(tokenizer, text, row_length)]
    at_once = max(1, min(8, LOGITS_AT_ONCE // (row_length * len(tokenizer))))
    padding = tokenizer.pad_token_id or 0
    for start in range(0, len(rows), at_once):
        group = rows[start : start + at_once]
        width = max(len(row) for row in group)
        ids = torch.tensor([row + [padding] * (width - len(row)) for row in group], device=model.device)
        lengths = torch.tensor([len(row) for row in group], device=model.device)
        segments = (torch.arange(width, device=model.device)[None] < lengths[:, None]).long()
        mask = block_causal_mask(segments, model.dtype)
        with torch.no_grad():
            hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            logits = model.get_output_embeddings()(hidden[:, :-1]).float()
        labels = ids[:, 1:].masked_fill(segments[:, 1:] == 0, IGNORED)
        nats += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"))
        characters += sum(len(tokenizer.decode(row[1:])) for row in group)
    if characters == 0:
        raise FinetuneError("bits per character needs a text of at least two tokens")
    return nats / math.log(2) / characters


def _rows_of(tokenizer: PreTrainedTokenizerBase, text: str, row_length: int) -> Iterator[list[int]]:
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    for start in range(0, len(ids), row_length):
        if len(ids) - start > 1:
            yield ids[start : start + row_length]
