"""Preferences to learn from: a workspace's votes, or a file of them, with the corpus's questions recognised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from comparison_app.errors import ComparisonError
from comparison_app.votes import FILE_NAME, export_preferences, read_votes
from comparison_app.workspace import Workspace
from data_prep.corpus import SPLITS, Corpus

if TYPE_CHECKING:
    from finetune.preference_data import Preference

FOLDER = "preferences"


def gather_preferences(workspace: Workspace, corpus: Corpus, name: str, data: Path | None = None) -> list[Preference]:
    """Return the preferences of the file `data`, or those of people's votes on answers about `corpus`.

    Votes are exported to `preferences/NAME.jsonl` of the workspace first, so that what was trained can be read.
    A prompt that is one of the corpus's questions, word for word, carries its id. Raises `ComparisonError` if no vote
    prefers an answer, `TrainingDataError` for a bad file.
    """
    from finetune.preference_data import read_preferences

    if data is None:
        votes = [vote for vote in read_votes(workspace.path / FILE_NAME) if vote.corpus == corpus.name]
        data = workspace.path / FOLDER / f"{name}.jsonl"
        if not export_preferences(votes, data):
            data.unlink()
            raise ComparisonError(
                f"{workspace.path / FILE_NAME}: none of the {len(votes)} votes on corpus {corpus.name} prefers one "
                "answer to another; vote in `versus app`, or give --data FILE"
            )
    ids = {question.question.strip(): question.id for split in SPLITS for question in corpus.questions(split)}
    return read_preferences(data, ids)
