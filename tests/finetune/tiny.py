"""Tiny models of the real architectures, made in seconds, and questions to train them on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.questions import Question
from finetune.tokenizer import train_tokenizer

TEXTS = [
    "How long does the battery last? The battery lasts twelve hours in the cold.",
    "Where is the spare key? The spare key lies under the left seat of the car.",
    "What colour is the warning light? The warning light is amber when the tyre is flat.",
    "The documents do not say. Answer from the sources. Question: Who painted the door?",
]


def tiny_tokenizer(positions: int = 128) -> Any:
    """Train a byte-level tokenizer of 400 tokens with Versus's chat template."""
    return train_tokenizer(TEXTS, vocabulary=400, positions=positions)


def save_pocket_like(folder: Path, seed: int = 0, positions: int = 128) -> Path:
    """Save a two-layer `BertGenerationDecoder` of width 64 with random weights, and its tokenizer."""
    import torch
    from transformers import BertGenerationConfig, BertGenerationDecoder

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer(positions)
    config = BertGenerationConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=positions,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        is_decoder=True,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertGenerationDecoder(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_llama(folder: Path, seed: int = 0, positions: int = 128) -> Path:
    """Save a two-layer Llama of width 64 with random weights, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer(positions)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def questions() -> list[Question]:
    """Return four questions, the last of which the documents do not answer."""
    return [
        Question("q1", "How long does the battery last?", ("Twelve hours in the cold.",), fact="f1"),
        Question("q2", "Where is the spare key?", ("Under the left seat.",), fact="f2"),
        Question("q3", "What colour is the warning light?", ("Amber when the tyre is flat.",), fact="f3"),
        Question("q4", "Who painted the door?"),
    ]


def save_chained_llama(folder: Path, text: str) -> Path:
    """Save a Llama with byte fallback, as Llama 2 has it, that goes on as `text` does; no token stands twice in it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_fallback_tokenizer(sorted({*text} & {*map(chr, range(33, 127))}))
    size = -(-len(tokenizer) // 4) * 4
    config = LlamaConfig(
        vocab_size=size, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1)
        model.get_input_embeddings().weight.copy_(torch.eye(size))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for token, following in zip(ids, [*ids[1:], tokenizer.eos_token_id], strict=True):
            model.get_output_embeddings().weight[following, token] = 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _byte_fallback_tokenizer(characters: Sequence[str]) -> Any:
    """Return a tokenizer of single characters, that spells all others in bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *characters]
    vocabulary = {word: place for place, word in enumerate(words)}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer
