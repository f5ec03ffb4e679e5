"""Folders that are written whole or not at all: interrupted, killed, on a full disk, beside what others made."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comparison_app.workspace import Workspace
from data_prep.errors import VersusError
from finetune.checkpoints import seal, writing_checkpoints
from finetune.disk_failures import readable_writing
from finetune.errors import FinetuneError
from finetune.master_weights import MasterWeights
from finetune.new_folders import new_folder
from finetune.pretraining import PretrainingConfig
from finetune.pretraining_state import Progress, save
from finetune.swapped_model import write_model
from finetune.training import TrainingStep, train_adapter
from tests.finetune.test_resume import plan
from tests.finetune.tiny import questions, save_llama

RECORD = "run_record.json"
WRITER = """
import sys, os, signal
from pathlib import Path
from finetune.new_folders import new_folder

name, moment, how = sys.argv[1:]
real, count = Path.replace, 0

def replace(self, target):
    global count
    count += 1
    if moment == f"before {count}":
        stop()
    real(self, target)
    if moment == f"after {count}":
        stop()

def stop():
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise KeyboardInterrupt

Path.replace = replace
with new_folder(Path(name)) as folder:
    (folder / "weights").write_text("ne")
    if moment == "within":
        stop()
    (folder / "weights").write_text("new")
    (folder / "run_record.json").write_text("new")
