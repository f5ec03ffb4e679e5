"""Words of like meaning, from MiniLM itself, to reword questions with.

A question made from a sentence shares its words; people's questions do not. Replacing words by their neighbours in the
space of MiniLM's embeddings, dropping some and slipping in strange ones teaches the model to match meaning, and not to
decline just because a word of the question is missing from the sources.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.pocket.base import load_minilm_tokenizer, minilm_path
from finetune.pocket.instruct import Example
from finetune.pocket.lexicon import content_words


@dataclass(frozen=True)
class Neighbours:
    """For each frequent word the words nearest in meaning, nearest first; `words` are all of them."""

    table: dict[str, tuple[str, ...]]
    words: tuple[str, ...]

    def reword(self, question: str, rng: random.Random) -> str:
        """Return `question` with some content words replaced, dropped or strange, at least one left as it was."""
        content = {word.lower() for word in content_words(question)}
        spared = rng.choice(sorted(content)) if content else ""
        words: list[str] = []
        for word in question.split():
            plain = word.strip("?.,\"'()").lower()
            if plain in content and plain != spared:
                drawn = rng.random()
                if drawn < 0.35 and plain in self.table:
                    word = word.lower().replace(plain, rng.choice(self.table[plain]))
                elif drawn < 0.45:
                    continue
                elif drawn < 0.55:
                    word = rng.choice(self.words)
            words.append(word)
        for _ in range(rng.choice((0, 0, 1, 2))):
            words.insert(rng.randint(0, len(words)), rng.choice(self.words))
        return " ".join(words)

    def reworded(self, example: Example, rng: random.Random) -> Example:
        """Reword all questions of an example."""
        follow_ups = tuple(replace(turn, question=self.reword(turn.question, rng)) for turn in example.follow_ups)
        return replace(example, question=self.reword(example.question, rng), follow_ups=follow_ups)


def find_neighbours(
    questions: Iterable[str], *, most_words: int = 6000, nearest: int = 5, least: float = 0.55
) -> Neighbours:
    """Find for the most frequent content words of `questions` the nearest words by cosine of MiniLM's embeddings."""
    import torch
    from transformers import AutoModel

    count = Counter(word.lower() for question in questions for word in content_words(question))
    words = [word for word, _ in count.most_common(most_words) if word.isalpha() and len(word) > 2]
    tokenizer = load_minilm_tokenizer()
    encoder = AutoModel.from_pretrained(str(minilm_path()), local_files_only=True).eval()
    vectors = []
    for start in range(0, len(words), 256):
        batch = tokenizer(words[start : start + 256], padding=True, return_tensors="pt")
        with torch.no_grad():
            hidden = encoder(**batch).last_hidden_state
        mask = batch["attention_mask"][:, :, None]
        vectors.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))
    space = torch.cat(vectors)
    best = (space @ space.T).topk(min(nearest + 1, len(words)), dim=1)
    table = {
        word: tuple(words[i] for i, score in zip(ids, scores, strict=True) if score >= least and words[i] != word)
        for word, ids, scores in zip(words, best.indices.tolist(), best.values.tolist(), strict=True)
    }
    return Neighbours({word: near for word, near in table.items() if near}, tuple(words))


def write_neighbours(path: Path, neighbours: Neighbours) -> None:
    """Write neighbours as JSON."""
    path.write_text(json.dumps({"table": neighbours.table, "words": neighbours.words}), encoding="utf-8")


def read_neighbours(path: Path) -> Neighbours:
    """Read what `write_neighbours` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Neighbours({word: tuple(near) for word, near in content["table"].items()}, tuple(content["words"]))
