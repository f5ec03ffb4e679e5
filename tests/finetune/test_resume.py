"""A training that is killed goes on where it was."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_prep.questions import Question
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
@pytest.mark.parametrize(
    ("rate", "steps", "tracking", "ended"),
    [(0.1, 150, {"eval_every": 3, "patience": 1}, "no improvement"), (5e-3, 7, {"save_every": 5}, "finished")],
    ids=["patience", "steps"],
)
def test_a_training_killed_as_it_ended_is_not_trained_on(
    rate: float, steps: int, tracking: dict[str, int], ended: str, pocket_like: Path, tmp_path: Path
) -> None:
    """Where only the writing was left, a resume takes no step: amid an epoch too, it ends with the same adapter."""
    tables = plan(str(pocket_like)).as_dict()
    tables["optimisation"] |= {"learning_rate": rate, "max_steps": steps}
    recipe = _recipe({**tables, "tracking": tracking})
    dev = [Question("d1", "How long does the battery last?", ("Ask a baker, who paints keys of flat doors.",))]
    whole = train_adapter(recipe, questions(), tmp_path / "whole", dev=dev)
    output = tmp_path / "killed"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("finetune.training.write_adapter", interrupt)
        train_adapter(recipe, questions(), output, dev=dev)
    taken: list[TrainingStep] = []
    resumed = train_adapter(recipe, questions(), output, dev=dev, resume=True, on_step=taken.append)
    assert taken == []
    assert whole.stopped == resumed.stopped == ended
    assert whole.steps % 2 == 1, "an epoch has two steps"
    assert (resumed.steps, resumed.losses, resumed.eval_losses) == (whole.steps, whole.losses, whole.eval_losses)
    weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in (output, tmp_path / "whole")]
    assert weights[0] == weights[1]


def interrupt(*_: object) -> None:
    """Stand for a kill at the place of what is not called."""
    raise KeyboardInterrupt


@pytest.fixture
def interrupted(pocket_like: Path, tmp_path: Path) -> Path:
    """The output of a training that was interrupted at step 7, its checkpoint of step 5 beside it."""

    def stop(step: TrainingStep) -> None:
        if step.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapter(plan(str(pocket_like)), questions(), tmp_path / "half", on_step=stop)
    return tmp_path / "half"


@pytest.mark.slow
def test_gradient_checkpointing_may_change_over_a_resume(pocket_like: Path, interrupted: Path) -> None:
    """It is advised when memory runs out, and the checkpoints made before then stay of use."""
    tables = plan(str(pocket_like)).as_dict()
    tables["optimisation"] |= {"gradient_checkpointing": True}
    steps: list[TrainingStep] = []
    train_adapter(_recipe(tables), questions(), interrupted, resume=True, on_step=steps.append)
    assert steps[0].step == 6


@pytest.mark.slow
def test_a_resume_of_another_training_is_refused_with_all_that_differs(pocket_like: Path, interrupted: Path) -> None:
    """Other questions and other settings, each with its value then and now, in one line; the checkpoints stay."""
    tables = plan(str(pocket_like)).as_dict()
    tables["optimisation"] |= {"learning_rate": 1e-3, "schedule": "linear", "epochs": 3.0, "max_steps": None}
    tables["lora"]["rank"] = 8
    with pytest.raises(TrainingError) as caught:
        train_adapter(_recipe(tables), questions()[:2], interrupted, resume=True)
    for part in (
        "other data",
        "lora.rank = 4 (now 8)",
        "optimisation.learning_rate = 0.005 (now 0.001)",
        'optimisation.schedule = "cosine" (now "linear")',
        "optimisation.epochs = none (now 3.0)",
        "optimisation.max_steps = 40 (now none)",
        "without --resume",
    ):
        assert part in str(caught.value)
    assert "seed" not in str(caught.value)
    assert "another base" not in str(caught.value)
    scratch = interrupted.parent / ".half.training"
    assert (scratch / "checkpoint-5").is_dir()
    (scratch / "training.json").write_text('{"data":')
    with pytest.raises(TrainingError, match=r"training\.json: damaged"):
        train_adapter(plan(str(pocket_like)), questions(), interrupted, resume=True)


@pytest.mark.slow
def test_what_does_not_decide_the_course_may_change(
    pocket_like: Path, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed with other saving and another name it goes on, and saves as often as it is told now."""
    tables = plan(str(pocket_like)).as_dict()
    tables["tracking"] |= {"save_every": 2, "report_to": ["tensorboard"]}
    sealed: list[str] = []
    monkeypatch.setattr("finetune.trainer.seal", lambda folder, seconds: sealed.append(folder.name))
    steps: list[int] = []
    train_adapter(_recipe(tables), questions(), interrupted, resume=True, on_step=lambda s: steps.append(s.step))
    assert steps[0] == 6
    assert sealed[:3] == ["checkpoint-6", "checkpoint-8", "checkpoint-10"]


@pytest.mark.slow
def test_where_a_resume_is_only_offered_another_training_starts_anew(pocket_like: Path, interrupted: Path) -> None:
    """As in `versus compare`, where nobody can say that it should start again."""
    steps: list[int] = []
    other = plan(str(pocket_like), rank=8)
    train_adapter(other, questions(), interrupted, resume="if same", on_step=lambda s: steps.append(s.step))
    assert steps == list(range(1, 41))


def _recipe(tables: dict[str, Any]) -> Recipe:
    """Return the recipe of `as_dict`, as TOML would say it: what is not set is left out."""
    sections = {
        key: {name: value for name, value in table.items() if value is not None}
        for key, table in tables.items()
        if isinstance(table, dict)
    }
    return recipe_from_mapping(sections, name="changed", source="test")


def damage(checkpoint: Path) -> None:
    """Flip one byte of the adapter's weights in a checkpoint."""
    path = checkpoint / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
