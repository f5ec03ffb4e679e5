"""Examples cut down to what retrieval shows a small model: single sentences, the one that answers among others.

A model of 512 positions is shown the best few sentences of the retrieved chunks, not whole chunks
(`rag.config.RagConfig.context_sentences`). These examples look like that, and are short, so that many fit into a step.
"""

from __future__ import annotations

import random
from dataclasses import replace

from finetune.pocket.instruct import Example
from finetune.pocket.lexicon import content_words
from finetune.pocket.text import sentences

EXCERPTS = "excerpts"
"""What held-out examples cut down like this are called beside the levels of the curriculum."""
MOST_OTHERS = 4
"""Sentences that stand beside the one that answers, at most; their number is drawn for each example."""
ALIKE = 0.6
"""Chance that the others are those that share the most words with the question, as retrieval would have them."""
FEWEST_WORDS = 4


def excerpted(example: Example, rng: random.Random) -> Example:
    """Return `example` with its sources cut down to the copied sentences and a few others, in random order.

    One that is to be declined keeps a few sentences, as alike to the question as those of the others: if refusals
    alone had long sources, the model would learn to decline whatever is long. Only the first turn is kept. Examples
    without sources come back as they are.
    """
    if not example.passages:
        return example
    answer = [" ".join(example.copied)] if example.copied else []
    others = [
        part
        for passage in example.passages
        for part in _sentences(passage)
        if len(part.split()) >= FEWEST_WORDS and not any(part in each or each in part for each in answer)
    ]
    sources = [*answer, *_others(example.question, others, rng)] or others[:1]
    if not sources:
        return example
    rng.shuffle(sources)
    return replace(example, passages=tuple(sources), follow_ups=())


def _sentences(passage: str) -> list[str]:
    return [passage[part.start : part.end].strip() for part in sentences(passage)]


def _others(question: str, others: list[str], rng: random.Random) -> list[str]:
    """Draw up to `MOST_OTHERS` sentences, now and then those most like the question."""
    count = min(rng.randint(0, MOST_OTHERS), len(others))
    if rng.random() >= ALIKE:
        return rng.sample(others, count)
    asked = {word.lower() for word in content_words(question)}
    return sorted(others, key=lambda other: -len(asked & {word.lower() for word in content_words(other)}))[:count]
