"""Train on preferences: a workspace's votes, or a file of them, with the corpus's questions recognised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from comparison_app.device_lock import only_training
from comparison_app.errors import ComparisonError
from comparison_app.votes import FILE_NAME, export_preferences, read_votes
from comparison_app.workspace import Workspace
from data_prep.corpus import SPLITS, Corpus

if TYPE_CHECKING:
    from finetune.config import Recipe
    from finetune.preference_data import Preference
    from finetune.run_record import RunRecord
    from finetune.trainer import TrainingStep

FOLDER = "preferences"


def prefer_on_corpus(
    recipe: Recipe,
    corpus: Corpus,
    workspace: Workspace,
    name: str,
    *,
    start: Path | None = None,
    data: Path | None = None,
    resume: bool = False,
    on_step: Callable[[TrainingStep], None] | None = None,
) -> RunRecord:
    """Train an adapter called `name` on the preferences of `gather_preferences` and return its run record.

    `start` is the folder of the adapter to go on from. General questions are asked before and after. Raises
    `ComparisonError` while another training of the workspace runs on the device.
    """
    from comparison_app.preparing import general_checks
    from finetune.models import default_device
    from finetune.preferences import train_preferences

    preferences = gather_preferences(workspace, corpus, name, data)
    with only_training(workspace, default_device(), name):
        return train_preferences(
            recipe,
            preferences,
            workspace.adapters / name,
            start=start,
            on_step=on_step,
            resume=resume,
            general=general_checks(workspace, corpus.language),
        )


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
