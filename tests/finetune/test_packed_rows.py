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
from finetune.packed_rows import check_packing, keeps_apart, mask_dtype, row_mask
from tests.finetune.tiny import tiny_tokenizer
from tests.finetune.tiny_models import tiny_decoder, tiny_of

KINDS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Gemma2": {"head_dim": 8},
    "GptOss": {"head_dim": 8, "num_local_experts": 4, "layer_types": ["full_attention"]},
}
"""Fused attention, and two that know eager attention alone."""
SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention"]}
WINDOWED: dict[str, dict[str, Any]] = {
    "Mistral": {"sliding_window": 16},
    "Qwen2": {"use_sliding_window": True, **SLIDING},
    "Cohere2": SLIDING,
    "Gemma2": {"head_dim": 8, **SLIDING},
}
"""Layers that see 16 tokens, said by the layer or for the whole model; the last attends eagerly."""
ROWS = [{"input_ids": list(ids), "labels": list(ids)} for ids in (range(5, 14), range(20, 27), range(30, 35))]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_a_batch_have_the_logits_that_they_have_alone(kind: str, dtype: str, packing: bool) -> None:
    """Whether attention is fused or eager, no token sees a later one or another example's."""
    import torch

    model = tiny_of(kind, **KINDS[kind]).to(getattr(torch, dtype))
    assert _largest_difference(model, ROWS, packing=packing) < (1e-4 if dtype == "float32" else 0.02)
    check_packing(model, kind, packing=packing)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("kind", WINDOWED)
def test_examples_longer_than_the_window_keep_it(kind: str, packing: bool) -> None:
    """One block mask for all layers would let a token see further in a batch than alone."""
    model = tiny_of(kind, initializer_range=0.3, **WINDOWED[kind])
    long = {"input_ids": list(range(40, 90)), "labels": list(range(40, 90))}
    assert row_mask(model, 16) == mask_dtype(model)
    assert _largest_difference(model, [*ROWS, long], packing=packing) < 1e-4
    check_packing(model, kind, packing=packing, longest=50)
    masked = keeps_apart(
        model,
        lambda rows: model(rows.input_ids, rows.attention_mask(mask_dtype(model)), rows.position_ids).logits,
        packing=packing,
        longest=50,
    )
    assert not masked


def test_models_that_find_no_examples_in_a_row_take_short_ones_packed() -> None:
    """gpt-oss tells its masks nothing of positions: longer examples than its window need a row each."""
    model = tiny_of("GptOss", head_dim=8, num_local_experts=4, initializer_range=0.3, **SLIDING)
    check_packing(model, "oss", longest=16)
    check_packing(model, "oss", longest=17, packing=False)
    with pytest.raises(ModelError, match=r"set data\.packing = false, or set data\.max_length = 16, the window"):
        check_packing(model, "oss", longest=17)


def _largest_difference(model: Any, rows: list[dict[str, Any]], *, packing: bool) -> float:
    """Return by how much a logit of examples laid out by the collator differs from that of the example alone."""
    import torch

    batch = Collator(0, 128, row_mask(model, max(len(row["input_ids"]) for row in rows)), packing)(rows)
    labels = batch.pop("labels")
    assert len(labels) == (1 if packing else len(rows))
    largest = 0.0
    with torch.no_grad():
        together = model(**batch, use_cache=False).logits
        for row in rows:
            ids = torch.tensor(row["input_ids"])
            number, place = next(
                (n, start)
                for n, laid_out in enumerate(batch["input_ids"])
                for start in range(len(laid_out) - len(ids) + 1)
                if laid_out[start : start + len(ids)].equal(ids)
            )
            alone = model(input_ids=ids[None]).logits[0]
            ours = together[number, place : place + len(ids)]
            largest = max(largest, float((ours - alone).abs().max()))
    return largest


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
    assert not keeps_apart(fused, lambda rows: fused(rows.input_ids).logits * float("nan"))


def test_models_that_mix_packed_examples_are_refused_before_training() -> None:
    """Convolutions know no mask: they train with a row for each example; flash attention takes no such mask at all."""
    mixing = tiny_of("Lfm2", num_hidden_layers=2, layer_types=["conv", "full_attention"], initializer_range=0.3)
    check_packing(mixing, "conv", packing=False)
    with pytest.raises(ModelError, match=r"conv \(Lfm2ForCausalLM\).*data\.packing = false"):
        check_packing(mixing, "conv")
    for kind in ("Bloom", "Mamba"):  # their code has no place for such a mask
        for packing in (True, False):
            with pytest.raises(ModelError, match="choose another architecture"):
                check_packing(tiny_of(kind), kind, packing=packing)
    flash = tiny_of("Llama")
    flash.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match="flash_attention_2"):
        check_packing(flash, "flash")
