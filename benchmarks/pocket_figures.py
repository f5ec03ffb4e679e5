"""What a pocket-like model can do before it is fine-tuned: read a passage, know nothing by heart, and how fast.

    python benchmarks/pocket_figures.py [--model pocket] [--questions 100] [--threads 2] [--data DIR]

Asks the dev questions of the sample manual and the test questions of its unseen pages, a fixed random sample of them:
of the passage of about 120 words that holds the answer, of that one and another of its page, and closed-book. Prints
token F1, the share declined and seconds an answer in batches of 16 for each, the F1 of the passage's best sentence
(chosen by the answer: nothing that copies one sentence scores more), and with --data the bits per character of the
validation text. No weight of pocket was trained on any of it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison_app.metrics.overlap import token_f1
from data_prep.conversations import is_refusal, with_context
from data_prep.corpus import SAMPLE_CORPUS, Corpus, load_corpus
from finetune.models import load_base, load_tokenizer
from finetune.pocket.evaluation import replies
from finetune.pocket.text import VALIDATION, Passage, passages, read_pages
from finetune.text_rows import bits_per_character

REPOSITORY = Path(__file__).resolve().parent.parent
PASSAGE_WORDS = 120
BATCH = 16


@dataclass(frozen=True)
class Asked:
    """A question, its accepted answers, the passage that holds one, and the other passages of its page."""

    question: str
    answers: tuple[str, ...]
    gold: Passage
    others: tuple[Passage, ...]


def questions(corpus: Corpus, count: int) -> list[Asked]:
    """Return a fixed random sample of the questions whose answer stands in one passage."""
    found = list(_questions(corpus))
    random.Random(0).shuffle(found)
    return found[:count]


def _questions(corpus: Corpus) -> Iterator[Asked]:
    asked = [*corpus.questions("dev"), *(q for q in corpus.questions("test") if q.slice == "unseen-page")]
    texts = corpus.texts()
    for each in asked:
        evidence = each.evidence[0] if len(each.evidence) == 1 else None
        if not each.answers or evidence is None or evidence.start is None or evidence.document not in texts:
            continue
        text = texts[evidence.document]
        cut = passages({"source": evidence.document, "licence": "", "text": text}, PASSAGE_WORDS)
        opening = text[evidence.start : evidence.end].strip()[:40]
        gold = next((passage for passage in cut if opening in passage.body), None)
        if gold is not None:
            yield Asked(each.question, each.answers, gold, tuple(p for p in cut if p is not gold))


def figures(model: Any, tokenizer: Any, asked: Sequence[Asked]) -> dict[str, dict[str, float]]:
    """Return token_f1, declined and seconds an answer, for each way of asking."""
    ways = {
        "gold passage": [_of(each.question, [each.gold]) for each in asked],
        "gold and another": [_of(each.question, [each.gold, *each.others[:1]]) for each in asked],
        "closed book": [[{"role": "user", "content": each.question}] for each in asked],
    }
    found = {}
    for way, prompts in ways.items():
        replies(model, tokenizer, prompts[:2], new_tokens=4)
        started = time.perf_counter()
        answers = replies(model, tokenizer, prompts, batch_size=BATCH)
        seconds = (time.perf_counter() - started) / len(asked)
        scores = [token_f1(answer, each.answers) for answer, each in zip(answers, asked, strict=True)]
        declined = sum(is_refusal(answer) for answer in answers) / len(asked)
        found[way] = {"token_f1": sum(scores) / len(scores), "declined": declined, "seconds": seconds}
    best = [max(token_f1(s.text, each.answers) for s in each.gold.sentences) for each in asked]
    found["best sentence"] = {"token_f1": sum(best) / len(best), "declined": 0.0, "seconds": 0.0}
    return {way: {name: round(value, 4) for name, value in row.items()} for way, row in found.items()}


def _of(question: str, shown: Sequence[Passage]) -> list[dict[str, str]]:
    messages = with_context(question, [passage.text() for passage in shown])
    return [{"role": message.role.value, "content": message.text or ""} for message in messages]


def measure(model: str, count: int, data: Path | None) -> dict[str, Any]:
    """Return all figures of a model, by name or folder."""
    loaded, tokenizer = load_base(model).eval(), load_tokenizer(model)
    told: dict[str, Any] = {"model": model, "parameters": sum(weight.numel() for weight in loaded.parameters())}
    if data is not None:
        texts = [page["text"][:2500] for page in read_pages(data / VALIDATION)]
        told["bits_per_character"] = round(bits_per_character(loaded, tokenizer, texts), 4)
    corpus = load_corpus(REPOSITORY / "docs_corpus" / SAMPLE_CORPUS)
    return {**told, **figures(loaded, tokenizer, questions(corpus, count))}


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket", help="a name or a folder")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, help="folder of the pretraining text, for bits per character")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(chosen.threads)
    print(json.dumps(measure(chosen.model, chosen.questions, chosen.data), indent=1))


if __name__ == "__main__":
    main()