"""
MOMENTS = ("within", "before 1", "after 1", "before 2", "after 2", "before 3", "after 3")
"""Of the renames: the old folder goes aside (1), the draft takes its name (2), the old one becomes rubbish (3)."""


def _made(folder: Path, content: str = "old") -> Path:
    folder.mkdir(parents=True)
    for name in ("weights", RECORD):
        (folder / name).write_text(content)
    return folder


def _write(place: Path, content: str) -> None:
    with new_folder(place) as folder:
        for name in ("weights", RECORD):
            (folder / name).write_text(content)


def _stopped(place: Path, moment: str, how: str) -> int:
    command = [sys.executable, "-c", WRITER, str(place), moment, how]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=False).returncode


def _contents(place: Path) -> set[str]:
    return {path.read_text() for path in place.iterdir()}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_write_loses_neither_the_old_nor_shows_half_of_the_new(tmp_path: Path, moment: str) -> None:
    """After SIGKILL at any moment no half folder is an adapter, and the next write, even a failing one, mends all."""
    place = _made(tmp_path / "adapters" / "x")
    assert _stopped(place, moment, "kill") == -signal.SIGKILL
    if place.exists():
        assert _contents(place) in ({"old"}, {"new"})
    assert set(Workspace(tmp_path).adapter_names()) - {"x"} == set(Workspace(tmp_path / "none").adapter_names())
    with pytest.raises(RuntimeError, match="no luck"), new_folder(place):
        raise RuntimeError("no luck")
    assert _contents(place) == ({"new"} if moment in ("after 2", "before 3", "after 3") else {"old"})
    assert [path.name for path in place.parent.iterdir()] == ["x"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupted_write_leaves_a_whole_folder_under_the_name(tmp_path: Path, moment: str) -> None:
    """Ctrl-C between the two renames brings the old folder back at once; no draft stays."""
    place = _made(tmp_path / "x")
    assert _stopped(place, moment, "interrupt") != 0
    assert _contents(place) == ({"new"} if moment in ("after 2", "before 3", "after 3") else {"old"})
    assert not list(tmp_path.glob(".x.new-*")) or moment == "after 3"
    _write(place, "newer")
    assert _contents(place) == {"newer"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_failed_second_rename_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the file system in that moment is told in one line, and nothing is lost."""
    place, real = _made(tmp_path / "x"), Path.replace

    def replace(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(FinetuneError, match=r"cannot write .*/x: Input/output error"):
        _write(place, "new")
    assert _contents(place) == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_draft_of_a_living_process_stays(tmp_path: Path) -> None:
    """Two processes may write one name: the later one wins, and neither takes the other's draft away."""
    place = _made(tmp_path / "x")
    waiting = WRITER.replace('(folder / "weights").write_text("ne")', "print(folder, flush=True); sys.stdin.read()")
    command = [sys.executable, "-c", waiting, str(place), "never", "kill"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        draft = Path(other.stdout.readline().strip())
        _write(place, "mine")
        assert draft.is_dir()
        assert _contents(place) == {"mine"}
        other.communicate("")
    assert other.returncode == 0
    assert _contents(place) == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_was_not_made_here_is_never_replaced(tmp_path: Path) -> None:
    """A folder of documents, or a file, is refused and stays; an empty folder is taken."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("docs", "file"):
        with pytest.raises(FinetuneError, match=f"{name} holds what Versus did not make"):
            _write(tmp_path / name, "new")
    _write(tmp_path / "empty", "new")
    assert (tmp_path / "docs" / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs", "empty", "file"]


def test_a_link_to_another_disk_stays_one(tmp_path: Path) -> None:
    """What the link names is replaced, not the link."""
    _made(tmp_path / "large" / "x")
    (tmp_path / "x").symlink_to(tmp_path / "large" / "x")
    _write(tmp_path / "x", "new")
    assert (tmp_path / "x").is_symlink()
    assert _contents(tmp_path / "large" / "x") == {"new"}


def test_files_reach_the_disk_before_the_folder_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and folder of the draft is synced before the rename, the folder of the names after it."""
    done: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        done.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        done.append(f"-> {target.name}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    with new_folder(tmp_path / "x") as folder:
        (folder / "part").mkdir()
        (folder / "part" / "weights").write_text("new")
        draft = folder.name
    assert {"weights", "part", draft} == set(done[:3])
    assert done[3:] == ["-> x", tmp_path.name]


@contextmanager
def _full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_model_that_does_not_fit_on_the_disk_leaves_the_last_one(tmp_path: Path) -> None:
    """What safetensors raises is told in one line; the old folder stays, and no draft fills the disk."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = save_llama(tmp_path / "base")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    place = _made(tmp_path / "x")
    with _full_disk(100_000), pytest.raises(FinetuneError, match=r"cannot write .*/x: File too large"):
        write_model(model, tokenizer, None, place)  # type: ignore[arg-type]
    assert _contents(place) == {"old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "x"]


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_last_one(tmp_path: Path) -> None:
    """What torch raises is told in one line; the checkpoint before stays, and no part of the new one."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save_llama(tmp_path / "base"))
    optimizer, path = MasterWeights(model, PretrainingConfig()), tmp_path / "scratch" / "checkpoint.pt"
    path.parent.mkdir()
    save(path, optimizer, Progress(step=1))
    before = path.read_bytes()
    with _full_disk(100_000), pytest.raises(FinetuneError, match=r"cannot write .*checkpoint\.pt: File too large"):
        save(path, optimizer, Progress(step=2))
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.slow
def test_a_training_s_checkpoint_that_does_not_fit_leaves_the_last_sealed_one(
    pocket_like: Path, tmp_path: Path
) -> None:
    """The adapter that stood there stays, the half checkpoint goes, and the sealed one can be resumed."""
    place, recipe = _made(tmp_path / "x"), plan(str(pocket_like))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: TrainingStep) -> None:
        if step.step == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limit[1]))

    try:
        with pytest.raises(FinetuneError, match=r"cannot write .*\.x\.training: File too large"):
            train_adapter(recipe, questions(), place, on_step=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert _contents(place) == {"old"}
    assert [each.name for each in (tmp_path / ".x.training").glob("checkpoint-*")] == ["checkpoint-5"]
    assert train_adapter(recipe, questions(), place, resume=True).steps == 40


def test_a_checkpoint_whose_seal_does_not_fit_goes(tmp_path: Path) -> None:
    """The seal is written by ourselves, not by a library: its failure is one line too, and no half checkpoint stays."""
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (folder / "weights").write_bytes(b"w" * 50)
    with (
        _full_disk(60),
        pytest.raises(VersusError, match=r"cannot write .*: File too large"),
        writing_checkpoints(tmp_path),
    ):
        seal(folder, 1.0)
    assert not list(tmp_path.iterdir())


def test_what_is_written_can_be_read_by_others(tmp_path: Path) -> None:
    """A server of another user (Ollama, a container) loads the weights; safetensors lets their owner read alone."""
    import torch
    from safetensors.torch import save_file

    with new_folder(tmp_path / "x") as folder:
        (folder / "part").mkdir(mode=0o700)
        save_file({"weight": torch.zeros(2)}, folder / "part" / "model.safetensors")
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "x").rglob("*")} == {
        "part": 0o755,
        "model.safetensors": 0o644,
    }


def test_folders_that_people_call_old_are_left_alone(tmp_path: Path) -> None:
    """Only what this module put aside is brought back or cleared away."""
    _made(tmp_path / "x")
    for name in (".x.old", ".y.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years of work")
    for name in ("x", "y"):
        with new_folder(tmp_path / name) as folder:
            (folder / "weights").write_text("new")
    assert (tmp_path / "x" / "weights").read_text() == (tmp_path / "y" / "weights").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"x", "y", ".x.old", ".y.old"}
    assert (tmp_path / ".y.old" / "thesis.txt").read_text() == "years of work"


def test_every_library_s_failed_write_is_told_alike_and_other_errors_are_not(tmp_path: Path) -> None:
    """Tokenizers raises `Exception`, torch given a path keeps the system's reason to itself."""
    import torch
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({f"word {number}": number for number in range(9000)}, unk_token="word 0"))
    with _full_disk(100_000):
        with pytest.raises(FinetuneError, match="cannot write it: File too large"), readable_writing(Path("it")):
            words.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(FinetuneError, match="cannot write it: no space left"), readable_writing(Path("it")):
            torch.save(torch.zeros(100_000), tmp_path / "a.pt")
    with pytest.raises(RuntimeError, match="a bug"), readable_writing(Path("it")):
        raise RuntimeError("a bug")
