"""What training makes a model forget: general multiple-choice questions, answered before and after.

An option's score is the mean log-probability of its tokens as the reply to the question (length-normalised, as in the
`acc_norm` of Gao et al.'s Language Model Evaluation Harness); the option with the highest score is the model's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.conversations import closed_book
from finetune.chat import encode_exchange
from finetune.dataset import Collator
from finetune.errors import TrainingDataError
from finetune.json_lines import json_lines, json_value
from finetune.packed_rows import row_mask
from finetune.packing import IGNORED

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

SHARED_OUT = "the processes share the model's weights, and none of them can ask alone"
LONGEST = 512
"""Tokens of a question with an option."""


@dataclass(frozen=True)
class MultipleChoice:
    """A question with options, one of which, `options[answer]`, is right."""

    question: str
    options: tuple[str, ...]
    answer: int

    def __post_init__(self) -> None:
        if len(self.options) < 2 or not 0 <= self.answer < len(self.options):
            raise TrainingDataError(
                f"multiple choice {self.question!r} has {len(self.options)} options and answer {self.answer}: give two "
                "or more options, and the right one's number from 0"
            )


def read_multiple_choice(path: Path, **only: str) -> list[MultipleChoice]:
    """Read JSONL of `{"question", "options", "answer"}`, `answer` being an option's number from 0 or its text.

    `only` names keys and the values that they must have (`language="en"`); other keys are left alone. Raises
    TrainingDataError that names file and line.
    """
    found = []
    for number, line in json_lines(path):
        try:
            row = json_value(line)
            if any(row.get(key) != value for key, value in only.items()):
                continue
            options = tuple(str(option) for option in row["options"])
            answer = row["answer"] if isinstance(row["answer"], int) else options.index(row["answer"])
            found.append(MultipleChoice(str(row["question"]), options, answer))
        except (ValueError, KeyError, TypeError, AttributeError, TrainingDataError) as error:
            raise TrainingDataError(f"{path}, line {number}: not a multiple-choice question: {error}") from error
    return found


def multiple_choice_score(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    checks: Sequence[MultipleChoice],
    *,
    max_length: int,
    batch_size: int = 16,
) -> float:
    """Return the share of `checks` whose right option is the most probable one. Raises TrainingDataError if none."""
    if not checks:
        raise TrainingDataError("there are no multiple-choice questions to ask")
    exchanges = [
        encode_exchange(tokenizer, closed_book(check.question), option) for check in checks for option in check.options
    ]
    rows = [
        {"input_ids": ids[:max_length], "labels": [IGNORED] * shared + ids[shared:max_length]}
        for ids, shared in exchanges
    ]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]["input_ids"]))
    scores = [0.0] * len(rows)
    longest = max(len(row["input_ids"]) for row in rows)
    collate = Collator(int(tokenizer.pad_token_id or 0), max_length, row_mask(model, longest), packing=False)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        for index, score in zip(chosen, _mean_logprobs(model, collate([rows[i] for i in chosen])), strict=True):
            scores[index] = score
    right, place = 0, 0
    for check in checks:
        own = scores[place : place + len(check.options)]
        right += own.index(max(own)) == check.answer
        place += len(check.options)
    return right / len(checks)


def general_score(model: Any, tokenizer: PreTrainedTokenizerBase, checks: Sequence[MultipleChoice]) -> float:
    """Return the share of `checks` that `model` gets right, each exchange cut to the model's positions, 512 at most."""
    positions = int(getattr(model.config, "max_position_embeddings", LONGEST))
    return multiple_choice_score(model.eval(), tokenizer, checks, max_length=min(positions, LONGEST))


def why_not_asked(tokenizer: PreTrainedTokenizerBase, checks: Sequence[MultipleChoice]) -> str:
    """Return why general questions cannot be asked of a model with `tokenizer`; empty if they can."""
    if not checks:
        return "no general multiple-choice questions were given"
    if not tokenizer.chat_template:
        return "the model has no chat template to ask them in"
    return ""


def _mean_logprobs(model: Any, batch: dict[str, torch.Tensor]) -> list[float]:
    """Return the mean log-probability of the labelled tokens of each row."""
    import torch

    moved = {name: tensor.to(model.device) for name, tensor in batch.items()}
    labels = moved.pop("labels")[:, 1:]
    with torch.no_grad():  # what processes gather of a shared model in inference mode could not be trained after
        logits = model(**moved, use_cache=False).logits[:, :-1].float()
        trained = labels != IGNORED
        chosen = logits.gather(2, labels.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(dim=-1)
        means = (chosen * trained).sum(dim=1) / trained.sum(dim=1).clamp(min=1)
    values: list[float] = means.tolist()
    return values
