"""Put several examples into one row of tokens, with a mask that keeps them apart.

Padding wastes most of a batch of short questions, so examples are packed. Position ids alone do not keep packed
examples apart in BERT-type models (they never reach the mask), so every row carries a 4-D block mask: a token sees
itself and the earlier tokens of its own example, nothing else. Packed logits then equal unpacked logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.errors import FinetuneError

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""The label of a token that carries no loss, as torch's cross entropy and transformers have it."""


@dataclass(frozen=True)
class PackedBatch:
    """Rows of packed examples; b rows, t tokens each.

    input_ids, position_ids, labels: (b, t) int64; labels are `IGNORED` where there is no loss and are *not* shifted.
    segments: (b, t) int64, the number of the example within its row from 1; 0 is padding.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    segments: torch.Tensor

    def attention_mask(self, dtype: torch.dtype | None) -> torch.Tensor | None:
        """Return the block mask of shape (b, 1, t, t) that models take as `attention_mask`; see `block_causal_mask`.

        None for models that make masks of the positions themselves (see `packed_rows.row_mask`).
        """
        return None if dtype is None else block_causal_mask(self.segments, dtype)

    def on(self, device: torch.device) -> PackedBatch:
        """Return the batch on `device`."""
        parts = (self.input_ids, self.position_ids, self.labels, self.segments)
        return PackedBatch(*(part.to(device) for part in parts))

    def rows(self, place: slice) -> PackedBatch:
        """Return some of the rows."""
        parts = (self.input_ids, self.position_ids, self.labels, self.segments)
        return PackedBatch(*(part[place] for part in parts))


def plan_rows(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Divide examples among rows of at most `row_length` tokens: indices, longest first, each into the fullest row.

    Best-fit decreasing; every example lands in exactly one row, whole. Raises FinetuneError if one does not fit.
    """
    too_long = [index for index, length in enumerate(lengths) if length > row_length]
    if too_long:
        raise FinetuneError(
            f"example {too_long[0]} has {lengths[too_long[0]]} tokens and rows hold {row_length}; "
            "shorten it or raise the row length"
        )
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(row_length + 1)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        room = next((r for r in range(length, row_length + 1) if by_room[r]), None)
        if room is None:
            rows.append([])
            row, room = len(rows) - 1, row_length
        else:
            row = by_room[room].pop()
        rows[row].append(index)
        by_room[room - length].append(row)
    return rows


def block_causal_mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the mask (b, 1, t, t) of rows whose tokens belong to `segments` (b, t).

    In a floating dtype it is added to the scores: 0 to see, minimum not to. In torch.bool it is true where one sees;
    see `packed_rows.mask_dtype`. A token sees the earlier tokens of its own segment, and itself, so that no row of the
    softmax is empty.
    """
    import torch

    length = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    seen = (same & causal)[:, None]
    if dtype == torch.bool:
        return seen
    return torch.full(seen.shape, torch.finfo(dtype).min, dtype=dtype, device=segments.device).masked_fill_(seen, 0)


def pack(
    examples: Sequence[tuple[Sequence[int], Sequence[int]]],
    rows: Iterable[Sequence[int]],
    *,
    pad_token: int,
    offsets: Sequence[int] | None = None,
) -> PackedBatch:
    """Lay `examples` (token ids, labels) out as `rows` of example indices say, padded on the right.

    Positions restart at 0 for each example, or at its entry of `offsets`. The first token of an example never carries
    loss, because the token before it belongs to another.
    """
    import torch

    planned = [list(row) for row in rows]
    if not planned:
        raise FinetuneError("there is no row to pack: the data set is empty")
    width = max(sum(len(examples[index][0]) for index in row) for row in planned)
    shape = (len(planned), width)
    input_ids = torch.full(shape, pad_token, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    positions = torch.zeros(shape, dtype=torch.long)
    segments = torch.zeros(shape, dtype=torch.long)
    for number, row in enumerate(planned):
        start = 0
        for segment, index in enumerate(row, start=1):
            ids, targets = examples[index]
            place = slice(start, start + len(ids))
            input_ids[number, place] = torch.tensor(list(ids))
            labels[number, place] = torch.tensor(list(targets))
            labels[number, start] = IGNORED
            offset = 0 if offsets is None else offsets[index]
            positions[number, place] = torch.arange(len(ids)) + offset
            segments[number, place] = segment
            start += len(ids)
    return PackedBatch(input_ids=input_ids, position_ids=positions, labels=labels, segments=segments)
