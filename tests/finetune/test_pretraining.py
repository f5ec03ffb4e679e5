"""Pretraining learns, resumes where it was killed, and says what is wrong."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from finetune.errors import FinetuneError
from finetune.master_weights import MasterWeights
from finetune.packing import IGNORED
from finetune.pretraining import (
    Guide,
    PretrainingConfig,
    Step,
    batch_loss,
    guide_loss,
    learning_rate,
    pretrain,
)
from finetune.text_rows import TextRows, bits_per_character, text_batch, write_tokens
from finetune.tokenizer import train_tokenizer
from tests.finetune.tiny_models import tiny_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXTS = [f"Page {n}: press button {n % 7} and hold it for {n % 5} seconds. The light turns blue." for n in range(40)]
CONFIG = PretrainingConfig(steps=12, rows=4, row_length=32, learning_rate=3e-3, warmup_steps=2, checkpoint_every=2)


@pytest.fixture
def tokens(tmp_path: Path) -> tuple[Path, int]:
    """A token file of TEXTS and the end token's id."""
    tokenizer = train_tokenizer(TEXTS, vocabulary=300)
    write_tokens(TEXTS, tokenizer, tmp_path / "text.u16")
    return tmp_path / "text.u16", tokenizer.eos_token_id


def test_loss_falls(tokens: tuple[Path, int], tmp_path: Path) -> None:
    """A few steps on little text lower the loss."""
    result = pretrain(tiny_decoder(), TextRows(tokens[0], CONFIG, tokens[1]), CONFIG, tmp_path / "run")
    assert result.steps == 12
    assert result.losses[-1][1] < result.losses[0][1] - 0.5


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests run in the background of a shell, which has it ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_batches_made_ahead_are_the_same(tokens: tuple[Path, int], tmp_path: Path) -> None:
    """Worker processes change nothing but the time, also for a run that goes on from a checkpoint."""
    rows = TextRows(tokens[0], CONFIG, tokens[1])
    alone = pretrain(tiny_decoder(), rows, CONFIG, tmp_path / "alone")
    ahead = replace(CONFIG, workers=2)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny_decoder(), rows, ahead, tmp_path / "ahead", on_step=_interrupt_at_five)
    resumed = pretrain(tiny_decoder(), rows, ahead, tmp_path / "ahead")
    assert resumed.losses == alone.losses
    assert resumed.tokens == alone.tokens


def _interrupt_at_five(step: Step) -> None:
    """Send Ctrl-C to all processes of the group, as a terminal does, after the fifth step."""
    if step.step == 5:
        os.kill(os.getpid(), signal.SIGINT)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGINT)


def test_documents_are_kept_apart(tokens: tuple[Path, int]) -> None:
    """In a row of documents end to end, positions restart, and no document's first token is predicted."""
    import torch

    batch = text_batch(torch.tensor([[7, 8, 1, 9, 10, 11, 1, 12]]), end_token=1).packed
    assert batch.segments[0].tolist() == [1, 1, 1, 2, 2, 2, 2, 3]
    assert batch.position_ids[0].tolist() == [0, 1, 2, 0, 1, 2, 3, 0]
    assert batch.labels[0].tolist() == [IGNORED, 8, 1, IGNORED, 10, 11, 1, IGNORED]


def test_every_row_comes_once_an_epoch(tokens: tuple[Path, int]) -> None:
    """The shuffled order leaves out no row and doubles none; the next epoch has another order."""
    rows = TextRows(tokens[0], CONFIG, tokens[1])
    first = [tuple(rows.row(n).tolist()) for n in range(rows.rows)]
    second = [tuple(rows.row(rows.rows + n).tolist()) for n in range(rows.rows)]
    assert sorted(first) == sorted(second)
    assert first != second


_SCRIPT = """
import sys
from pathlib import Path
from finetune.pretraining import PretrainingConfig, pretrain
from finetune.text_rows import TextRows
from tests.finetune.tiny_models import tiny_decoder
folder, end, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
config = PretrainingConfig(steps=12, rows=4, row_length=32, learning_rate=3e-3, warmup_steps=2, checkpoint_every=2)
import time
rows = TextRows(folder / "text.u16", config, end)
pretrain(tiny_decoder(), rows, config, folder / "run", on_step=lambda s: time.sleep(pause))
"""


