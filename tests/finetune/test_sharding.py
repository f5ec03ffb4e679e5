"""A model shared out among processes for continual pretraining."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.continual import continue_pretraining
from finetune.launching import Launch, run_line
from finetune.models import load_base
from finetune.run_record import read_run_record
from tests.finetune.tiny import TEXTS, save_llama, save_pocket_like
from tests.finetune.two_sharing import QUESTIONS, plan


@pytest.mark.slow
@pytest.mark.parametrize("save", [save_llama, save_pocket_like])
def test_two_processes_that_share_a_model_train_what_one_trains(
    save: Callable[[Path], Path], tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds half; killed and resumed they end with the losses, the figures and the weights of one process."""
    monkeypatch.chdir(repository)
    model, text = save(tmp_path / "base"), tmp_path / "text"
    text.mkdir()
    for number in range(40):
        (text / f"{number:02}.txt").write_text(f"Page {number}. {TEXTS[number % 4]} {TEXTS[(number + 1) % 4]}")
    output = tmp_path / "models" / "shared"
    command = ["tests.finetune.two_sharing", str(model), str(text), str(output)]
    assert run_line(Launch(2, sharded=True).line([*command, "6"])) == 1
    scratch = output.parent / ".shared.training"
    assert {path.name for path in scratch.glob("checkpoint*.pt")} == {
        "checkpoint.pt", "checkpoint-4-1-of-2.pt", "checkpoint-4-2-of-2.pt",
    }  # fmt: skip
    assert run_line(Launch(2, sharded=True).line([*command, "0"])) == 0
    alone = continue_pretraining(plan(model, text), tmp_path / "alone", general=QUESTIONS, device="cpu")
    ranks = [json.loads((output.parent / f"rank-{rank}.json").read_text()) for rank in range(2)]
    whole, one = load_base(str(output), dtype="float32"), load_base(str(tmp_path / "alone"), dtype="float32")
    held = sum(weight.numel() for weight in one.parameters())
    assert sum(rank["held"] for rank in ranks) == held
    assert max(rank["held"] for rank in ranks) < 0.52 * held
    assert all(rank["whole"] for rank in ranks)
    assert sorted(path.name for path in output.parent.iterdir()) == ["rank-0.json", "rank-1.json", "shared"]
    record = read_run_record(output)
    assert [loss for _, loss in record.losses] == pytest.approx([loss for _, loss in alone.losses], abs=1e-3)
    assert ranks[0]["losses"] == ranks[1]["losses"]
    for moment in ("before", "after"):
        assert record.figures[moment] == pytest.approx(alone.figures[moment], abs=1e-3)
    assert record.forgetting == alone.forgetting
    for (name, weight), (other, same) in zip(whole.named_parameters(), one.named_parameters(), strict=True):
        assert name == other
        assert float((weight - same).detach().abs().max()) < 1e-3, name
