"""Attention for training on a CPU: torch's fused kernel in float32.

Its backward pass in bfloat16 takes two to seven times as long on rows of 48 to 128 tokens (measured on one core with
AVX512-BF16); the rest of the model stays in bfloat16.
"""

from __future__ import annotations

from typing import Any

NAME = "versus_float32_sdpa"


def use_float32_attention(model: Any) -> None:
    """Make `model`, whose attention is torch's fused one, compute attention in float32. Others are left alone."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def _attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> tuple[Any, Any]:
    """Attend in float32 and return the result in the dtype of `query`; shapes as in transformers' own function."""
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    with torch.autocast(query.device.type, enabled=False):
        attended, weights = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), attention_mask, **options
        )
    return attended.to(query.dtype), weights
