"""The loss that is trained, in architectures that compute their logits in different ways."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from finetune.adapters import attach_lora
from finetune.config import recipe_from_mapping
from finetune.dataset import Collator, Example, as_rows, build_examples
from finetune.packed_rows import row_mask
from finetune.packing import IGNORED
from finetune.trainer import Clock, in_one_place, is_own_loss, make_trainer
from tests.finetune.tiny import questions, tiny_tokenizer
from tests.finetune.tiny_models import tiny_decoder, tiny_of

KINDS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Granite": {"logits_scaling": 8.0},
    "Cohere": {"logit_scale": 0.1},
    "Gemma2": {"head_dim": 8, "final_logit_softcapping": 1.0},
    "Mixtral": {"num_local_experts": 4},
    "Mistral": {"sliding_window": 8},
}
"""A plain head, heads that divide, multiply and cap their logits, a mixture of experts, and a short window."""


@pytest.mark.parametrize("as_on_gpus", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_that_is_trained_is_the_models_own(
    kind: str, as_on_gpus: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step has the loss of every answer alone, whatever the head does; no figure that is logged is broken.

    On GPUs trl computes it, in one process on a CPU our own code does where it may.
    """
    import torch

    if as_on_gpus:
        monkeypatch.setattr("finetune.trainer.is_own_loss", lambda model: False)

    tokenizer = tiny_tokenizer()
    model = tiny_of(kind, vocab_size=len(tokenizer), initializer_range=0.3, **KINDS[kind])
    examples = build_examples(questions(), tokenizer, max_length=128)
    expected = _mean_loss(model, examples)
    collate = Collator(0, 128, row_mask(model, max(len(example.input_ids) for example in examples)))
    tables = {
        "model": {"name": kind, "dtype": "float32"},
        "lora": {"rank": 4, "alpha": 8},
        "optimisation": {"max_steps": 1, "batch_size": 4},
        "tracking": {"eval_every": 1},
    }
    recipe = recipe_from_mapping(tables, name="one", source="test")
    trainer = make_trainer(
        attach_lora(model, recipe.lora, checkpointing=False),
        tokenizer,
        recipe,
        as_rows(examples),
        as_rows(examples),
        collate,
        scratch=tmp_path,
        device="cpu",
        arithmetic=torch.float32,
        clock=Clock(None),
        on_step=None,
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-3)
    logged = {name: value for figures in trainer.state.log_history for name, value in figures.items()}
    assert "eval_loss" in logged
    assert not any("num_tokens" in name for name in logged)
    assert all(math.isfinite(value) for value in logged.values())
    with torch.no_grad():  # what is asked after the training
        assert trainer.model.eval()(**collate(as_rows(examples)), use_cache=False).loss.isfinite()


def test_a_training_uses_one_gpu_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers would spread the batch over all that it sees, where the model is on one."""
    from transformers import TrainingArguments

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert in_one_place(arguments).n_gpu == 0
    monkeypatch.setattr(arguments, "_n_gpu", 2)
    assert in_one_place(arguments).n_gpu == 1


def _mean_loss(model: Any, examples: list[Example]) -> float:
    """Return the mean cross entropy of the labelled tokens, from the logits of each example alone."""
    import torch

    total, count = 0.0, 0
    for example in examples:
        with torch.no_grad():
            logprobs = model(torch.tensor([example.input_ids])).logits[0].log_softmax(-1)
        trained = [place for place, label in enumerate(example.labels) if label != IGNORED]
        total -= sum(float(logprobs[place - 1, example.labels[place]]) for place in trained)
        count += len(trained)
    return total / count


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_plain_heads_are_applied_to_the_answers_alone(dtype: str) -> None:
    """Decoder and Llama take the short way in any dtype; the model is left in the mode that it was in."""
    import torch

    lora = recipe_from_mapping({"model": {"name": "any"}}, name="any", source="test").lora
    tried = {"Decoder": tiny_decoder()} | {kind: tiny_of(kind, initializer_range=0.3, **KINDS[kind]) for kind in KINDS}
    plain = set()
    for kind, model in tried.items():
        adapted = attach_lora(model.to(getattr(torch, dtype)), lora, checkpointing=False).train()
        if is_own_loss(adapted):
            plain.add(kind)
        assert adapted.training
    assert plain == {"Decoder", "Llama", "Mixtral", "Mistral"}
