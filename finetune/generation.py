"""Batched greedy generation for any causal model of transformers: left padding, key-value cache, finished rows leave.

A batch is stepped from outside, one token for each of its rows at a time, so that its owner can hold a lock for one
step only and serve several batches and streams in turn.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SHRINK_BELOW = 0.75
"""A batch is packed anew when fewer than this share of its rows are still being written."""


@dataclass
class Row:
    """One reply in the making."""

    index: int
    prompt: Sequence[int]
    room: int
    """How many tokens it may get."""
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    """Sum of the natural logarithms of its tokens' probabilities, the end token included."""
    steps: int = 0
    finish_reason: str | None = None

    @property
    def mean_logprob(self) -> float | None:
        """Mean log-probability of the tokens chosen, the end token included; None before the first."""
        return self.logprob / self.steps if self.steps else None


class GreedyBatch:
    """Replies to several prompts, written token by token, each the most probable."""

    def __init__(
        self, prompts: Sequence[Sequence[int]], *, pad_token: int, end_tokens: set[int], rooms: Sequence[int]
    ) -> None:
        self.rows = [Row(index, prompt, room) for index, (prompt, room) in enumerate(zip(prompts, rooms, strict=True))]
        self._live = list(self.rows)
        self._pad = pad_token
        self._ends = end_tokens
        self._cache: Any = None
        self._mask: torch.Tensor | None = None
        self._positions: torch.Tensor | None = None
        self._last: torch.Tensor | None = None

    @property
    def done(self) -> bool:
        """Whether every reply has ended."""
        return not self._live

    def step(self, model: Any) -> None:
        """Write one token of each unfinished reply. The first call reads the prompts."""
        import torch

        if self.done:
            return
        with torch.inference_mode():
            logits = self._read_prompts(model) if self._cache is None else self._read_last(model)
            chosen = logits.argmax(dim=-1)
            logprobs = logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(dim=-1)
            self._take(chosen.tolist(), logprobs.tolist())
            self._last = chosen[:, None]
            self._drop_finished()

    def _read_prompts(self, model: Any) -> torch.Tensor:
        """Run the prompts, padded on the left to equal length; return logits (rows, vocabulary) in float32."""
        import torch

        width = max(len(row.prompt) for row in self._live)
        shape = (len(self._live), width)
        ids = torch.full(shape, self._pad)
        mask = torch.zeros(shape, dtype=torch.long)
        for number, row in enumerate(self._live):
            ids[number, width - len(row.prompt) :] = torch.tensor(list(row.prompt))
            mask[number, width - len(row.prompt) :] = 1
        ids, self._mask = ids.to(model.device), mask.to(model.device)
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
        self._positions = positions[:, -1:]
        self._cache = make_cache(model, width + max(row.room for row in self._live))
        return self._forward(model, ids, self._mask if int(mask.min()) == 0 else None, positions)

    def _read_last(self, model: Any) -> torch.Tensor:
        """Run the last token of each row against the cache; return logits (rows, vocabulary) in float32."""
        import torch

        assert self._mask is not None and self._positions is not None and self._last is not None
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._live), 1)], dim=1)
        self._positions = self._positions + 1
        return self._forward(model, self._last, self._mask, self._positions)

    def _forward(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor
    ) -> torch.Tensor:
        extra = {"logits_to_keep": 1} if _keeps_last_logits(type(model).forward) else {}
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            **extra,
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _take(self, tokens: list[int], logprobs: list[float]) -> None:
        """Add the chosen token to each unfinished row, and see which end with it."""
        for row, token, logprob in zip(self._live, tokens, logprobs, strict=True):
            if row.finish_reason is not None:
                continue
            row.steps += 1
            row.logprob += logprob if math.isfinite(logprob) else 0.0
            if token in self._ends:
                row.finish_reason = "stop"
                continue
            row.tokens.append(token)
            if row.steps >= row.room:
                row.finish_reason = "length"

    def _drop_finished(self) -> None:
        """Take finished rows out of the batch and the cache, once they are a good part of it."""
        import torch

        keep = [number for number, row in enumerate(self._live) if row.finish_reason is None]
        if not keep:
            self._live, self._cache = [], None
            return
        if len(keep) > SHRINK_BELOW * len(self._live):
            return
        assert self._mask is not None and self._positions is not None and self._last is not None
        chosen = torch.tensor(keep, device=self._mask.device)
        self._live = [self._live[number] for number in keep]
        self._mask, self._positions, self._last = self._mask[chosen], self._positions[chosen], self._last[chosen]
        self._cache.batch_select_indices(chosen)


def make_cache(model: Any, capacity: int) -> Any:
    """Return an empty key-value cache for `model`; one with room for `capacity` tokens where its layers allow it."""
    from transformers import DynamicCache
    from transformers.cache_utils import Cache, DynamicLayer

    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return cache
    layer_class = _reserved_layer_class()
    return Cache(layers=[layer_class(capacity) for _ in cache.layers])


def _reserved_layer_class() -> Any:
    """Return a cache layer that writes into memory reserved once, where the stock one copies all of it every token."""
    from transformers.cache_utils import DynamicLayer

    class ReservedLayer(DynamicLayer):  # type: ignore[misc]
        def __init__(self, capacity: int) -> None:
            super().__init__()
            self._capacity = capacity
            self._key_room: Any = None
            self._value_room: Any = None

        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            start = self.get_seq_length()
            end = start + key_states.shape[-2]
            if self._key_room is None or end > self._key_room.shape[-2]:
                self._reserve(key_states, value_states, max(self._capacity, end))
            self._key_room[:, :, start:end] = key_states
            self._value_room[:, :, start:end] = value_states
            self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
            return self.keys, self.values

        def _reserve(self, key_states: Any, value_states: Any, length: int) -> None:
            self.dtype, self.device = key_states.dtype, key_states.device
            former = None if self.keys is None else (self.keys, self.values)
            self._key_room = key_states.new_empty(*key_states.shape[:2], length, key_states.shape[-1])
            self._value_room = value_states.new_empty(*value_states.shape[:2], length, value_states.shape[-1])
            if former is not None:
                self._key_room[:, :, : former[0].shape[-2]] = former[0]
                self._value_room[:, :, : former[1].shape[-2]] = former[1]
            self.is_initialized = True

        def get_seq_length(self) -> int:
            return 0 if self.keys is None else int(self.keys.shape[-2])

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            end = self.get_seq_length()
            if end:
                self._key_room, self._value_room = self._key_room[indices], self._value_room[indices]
                self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]

    return ReservedLayer


@lru_cache
def _keeps_last_logits(forward: Callable[..., Any]) -> bool:
    """Tell whether a model can spare the logits of all positions but the last."""
    return "logits_to_keep" in inspect.signature(forward).parameters
