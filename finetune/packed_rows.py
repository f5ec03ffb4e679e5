"""Whether a model keeps the examples of a packed row apart, and the mask that it takes for it.

Models differ in what they do with a 4-D mask, so a few tokens are tried before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from finetune.cpu_attention import NAME as FLOAT32_SDPA
from finetune.errors import ModelError
from finetune.packing import PackedBatch, pack

if TYPE_CHECKING:
    import torch

SAMPLE = (range(2, 7), range(7, 14))
"""The token ids of the two documents that are tried."""


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


def sample_rows(model: Any, *, packing: bool = True) -> PackedBatch:
    """Return two short documents on the device of `model`, every token labelled: in one row, or with one row each."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    documents = [[token % vocabulary for token in document] for document in SAMPLE]
    plan = [[0, 1]] if packing else [[0], [1]]
    return pack([(ids, ids) for ids in documents], plan, pad_token=0).on(model.device)


def keeps_apart(model: Any, logits: Callable[[PackedBatch], torch.Tensor], *, packing: bool = True) -> bool:
    """Tell whether `logits` of the rows of `sample_rows` are those that `model` gives each document alone."""
    import torch

    batch = sample_rows(model, packing=packing)
    filled = batch.segments > 0
    documents = torch.split(batch.input_ids[filled], [len(document) for document in SAMPLE])
    with torch.no_grad():
        ours = logits(batch)[filled].float()
        alone = torch.cat([model(input_ids=ids[None]).logits[0] for ids in documents]).float()
    allowed = 1e-3 if model.dtype == torch.float32 else 0.05
    differs = float((ours - alone).abs().max()) > allowed * max(1.0, float(alone.abs().max()))
    return not differs


def check_packing(model: Any, name: str, *, packing: bool = True) -> None:
    """Raise ModelError unless examples laid out as `dataset.Collator` does have the logits that each has alone."""
    mask = mask_dtype(model)

    def logits(batch: PackedBatch) -> torch.Tensor:
        found: torch.Tensor = model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=batch.attention_mask(mask),
            use_cache=False,
        ).logits
        return found

    if not keeps_apart(model, logits, packing=packing):
        advice = "set data.packing = false, or choose" if packing else "choose"
        raise ModelError(
            f"model {name} ({type(model).__name__}) does not heed the mask that keeps examples apart: {advice} another "
            "architecture"
        )
