"""Whether a model keeps the examples of a packed row apart, and the mask that it takes for it.

Models differ in what they do with a 4-D mask, so a few tokens are tried before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from finetune.cpu_attention import NAME as FLOAT32_SDPA
from finetune.errors import ModelError
from finetune.memory_failures import ran_out
from finetune.packing import PackedBatch, pack

if TYPE_CHECKING:
    import torch

SHORT = (range(2, 7), range(7, 14))
"""The token ids of the two documents that are tried."""
BEYOND = 4
"""Tokens by which the first one is longer than the model's window, where examples are."""


def window(model: Any) -> int | None:
    """Return how many tokens a layer of `model` sees, of the layer that sees fewest; None if all see all."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    sizes = {
        "sliding": getattr(config, "sliding_window", None),
        "chunked": getattr(config, "attention_chunk_size", None),
    }
    used = [size for name, size in sizes.items() if size and (not kinds or any(name in kind for kind in kinds))]
    return min(used, default=None)


def row_mask(model: Any, longest: int) -> torch.dtype | None:
    """Return the dtype of the block mask that `model` takes for examples of up to `longest` tokens.

    None where a layer sees fewer: one mask would widen its window, so the model has to make masks itself, from where
    positions begin again. Raises ModelError as `mask_dtype` does.
    """
    dtype = mask_dtype(model)
    return None if longest > (window(model) or longest) else dtype


def mask_dtype(model: Any) -> torch.dtype:
    """Return the dtype of the block mask that `model` takes: bool for torch's fused attention, its own for eager.

    Eager attention adds the mask to its scores, and would add a boolean one as 0 and 1. Raises ModelError for attention
    that takes no block mask (flash attention).
    """
    import torch

    attention = model.config.get_text_config()._attn_implementation
    if attention in ("sdpa", FLOAT32_SDPA):
        return torch.bool
    if attention == "eager":
        dtype: torch.dtype = model.dtype
        return dtype
    raise ModelError(
        f"model {type(model).__name__}: its attention, {attention}, takes no mask that keeps examples apart: take "
        "attn_implementation out of its config.json, or choose another model"
    )


def float_mask(model: Any, longest: int) -> torch.dtype | None:
    """Return the dtype of `model`, in which every attention adds a block mask to its scores; None as of `row_mask`."""
    dtype: torch.dtype | None = None if row_mask(model, longest) is None else model.dtype
    return dtype


def sample_rows(model: Any, *, packing: bool = True, longest: int = 0) -> PackedBatch:
    """Return two documents on the device of `model`, every token labelled: in one row, or with one row each.

    They are short, but the first is longer than the model's window if examples of `longest` tokens are.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    first, second = SHORT
    if row_mask(model, longest) is None:
        first = range(2, 2 + (window(model) or 0) + BEYOND)
    documents = [[token % vocabulary for token in document] for document in (first, second)]
    plan = [[0, 1]] if packing else [[0], [1]]
    return pack([(ids, ids) for ids in documents], plan, pad_token=0).on(model.device)


def keeps_apart(
    model: Any, logits: Callable[[PackedBatch], torch.Tensor], *, packing: bool = True, longest: int = 0
) -> bool:
    """Tell whether `logits` of the rows of `sample_rows` are those that `model` gives each document alone."""
    import torch

    batch = sample_rows(model, packing=packing, longest=longest)
    filled = batch.segments > 0
    begins = (batch.position_ids == 0) & filled
    documents = torch.tensor_split(batch.input_ids[filled], begins[filled].nonzero()[1:, 0].cpu())
    with torch.no_grad():
        ours = logits(batch)[filled].float()
        alone = torch.cat([model(input_ids=ids[None]).logits[0] for ids in documents]).float()
    allowed = 1e-3 if model.dtype == torch.float32 else 0.05
    return float((ours - alone).abs().max()) <= allowed * max(1.0, float(alone.abs().max()))


def check_packing(model: Any, name: str, *, packing: bool = True, longest: int = 0) -> None:
    """Raise ModelError unless examples laid out as `dataset.Collator` does have the logits that each has alone.

    `longest`: tokens of the longest example, which decides the mask (see `row_mask`).
    """
    mask = row_mask(model, longest)

    def logits(batch: PackedBatch) -> torch.Tensor:
        found: torch.Tensor = model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=batch.attention_mask(mask),
            use_cache=False,
        ).logits
        return found

    if heeds(lambda: keeps_apart(model, logits, packing=packing, longest=longest)):
        return
    advice = ["set data.packing = false"] if packing else []
    advice += [f"set data.max_length = {window(model)}, the window of its layers"] if mask is None else []
    raise ModelError(
        f"model {name} ({type(model).__name__}) does not heed what keeps examples apart: "
        f"{', or '.join([*advice, 'choose another architecture'])}"
    )


def heeds(tried: Callable[[], bool]) -> bool:
    """Return what a trial says; False where the model cannot take such a batch at all, but for want of memory."""
    try:
        return tried()
    except (RuntimeError, TypeError, ValueError) as error:
        if ran_out(error):
            raise
        return False
