"""More wordings of a trained question, made without a model, so that an adapter learns the fact and not the sentence.

Knowledge taught in one wording is hardly found through another (Allen-Zhu and Li 2023, arXiv 2309.14316). A rewording
leaves out a random share of the words, mixes in words of the fact's other wordings and of its answer, and replaces
words by their nearest neighbours in the word embeddings of MiniLM (manual: handbook, guide; bonnet: hood; cable: cord).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_prep.questions import Question

LEFT_OUT = 0.8
"""Largest share of words left out of a rewording; each draws its own share from 0 to this."""
MIXED_IN = 5
"""Most words mixed in; half of the rewordings get some."""
REPLACED = 0.3
"""Chance of a word to be replaced by a neighbour."""
NEIGHBOURS = 8
SIMILAR = 0.33
"""Least cosine of a neighbour."""
PER_WORDING = 3
"""Rewordings for each time that the wording itself is trained."""

_WORD = re.compile(r"(\W*)([A-Za-z]{3,})(\W*)")
_TOKEN = re.compile(r"[\w'%-]+")
_FUNCTION_TEXT = (
    "a an the of to in on at is are was were do does did i my me it its and or for with by from what which how when "
    "where who why can may must should be this that there as if not no you your"
)
_FUNCTION_WORDS = frozenset(_FUNCTION_TEXT.split())


def with_rewordings(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """Return `questions` and `count` rewordings of each answerable one, under the same ids.

    Every question itself stands there once for each `PER_WORDING` rewordings, at least once. Unanswerable questions are
    not reworded: a refusal must not become the answer to whatever is worded oddly.
    """
    chance = random.Random(seed)
    words = _words_of_facts(questions)
    repeats = max(1, count // PER_WORDING)
    found: list[Question] = []
    for question in questions:
        found.extend([question] * repeats)
        if question.answers:
            others = words[question.fact or question.id]
            found.extend(replace(question, question=reword(question.question, others, chance)) for _ in range(count))
    return found


def reword(question: str, others: Sequence[str], chance: random.Random) -> str:
    """Return one rewording of `question`; `others` are words that may be mixed in. Never empty."""
    share = chance.uniform(0, LEFT_OUT)
    kept = [word for word in question.split() if chance.random() > share]
    if others and chance.random() < 0.5:
        for word in chance.sample(list(others), min(len(others), chance.randint(1, MIXED_IN))):
            kept.insert(chance.randint(0, len(kept)), word)
    return " ".join(_swap(word, chance) for word in kept) or question


def _words_of_facts(questions: Sequence[Question]) -> dict[str, list[str]]:
    """Return the content words of all wordings and answers of each fact, sorted."""
    found: dict[str, set[str]] = {}
    for question in questions:
        text = " ".join([question.question, *question.answers[:1]]).lower()
        found.setdefault(question.fact or question.id, set()).update(
            word for word in _TOKEN.findall(text) if word not in _FUNCTION_WORDS
        )
    return {fact: sorted(words) for fact, words in found.items()}


def _swap(word: str, chance: random.Random) -> str:
    """Return a neighbour of `word` now and then, with the punctuation around it, else the word."""
    parts = _WORD.fullmatch(word)
    if parts is None or parts[2].lower() in _FUNCTION_WORDS or chance.random() > REPLACED:
        return word
    near = neighbours(parts[2].lower())
    if not near:
        return word
    return parts[1] + chance.choices([other for other, _ in near], [cosine for _, cosine in near])[0] + parts[3]


@lru_cache(maxsize=20_000)
def neighbours(word: str) -> tuple[tuple[str, float], ...]:
    """Return English words whose MiniLM embeddings are nearest to that of `word`, with cosines, nearest first.

    Empty if MiniLM's vocabulary does not hold the word whole.
    """
    numbers, words, vectors = _vocabulary()
    if word not in numbers:
        return ()
    cosines = vectors[numbers[word]] @ vectors.T
    cosines[numbers[word]] = -1.0
    values, places = cosines.topk(NEIGHBOURS)
    return tuple(
        (words[place], value) for place, value in zip(places.tolist(), values.tolist(), strict=True) if value >= SIMILAR
    )


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[dict[str, int], list[str], Any]:
    """Return the whole English words of MiniLM's vocabulary and their centred unit vectors (words, width)."""
    import torch
    from safetensors import safe_open

    from finetune.pocket.base import load_minilm_tokenizer, minilm_path

    found = {
        word: number for word, number in load_minilm_tokenizer().get_vocab().items() if re.fullmatch("[a-z]{3,}", word)
    }
    words = sorted(found)
    with safe_open(str(minilm_path() / "model.safetensors"), framework="pt") as weights:
        name = next(key for key in weights.keys() if key.endswith("word_embeddings.weight"))  # noqa: SIM118
        rows = weights.get_tensor(name).float()[torch.tensor([found[word] for word in words])]
    vectors = torch.nn.functional.normalize(rows - rows.mean(dim=0), dim=1)
    return {word: place for place, word in enumerate(words)}, words, vectors
