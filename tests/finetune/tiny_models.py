"""Tiny causal models of random weights, made in memory, for tests that need an architecture and not a skill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def tiny_decoder(vocabulary: int = 320) -> PreTrainedModel:
    """Pocket's architecture: a `BertGenerationDecoder` with tied embeddings, two layers wide 32."""
    import torch
    from transformers import BertGenerationConfig, BertGenerationDecoder

    torch.manual_seed(0)
    config = BertGenerationConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=128, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, is_decoder=True,
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return BertGenerationDecoder(config).eval()


def tiny_llama(vocabulary: int = 320, *, tied: bool = False) -> PreTrainedModel:
    """A Llama of two layers wide 32, its embeddings tied or not."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, max_position_embeddings=128, tie_word_embeddings=tied, pad_token_id=0, bos_token_id=None,
        eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tiny_of(kind: str, **options: Any) -> Any:
    """A model of another architecture (`kind` as in `transformers.LlamaConfig`), one layer wide 32, 99 tokens."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {
        "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": None,
        "eos_token_id": 1, **options,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**sizes)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()