@pytest.mark.slow
def test_a_killed_run_ends_as_an_unbroken_one(tokens: tuple[Path, int], tmp_path: Path) -> None:
    """SIGKILL in the middle, then resumption: the same steps and the same loss as without the kill."""
    unbroken = pretrain(tiny_decoder(), TextRows(tokens[0], CONFIG, tokens[1]), CONFIG, tmp_path / "unbroken")
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path), str(tokens[1]), "0.3"]
    run = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.is_file() and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert checkpoint.is_file()
    resumed = pretrain(tiny_decoder(), TextRows(tokens[0], CONFIG, tokens[1]), CONFIG, tmp_path / "run")
    assert resumed.steps == unbroken.steps
    assert resumed.tokens == unbroken.tokens
    assert [step for step, _ in resumed.losses] == list(range(1, 13))
    assert resumed.losses[-1][1] == pytest.approx(unbroken.losses[-1][1], abs=1e-3)


def test_dropout_goes_on_where_it_was(tokens: tuple[Path, int], tmp_path: Path) -> None:
    """A model that trains with random numbers ends, after an interruption, with the loss of an unbroken run."""
    import torch

    def model() -> PreTrainedModel:
        made = tiny_decoder()
        for module in made.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.2
        torch.manual_seed(1)
        return made

    def interrupt(step: Step) -> None:
        if step.step == 7:
            raise RuntimeError("stopped")

    rows = TextRows(tokens[0], CONFIG, tokens[1])
    unbroken = pretrain(model(), rows, CONFIG, tmp_path / "unbroken")
    with pytest.raises(RuntimeError, match="stopped"):
        pretrain(model(), rows, CONFIG, tmp_path / "broken", on_step=interrupt)
    resumed = pretrain(model(), rows, CONFIG, tmp_path / "broken")
    assert resumed.losses[-1][1] == pytest.approx(unbroken.losses[-1][1], abs=1e-5)


