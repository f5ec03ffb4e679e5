"""A training that is killed goes on where it was."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.config import Recipe, recipe_from_mapping
from finetune.errors import TrainingError
from finetune.training import TrainingStep, train_adapter
from tests.finetune.tiny import questions

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.finetune.test_resume import plan
from tests.finetune.tiny import questions
from finetune.training import train_adapter

def kill(step):
    if step.step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

train_adapter(plan(sys.argv[1]), questions(), Path(sys.argv[2]), on_step=kill)
"""


def plan(model: str, rank: int = 4) -> Recipe:
    """Return a recipe of 40 steps with dropout and a checkpoint after every fifth."""
    tables = {
        "model": {"name": model},
        "lora": {"rank": rank, "alpha": 8, "dropout": 0.1},
        "optimisation": {"max_steps": 40, "learning_rate": 5e-3, "batch_size": 2, "seed": 5},
        "tracking": {"save_every": 5},
    }
    return recipe_from_mapping(tables, name="resumable", source="test")


def kill_at(step: int, model: Path, output: Path, repository: Path) -> None:
    """Train in a process of its own that kills itself after `step` steps."""
    arguments = [sys.executable, "-c", KILLED, str(model), str(output), str(step)]
    done = subprocess.run(arguments, cwd=repository, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_loss(pocket_like: Path, tmp_path: Path, repository: Path) -> None:
    """After SIGKILL at step 18 no adapter is there; resumed, it ends at the same step and loss as undisturbed."""
    undisturbed = train_adapter(plan(str(pocket_like)), questions(), tmp_path / "whole")
    output = tmp_path / "killed"
    kill_at(18, pocket_like, output, repository)
    assert not output.exists()
    steps: list[TrainingStep] = []
    resumed = train_adapter(plan(str(pocket_like)), questions(), output, resume=True, on_step=steps.append)
    assert steps[0].step == 16
    assert resumed.steps == undisturbed.steps == 40
    assert resumed.losses[-1][1] == pytest.approx(undisturbed.losses[-1][1], abs=1e-3)
    assert [step for step, _ in resumed.losses] == list(range(1, 41))
    assert not list(tmp_path.glob(".killed*"))


@pytest.mark.slow
def test_damaged_checkpoints_are_passed_over(pocket_like: Path, tmp_path: Path, repository: Path) -> None:
    """A checkpoint with a changed byte is not used: the one before it is; with none left the error says what to do."""
    output = tmp_path / "killed"
    kill_at(18, pocket_like, output, repository)
    scratch = tmp_path / ".killed.training"
    damage(scratch / "checkpoint-15")
    copy = tmp_path / "copy"
    shutil.copytree(scratch, copy)
    steps: list[TrainingStep] = []
    train_adapter(plan(str(pocket_like)), questions(), output, resume=True, on_step=steps.append)
    assert steps[0].step == 11
    copy.rename(scratch)
    damage(scratch / "checkpoint-10")
    with pytest.raises(TrainingError, match="every checkpoint is damaged"):
        train_adapter(plan(str(pocket_like)), questions(), output, resume=True)


@pytest.mark.slow
def test_a_resume_with_other_data_is_refused(pocket_like: Path, tmp_path: Path, repository: Path) -> None:
    """Checkpoints of other questions or another adapter shape are never mixed in."""
    output = tmp_path / "killed"
    kill_at(7, pocket_like, output, repository)
    with pytest.raises(TrainingError, match="without --resume"):
        train_adapter(plan(str(pocket_like)), questions()[:2], output, resume=True)
    with pytest.raises(TrainingError, match="without --resume"):
        train_adapter(plan(str(pocket_like), rank=8), questions(), output, resume=True)


def damage(checkpoint: Path) -> None:
    """Flip one byte of the adapter's weights in a checkpoint."""
    path = checkpoint / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
