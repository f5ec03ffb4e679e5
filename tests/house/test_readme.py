"""Every command of the README runs, as it stands there; only what a test cannot have is replaced.

Replaced are: the 7B and remote models (by a tiny Llama and a local server), and the length of the training.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.comparison_app.chat_server import chat_server
from tests.comparison_app.command import versus
from tests.finetune.tiny import save_llama

CODE = re.compile(r"```(sh|toml)\n(.*?)```", re.DOTALL)
NOT_RUN_HERE = {"make demo", "make test"}
"""`make test` runs this test; `make demo` has a test of its own (tests/comparison_app/test_demo.py)."""


def _blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "README.md").read_text(encoding="utf-8")
    return [block for kind, block in CODE.findall(text) if kind == language]


def _material(folder: Path) -> None:
    """Write what the README's reader has: a folder of markdown, two question files, an experiment."""
    (folder / "my-manual").mkdir()
    (folder / "my-manual" / "charging.md").write_text("# Charging\n\nA full charge takes 6 hours at home.\n")
    (folder / "my-manual" / "cleaning.md").write_text(
        "# Cleaning\n\nWash the case with warm water, never with petrol.\n"
    )
    train = [{"question": "How long does a full charge take?", "answer": "6 hours at home.", "doc": "charging"}]
    test = [{"question": "What do I wash the case with?", "answer": "Warm water.", "doc": "cleaning"}]
    for name, rows in (("train", train), ("test", test)):
        (folder / f"qa.{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _replaced(command: str, llama: Path, url: str, recipe: Path) -> str:
    command = command.replace("mistralai/Mistral-7B-Instruct-v0.3", str(llama)).replace("--quantization nf4 ", "")
    command = command.replace("versus train mistral-7b-v0.3", f"versus train {recipe}")
    command = command.replace("versus train pocket-live", "versus train pocket-live --max-seconds 12")
    return command.replace("http://localhost:11434/v1", url)


@pytest.mark.slow
def test_the_commands_of_the_readme_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the README's order, in a folder of one's own; every one of them ends with exit code 0."""
    monkeypatch.chdir(tmp_path)
    _material(tmp_path)
    experiment = next(block for block in _blocks(repository, "toml") if 'name = "my-manual"' in block)
    (tmp_path / "my-manual.toml").write_text(experiment)
    llama = save_llama(tmp_path / "tiny-llama", positions=256)
    recipe = tmp_path / "tiny-7b.toml"
    recipe.write_text(f'[model]\nname = "{llama}"\n[optimisation]\nmax_steps = 2\nbatch_size = 2\n')
    lines = [line for block in _blocks(repository, "sh") for line in block.splitlines() if line]
    assert set(lines) >= NOT_RUN_HERE
    with chat_server(lambda text: "It takes 6 hours.") as (url, seen):
        for line in lines:
            if line in NOT_RUN_HERE or line.startswith("versus app"):
                continue
            command = shlex.split(_replaced(line, llama, url, recipe))
            assert command[0] == "versus", line
            done = versus(*command[1:])
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert len(seen) == 2
