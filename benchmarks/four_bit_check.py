"""Whether the product's own path, from `load_base` in 4 bits over `train_adapter` to `LocalModel`, runs on a device.

A Mistral of two layers and random weights is trained for two steps by the recipe `mistral-7b-v0.3`, and asked two
questions with the adapter. What it learns and says means nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

RECIPE = "mistral-7b-v0.3"
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
"""In place of Mistral 7B's own width."""


def check(pairs: Sequence[tuple[str, str]], device: str, *, small: bool = False) -> dict[str, Any]:
    """Train and answer on `device`, and return how long it took and what came out; whatever fails is raised.

    `pairs` are questions with their answers, 32 or more; `small` takes a narrow model in place of one of real width.
    """
    from data_prep.questions import Question
    from finetune.answering import FinetunedAnswerer, LocalModel
    from finetune.config import TrackingSection, load_recipe
    from finetune.training import train_adapter

    started, recipe = time.monotonic(), load_recipe(RECIPE)
    questions = [Question(f"q{number}", asked, (answer,)) for number, (asked, answer) in enumerate(pairs)]
    with tempfile.TemporaryDirectory() as folder:
        base = str(save_mistral(Path(folder) / "base", device, small=small))
        plan = replace(
            recipe,
            model=replace(recipe.model, name=base),
            optimisation=replace(recipe.optimisation, epochs=None, max_steps=2),
            data=replace(recipe.data, leave_out_long=True),
            tracking=TrackingSection(),
        )
        record = train_adapter(plan, questions, Path(folder) / "adapter", device=device)
        model = LocalModel(base, quantization="nf4", device=device, max_new_tokens=8)
        model.add_adapter("adapter", Path(folder) / "adapter")
        answers = FinetunedAnswerer(model.generator("adapter")).answer([asked for asked, _ in pairs[:2]])
    return {
        "ok": True,
        "losses": [round(loss, 3) for _, loss in record.losses],
        "answers": len(answers),
        "seconds": round(time.monotonic() - started, 1),
    }


def save_mistral(folder: Path, device: str, *, small: bool) -> Path:
    """Save a two-layer Mistral of random weights, as wide as the 7B one unless `small`, with pocket's tokenizer."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    from finetune.models import load_tokenizer

    tokenizer = load_tokenizer("pocket")
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = MistralConfig(
        vocab_size=len(tokenizer), num_hidden_layers=2, sliding_window=None, **ends, **(SMALL if small else {})
    )
    torch.manual_seed(0)
    with torch.device(device):
        MistralForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
