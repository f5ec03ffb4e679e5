"""`versus prefer`: votes become an adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comparison_app import cli
from comparison_app.errors import ComparisonError
from comparison_app.preferring import gather_preferences
from comparison_app.votes import Vote, VoteStore
from comparison_app.workspace import Workspace
from data_prep.corpus import load_corpus
from finetune.config import load_recipe
from finetune.run_record import read_run_record
from tests.finetune.tiny import save_pocket_like


def _vote(store: VoteStore, question: str, corpus: str = "lamp-manual", outcome: str = "a") -> None:
    store.add(Vote(question, ("rag", "base"), outcome, answers=(f"Good: {question}", "Bad."), corpus=corpus))


@pytest.mark.slow
def test_votes_become_an_adapter(small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only votes on the corpus that prefer an answer count, and prompts that are its questions are recorded by id."""
    corpus, workspace = load_corpus(small_corpus), Workspace(tmp_path / "workspace")
    store = VoteStore(workspace.path / "votes.sqlite")
    asked = corpus.questions("test")[0]
    _vote(store, asked.question)
    _vote(store, "Is it any good?", outcome="b")
    _vote(store, "Is it heavy?", outcome="tie")
    _vote(store, "Is it blue?", corpus="another")
    model = save_pocket_like(tmp_path / "model")
    recipe = tmp_path / "votes.toml"
    recipe.write_text(
        f'[model]\nname = "{model}"\n[optimisation]\nmax_steps = 3\nlearning_rate = 5e-3\n[dpo]\nmin_pairs = 2\n'
    )
    arguments = ["prefer", str(recipe), "--corpus", str(small_corpus), "--workspace", str(workspace.path)]
    assert cli.main([*arguments, "--name", "voted", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["adapter"], told["pairs"], told["start"]) == ("voted", 2, None)
    assert told["margin_after"] > told["margin_before"]
    assert read_run_record(workspace.adapter("voted")).trained_ids == (asked.id,)
    rows = [json.loads(line) for line in (workspace.path / "preferences" / "voted.jsonl").read_text().splitlines()]
    assert [row["chosen"] for row in rows] == [f"Good: {asked.question}", "Bad."]
    assert cli.main([*arguments, "--name", "voted", "--adapter", "voted"]) == 1
    assert "another name" in capsys.readouterr().err


def test_votes_with_any_line_separator_are_read(small_corpus: Path, tmp_path: Path) -> None:
    """An answer may hold characters at which Python, but not JSONL, ends a line."""
    corpus, workspace = load_corpus(small_corpus), Workspace(tmp_path / "workspace")
    _vote(VoteStore(workspace.path / "votes.sqlite"), "Is it\u2028heavy?")
    assert [each.prompt for each in gather_preferences(workspace, corpus, "x")] == ["Is it\u2028heavy?"]


def test_votes_that_prefer_nothing_are_refused(small_corpus: Path, tmp_path: Path) -> None:
    """Without a preference there is nothing to learn, and no file is left behind."""
    corpus, workspace = load_corpus(small_corpus), Workspace(tmp_path / "workspace")
    _vote(VoteStore(workspace.path / "votes.sqlite"), "Is it heavy?", outcome="tie")
    with pytest.raises(ComparisonError, match="none of the 1 votes on corpus lamp-manual"):
        gather_preferences(workspace, corpus, "x")
    assert not list((workspace.path / "preferences").iterdir())


def test_a_recipe_for_preferences_is_not_trained_on_questions(small_corpus: Path, tmp_path: Path) -> None:
    """`versus train pocket-dpo` says which command takes it."""
    from comparison_app.training import train_on_corpus

    with pytest.raises(ComparisonError, match="versus prefer"):
        train_on_corpus(load_recipe("pocket-dpo"), load_corpus(small_corpus), Workspace(tmp_path), "x")
