"""Packing keeps examples apart and whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import FinetuneError
from finetune.packing import IGNORED, block_causal_mask, pack, plan_rows
from tests.finetune.tiny_models import tiny_decoder, tiny_llama

EXAMPLES = [
    ([5, 9, 12, 7, 31], [5, 9, 12, 7, 31]),
    ([8, 8, 3], [IGNORED, 8, 3]),
    ([40, 41, 42, 43, 44, 45, 46], [40, 41, 42, 43, 44, 45, 46]),
    ([99, 5], [99, 5]),
]


@pytest.mark.parametrize("make", [tiny_decoder, tiny_llama])
def test_packed_logits_equal_unpacked_logits(make) -> None:
    """Every example's logits are the same alone and packed with strangers, padding included."""
    import torch

    model = make()
    rows = plan_rows([len(ids) for ids, _ in EXAMPLES], row_length=10)
    batch = pack(EXAMPLES, rows, pad_token=0)
    with torch.no_grad():
        packed = model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=batch.attention_mask(model.dtype),
        ).logits
    for row, indices in enumerate(rows):
        start = 0
        for index in indices:
            ids = torch.tensor([EXAMPLES[index][0]])
            with torch.no_grad():
                alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
            torch.testing.assert_close(packed[row, start : start + ids.shape[1]], alone, atol=1e-5, rtol=1e-5)
            start += ids.shape[1]


def test_without_the_mask_packed_logits_differ() -> None:
    """The equality above is the mask's doing: position ids alone let examples leak into each other."""
    import torch

    model = tiny_decoder()
    batch = pack(EXAMPLES, [[0, 1]], pad_token=0)
    with torch.no_grad():
        leaky = model(input_ids=batch.input_ids, position_ids=batch.position_ids).logits[0, 5:]
        alone = model(input_ids=torch.tensor([EXAMPLES[1][0]])).logits[0]
    assert (leaky - alone).abs().max() > 1e-3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_every_example_lands_in_one_row_that_holds_it(lengths: list[int]) -> None:
    """No example is lost, doubled or cut, and no row overflows."""
    rows = plan_rows(lengths, row_length=30)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 30 for row in rows)


def test_rows_are_filled() -> None:
    """Best fit leaves no row that another row's example would have filled."""
    assert len(plan_rows([6, 5, 5, 4], row_length=10)) == 2


def test_an_example_longer_than_a_row_is_named() -> None:
    """The error says which example and how long."""
    with pytest.raises(FinetuneError, match="example 1 has 11 tokens"):
        plan_rows([3, 11], row_length=10)


def test_an_empty_data_set_is_an_error() -> None:
    """There is no row to train on."""
    with pytest.raises(FinetuneError, match="empty"):
        pack([], [], pad_token=0)


def test_the_first_token_of_an_example_carries_no_loss() -> None:
    """Its left neighbour belongs to another example and must not predict it."""
    batch = pack(EXAMPLES, [[0, 3]], pad_token=0)
    assert batch.labels[0].tolist() == [IGNORED, 9, 12, 7, 31, IGNORED, 5]
    assert batch.segments[0].tolist() == [1, 1, 1, 1, 1, 2, 2]
    assert batch.position_ids[0].tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_offsets_move_positions() -> None:
    """An example may start at another position than 0."""
    batch = pack(EXAMPLES, [[1]], pad_token=0, offsets=[0, 7, 0, 0])
    assert batch.position_ids[0].tolist() == [7, 8, 9]


def test_padding_sees_itself_only() -> None:
    """No row of the softmax is empty, and no example sees padding."""
    import torch

    mask = block_causal_mask(torch.tensor([[1, 1, 0]]), torch.float32)[0, 0]
    seen = (mask == 0).tolist()
    assert seen == [[True, False, False], [True, True, False], [False, False, True]]
