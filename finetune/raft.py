"""RAFT: which passages stand in a training prompt (Zhang et al. 2024, arXiv 2403.10131).

The retriever's own order is kept, so that a model is trained on prompts like those that it will be asked with. Unlike
the paper, a question whose gold passage is withheld trains the sentence that declines and not the answer: Versus
measures refusals, and answers from memory are another arm's matter.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from finetune.config import DataSection
from finetune.dataset import Context

if TYPE_CHECKING:
    from data_prep.questions import Question


def is_withheld(question: Question, data: DataSection, seed: int = 0) -> bool:
    """Tell whether a question is of the share `data.without_gold` that is trained without its gold passage.

    The choice is that of `seed` and the question's id.
    """
    return random.Random(f"{seed}:{question.id}").random() < data.without_gold


def quoting(context: Context, quote: str, data: DataSection) -> Context:
    """Return the context with the quote that its reply has, if the recipe says so."""
    if data.reply == "answer" or not quote:
        return context
    return replace(context, quote=quote, quote_alone=data.reply == "quote")


def raft_context(
    question: Question,
    gold: Sequence[str],
    retrieved: Sequence[str],
    data: DataSection,
    *,
    seed: int = 0,
    count_tokens: Callable[[str], int] | None = None,
    budget: int | None = None,
    quote: str = "",
) -> Context:
    """Return the passages of one question's training prompt, and whether they hold its answer.

    `gold` are the passages that hold the evidence, none for an unanswerable question; nor for an answerable one of
    which nobody says where its answer stands: what is retrieved is taken to hold it. `retrieved` is what the retriever
    finds, best first; it may hold the gold passages. Where `is_withheld` says so, the gold passages are left out. Else
    they stay where the retriever put them; one that it missed is put at a random place. `data.distractors` others stand
    beside them, fewer if more than `budget` tokens as `count_tokens` counts would be needed: the gold passages are kept
    first. `quote` is what of them carries the answer; it is trained with it, or alone, where `data.reply` says so.
    """
    withheld = bool(gold) and is_withheld(question, data, seed)
    chance = random.Random(f"{seed}:{question.id}:place")
    kept = [] if withheld else list(dict.fromkeys(gold))
    others = [passage for passage in dict.fromkeys(retrieved) if passage not in set(gold)]
    wanted = data.distractors + (0 if kept else 1)
    chosen = _within(kept, others[:wanted], count_tokens, budget)
    order = [passage for passage in dict.fromkeys(retrieved) if passage in chosen]
    for passage in kept:
        if passage in chosen and passage not in order:
            order.insert(chance.randint(0, len(order)), passage)
    return quoting(Context(tuple(order), holds_answer=not withheld), quote if kept else "", data)


def _within(
    kept: list[str], others: list[str], count_tokens: Callable[[str], int] | None, budget: int | None
) -> set[str]:
    """Return all of `kept`, and of `others` those that fit into the budget beside them, best first."""
    if count_tokens is None or budget is None:
        return {*kept, *others}
    room = budget - sum(count_tokens(passage) for passage in kept)
    chosen = set(kept)
    for passage in others:
        room -= count_tokens(passage)
        if room < 0 and chosen:
            break
        chosen.add(passage)
    return chosen
