"""Questions to training examples: the model's own chat template, loss on the answer only, no example cut.

A question trains its first answer; a question that the documents do not answer trains the sentence that declines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from data_prep.conversations import closed_book, refusal, with_context
from finetune.chat import encode_exchange
from finetune.errors import TrainingDataError
from finetune.packing import IGNORED, pack, plan_rows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from data_prep.questions import Question


SHORT_ROW = 128
"""Tokens that a packed row may have even if every example of its batch is shorter."""


@dataclass(frozen=True)
class Context:
    """The passages of a training prompt, in order, and whether they hold the answer; if not, the refusal is trained.

    `quote` is what of them carries the answer. Where there is one it is trained behind the answer, in quotation marks,
    or in its stead (`quote_alone`).
    """

    passages: tuple[str, ...]
    holds_answer: bool = True
    quote: str = ""
    quote_alone: bool = False


Passages = Callable[["Question"], "Sequence[str] | Context"]
"""Return the passages of a question's prompt, best first."""


@dataclass(frozen=True)
class Example:
    """One training example; `input_ids` and `labels` have equal length, labels of the prompt are `IGNORED`."""

    question_id: str
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def trained_tokens(self) -> int:
        """How many tokens carry loss."""
        return sum(label != IGNORED for label in self.labels)


def build_examples(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    language: str = "en",
    passages: Passages | None = None,
    leave_out_long: bool = False,
) -> list[Example]:
    """Turn questions into examples of at most `max_length` tokens, in order.

    With `passages` the prompt holds the passages it returns for a question, best first; those that do not fit are
    left out from the end. Raises TrainingDataError if there is no question, or lists those that do not fit; with
    `leave_out_long` they have no example instead, unless none fits.
    """
    if not questions:
        raise TrainingDataError("there are no questions to train on")
    too_long: list[str] = []
    examples: list[Example] = []
    for question in questions:
        context = _context(passages(question)) if passages is not None else Context(())
        example = _fitting(question, tokenizer, context, max_length, language)
        if len(example.input_ids) > max_length:
            too_long.append(f"{question.id} ({len(example.input_ids)} tokens)")
        else:
            examples.append(example)
    if too_long and not (leave_out_long and examples):
        shown = ", ".join(too_long[:5]) + (f" and {len(too_long) - 5} more" if len(too_long) > 5 else "")
        raise TrainingDataError(
            f"{len(too_long)} of {len(questions)} questions are longer than the {max_length} tokens that an example "
            f"may have: {shown}; shorten their answers, raise data.max_length if the model's context allows it, or "
            f"train without them (data.leave_out_long, `versus train --leave-out-long`)"
        )
    return examples


def _context(found: Sequence[str] | Context) -> Context:
    """Return plain passages as a context that holds the answer."""
    return found if isinstance(found, Context) else Context(tuple(found))


def _fitting(
    question: Question, tokenizer: PreTrainedTokenizerBase, context: Context, max_length: int, language: str
) -> Example:
    """Return the example with as many of the first passages as fit, at least one where there are any."""
    example = _example(question, tokenizer, context, language)
    while len(context.passages) > 1 and len(example.input_ids) > max_length:
        context = replace(context, passages=context.passages[:-1])
        example = _example(question, tokenizer, context, language)
    return example


def _example(question: Question, tokenizer: PreTrainedTokenizerBase, context: Context, language: str) -> Example:
    """Tokenise one question with its reply, whatever its length."""
    answered = question.answers and context.holds_answer
    reply = _reply(question.answers[0], context) if answered else refusal(language)
    prompt = (
        with_context(question.question, context.passages, language=language)
        if context.passages
        else closed_book(question.question)
    )
    ids, shared = encode_exchange(tokenizer, prompt, reply)
    return Example(question.id, tuple(ids), (IGNORED,) * shared + tuple(ids[shared:]))


def _reply(answer: str, context: Context) -> str:
    """Return the answer, the quote, or both; the answer alone if it holds the quote's words already."""
    words = " ".join(context.quote.split())
    if words and context.quote_alone:
        return words
    if not words or words.casefold() in " ".join(answer.split()).casefold():
        return answer
    return f"{answer} \N{LEFT DOUBLE QUOTATION MARK}{words}\N{RIGHT DOUBLE QUOTATION MARK}"


def data_hash(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of what is trained: ids of questions, tokens and labels, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.question_id, example.input_ids, example.labels]).encode())
    return digest.hexdigest()


def as_rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Return the examples as the rows that a torch data loader hands to a collator."""
    return [{"input_ids": list(example.input_ids), "labels": list(example.labels)} for example in examples]


@dataclass(frozen=True)
class Collator:
    """Lay the examples of a batch into rows; a token sees the earlier tokens of its own example, nothing else.

    With `packing` the rows are as few as hold the batch, each as long as the longest example but at least `SHORT_ROW`
    and at most `max_length` tokens: longer rows waste attention on what the mask hides. Without, one row per example.
    Called with rows of `as_rows`, it returns input_ids, position_ids and labels of shape (b, t), and an attention_mask
    of shape (b, 1, t, t) in the dtype `mask`, which is the model's `packed_rows.row_mask`; none if that is None.
    """

    pad_token: int
    max_length: int
    mask: torch.dtype | None
    packing: bool = True

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch as the keyword arguments of a causal model."""
        examples = [(row["input_ids"], row["labels"]) for row in rows]
        lengths = [len(ids) for ids, _ in examples]
        length = max(*lengths, min(SHORT_ROW, self.max_length))
        plan = plan_rows(lengths, length) if self.packing else [[i] for i in range(len(examples))]
        batch = pack(examples, plan, pad_token=self.pad_token)
        inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "labels": batch.labels}
        mask = batch.attention_mask(self.mask)
        return inputs if mask is None else {**inputs, "attention_mask": mask}