def test_a_damaged_checkpoint_is_named(tokens: tuple[Path, int], tmp_path: Path) -> None:
    """A checkpoint that cannot be read is an error with its path, not a fresh start."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"half of a file")
    with pytest.raises((FinetuneError), match=r"checkpoint\.pt"):
        pretrain(tiny_decoder(), TextRows(tokens[0], CONFIG, tokens[1]), CONFIG, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    """Weights are left as they were before the step."""
    import torch

    model = tiny_decoder()
    optimizer = MasterWeights(model, CONFIG)
    before = [weight.detach().clone() for weight in model.parameters()]
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, float("nan"))
    with pytest.raises(FinetuneError, match="no longer finite"):
        optimizer.step(1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_bf16_weights_follow_their_fp32_masters() -> None:
    """Steps too small for bf16 add up in the masters and arrive in the weights."""
    import torch

    model = tiny_decoder().to(torch.bfloat16)
    config = PretrainingConfig(learning_rate=1e-5, warmup_steps=0, weight_decay=0.0)
    optimizer = MasterWeights(model, config)
    weight = model.get_input_embeddings().weight
    before = weight.detach().clone()
    for _ in range(200):
        for each in model.parameters():
            each.grad = torch.ones_like(each)
        optimizer.step(1e-5)
    moved = (before.float() - weight.detach().float())[5:].mean()
    assert float(moved) == pytest.approx(200 * 1e-5, rel=0.2)


def test_the_loss_is_a_weighted_mean(tokens: tuple[Path, int]) -> None:
    """Tokens of weight 0 do not count, and weights only matter relative to one another."""
    from dataclasses import replace

    import torch

    model, batch = tiny_decoder(), TextRows(tokens[0], CONFIG, tokens[1])(0)
    plain = batch_loss(model, batch)
    doubled = batch_loss(model, replace(batch, weights=batch.weights * 2))
    half = batch.weights.clone()
    half[:, 16:] = 0
    first = batch_loss(model, replace(batch, weights=half))
    with torch.no_grad():
        logits = model(
            input_ids=batch.packed.input_ids,
            position_ids=batch.packed.position_ids,
            attention_mask=batch.packed.attention_mask(torch.float32),
        ).logits[:, :15]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.packed.labels[:, 1:16].flatten())
    assert plain.item() == pytest.approx(doubled.item(), abs=1e-5)
    assert first.item() == pytest.approx(expected.item(), abs=1e-4)


def test_the_guide_rewards_attention_where_it_should_be() -> None:
    """All attention inside the guided columns costs nothing, a quarter of it costs log 4, a free token nothing."""
    import torch

    attention = torch.full((1, 1, 2, 4), 0.25)
    attention[0, 0, 1] = torch.tensor([0.5, 0.5, 0.0, 0.0])

    def loss(first: list[int], last: list[int]) -> float:
        return float(guide_loss([attention], Guide(((0, 0),), torch.tensor([first]), torch.tensor([last]))))

    assert loss([-1, 0], [-1, 1]) == pytest.approx(0.0)
    assert loss([2, -1], [2, -1]) == pytest.approx(1.386, abs=1e-3)
    assert loss([1, -1], [2, -1]) == pytest.approx(0.693, abs=1e-3)
    assert loss([-1, -1], [-1, -1]) == 0.0


def test_the_rate_rises_then_falls() -> None:
    """Linear warm-up to the peak, then a cosine down to the final share."""
    config = PretrainingConfig(learning_rate=1.0, warmup_steps=10, final_share=0.1)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 10, 0.0) == pytest.approx(1.0)
    assert learning_rate(config, 500, 0.5) == pytest.approx(0.55)
    assert learning_rate(config, 999, 1.0) == pytest.approx(0.1)


def test_bits_per_character_of_a_model_that_knows_nothing() -> None:
    """Equal probabilities over the vocabulary cost log2 of its size per token."""
    import math

    import torch

    tokenizer = train_tokenizer(TEXTS, vocabulary=300)
    model = tiny_decoder(len(tokenizer))
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()
        model.get_output_embeddings().bias.zero_()
    ids = tokenizer(TEXTS[0])["input_ids"]
    expected = math.log2(len(tokenizer)) * (len(ids) - 1) / len(tokenizer.decode(ids[1:]))
    assert bits_per_character(model, tokenizer, TEXTS[:1]) == pytest.approx(expected, rel=1e-4)


def test_too_little_text_is_an_error(tmp_path: Path) -> None:
    """Fewer tokens than one row cannot be trained on."""
    tokenizer = train_tokenizer(TEXTS, vocabulary=300)
    write_tokens(["Short."], tokenizer, tmp_path / "text.u16")
    with pytest.raises(FinetuneError, match="less than one row"):
        TextRows(tmp_path / "text.u16", CONFIG, tokenizer.eos_token_id)


def test_all_values_out_of_range_are_reported_together() -> None:
    """Each wrong value stands in the one message, and so do contradictions."""
    with pytest.raises(FinetuneError, match=r"rows must be at least 1.*clip"):
        PretrainingConfig(rows=0, clip=0)
    with pytest.raises(FinetuneError, match="rows_at_once and guide_weight contradict"):
        PretrainingConfig(rows_at_once=2, guide_weight=0.1)


def test_parts_of_a_batch_give_the_gradients_of_the_whole(tokens: tuple[Path, int]) -> None:
    """Passing two rows at a time through the model needs less memory and changes nothing but rounding."""
    from dataclasses import replace

    import torch

    from finetune.pretraining import _gradients

    batch = TextRows(tokens[0], CONFIG, tokens[1])(0)
    found = []
    for at_once in (0, 3):
        model = tiny_decoder()
        loss = _gradients(model, batch, replace(CONFIG, rows_at_once=at_once), None)
        found.append((loss, model.get_input_embeddings().weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-4)
