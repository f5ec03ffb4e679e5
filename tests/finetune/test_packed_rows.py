"""Packed rows in architectures that take their mask in different ways."""

from __future__ import annotations

from typing import Any

import pytest

from data_prep.conversations import closed_book
from finetune.chat import encode_exchange
from finetune.cpu_attention import use_float32_attention
from finetune.dataset import Collator
from finetune.errors import ModelError
from finetune.forgetting import MultipleChoice, multiple_choice_score
from finetune.packed_rows import check_packing, keeps_apart, mask_dtype
from tests.finetune.tiny import tiny_tokenizer
from tests.finetune.tiny_models import tiny_decoder, tiny_of

KINDS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Gemma2": {"head_dim": 8},
    "GptOss": {"head_dim": 8, "num_local_experts": 4, "layer_types": ["full_attention"]},
}
"""Fused attention, and two that know eager attention alone."""
ROWS = [{"input_ids": list(ids), "labels": list(ids)} for ids in (range(5, 14), range(20, 27), range(30, 35))]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_a_batch_have_the_logits_that_they_have_alone(kind: str, dtype: str, packing: bool) -> None:
    """Whether attention is fused or eager, no token sees a later one or another example's."""
    import torch

    model = tiny_of(kind, **KINDS[kind]).to(getattr(torch, dtype))
    batch = Collator(0, 128, mask_dtype(model), packing)(ROWS)
    labels = batch.pop("labels")
    assert len(labels) == (1 if packing else 3)
    with torch.no_grad():
        together = model(**batch).logits
        for row in ROWS:
            ids = torch.tensor(row["input_ids"])
            number, place = next(
                (n, start)
                for n, laid_out in enumerate(batch["input_ids"])
                for start in range(len(laid_out) - len(ids) + 1)
                if laid_out[start : start + len(ids)].equal(ids)
            )
            alone = model(input_ids=ids[None]).logits[0]
            ours = together[number, place : place + len(ids)]
            assert torch.allclose(ours, alone, atol=1e-4 if dtype == "float32" else 0.02)
    check_packing(model, kind, packing=packing)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_chooses_is_what_it_finds_most_probable_alone(kind: str) -> None:
    """The scores before and after a training are right in eager attention too."""
    tokenizer = tiny_tokenizer()
    options = ("amber", "the spare key of the car", "in the cold and in the heat", "twelve hours", "a tyre", "the seat")
    model = tiny_of(kind, vocab_size=len(tokenizer), initializer_range=0.5, **KINDS[kind])
    means = [_mean_logprob(model, *encode_exchange(tokenizer, closed_book("What?"), option)) for option in options]
    check = MultipleChoice("What?", options, means.index(max(means)))
    assert multiple_choice_score(model, tokenizer, [check], max_length=128) == 1


def _mean_logprob(model: Any, ids: list[int], shared: int) -> float:
    """Return the mean log-probability of the tokens from `shared` on, the model asked without a mask."""
    import torch

    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logprobs[place - 1, ids[place]]) for place in range(shared, len(ids))) / (len(ids) - shared)


def test_a_boolean_mask_is_for_fused_attention_alone() -> None:
    """Eager attention, which adds the mask, gets one in the model's dtype; what a boolean one spoils is noticed."""
    import torch

    fused, eager = tiny_decoder(), tiny_of("Gemma2", head_dim=8)
    assert (mask_dtype(fused), mask_dtype(eager.bfloat16())) == (torch.bool, torch.bfloat16)
    use_float32_attention(fused)
    assert mask_dtype(fused) == torch.bool
    eager.float()
    boolean = keeps_apart(
        eager, lambda rows: eager(rows.input_ids, rows.attention_mask(torch.bool), rows.position_ids).logits
    )
    assert not boolean


def test_models_that_mix_packed_examples_are_refused_before_training() -> None:
    """Convolutions know no mask: they train with a row for each example; flash attention takes no such mask at all."""
    mixing = tiny_of("Lfm2", num_hidden_layers=2, layer_types=["conv", "full_attention"], initializer_range=0.3)
    check_packing(mixing, "conv", packing=False)
    with pytest.raises(ModelError, match=r"conv \(Lfm2ForCausalLM\).*data\.packing = false"):
        check_packing(mixing, "conv")
    flash = tiny_of("Llama")
    flash.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match="flash_attention_2"):
        check_packing(flash, "flash")
