"""Questions as people ask them, drafted by a language model for sentences of the pretraining text.

The model was shown title and section of the page, the end of the sentence before, and the sentence, and wrote two
questions that the sentence answers: in the words of somebody who has not read it, unlike each other, the subject named,
the answer not given away; sentences that nobody would ask for were passed over (one in sixteen). `asked.jsonl` holds no
text of that data: a sentence is named by the hash of its words, so that the questions can be asked of whoever has it.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from finetune.pocket.instruct import Fact
from finetune.pocket.text import Passage, sentences

QUESTIONS = Path(__file__).parent / "asked.jsonl"


def sentence_key(text: str) -> str:
    """Return the name of a sentence: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_asked(path: Path = QUESTIONS) -> dict[str, tuple[str, ...]]:
    """Read the drafted questions of each sentence, by its key."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {row["sentence"]: tuple(row["questions"]) for row in rows}


def without(asked: Mapping[str, tuple[str, ...]], pages: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the questions of those sentences that stand on none of the pages: manuals repeat each other."""
    keys = (sentence_key(sentence.text) for page in pages for sentence in sentences(page))
    found = {key for key in keys if key in asked}
    return {key: questions for key, questions in asked.items() if key not in found}


class AskedFacts:
    """Drafted questions as facts: the answer is the sentence, as it stands."""

    def __init__(self, asked: Mapping[str, tuple[str, ...]]) -> None:
        self._asked = asked

    def of_page(self, text: str) -> bool:
        """Tell whether a question was drafted for a sentence of this page."""
        return any(sentence_key(sentence.text) in self._asked for sentence in sentences(text))

    def draw(self, passage: Passage, rng: random.Random) -> Fact | None:
        """Draw a question of the passage; None if none of its sentences is asked for."""
        held = [each for each in passage.sentences if sentence_key(each.text) in self._asked]
        if not held:
            return None
        sentence = rng.choice(held)
        question = rng.choice(self._asked[sentence_key(sentence.text)])
        return Fact(question, sentence.text, (sentence,), passage, "asked")
