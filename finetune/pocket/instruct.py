"""Make context-question-answer examples from the pretraining text, for pocket's instruction stage.

A page is cut into passages; a sentence of a passage becomes an answer and its wording a question. The example's
sources are the passage, at a random place among passages of the same page and of other pages; for some examples the
passage is left out, or the sentence is cut from it, and the answer is the refusal. Some examples have no sources.
What is asked of a passage is drawn by rule (`fact_by_rule`) or from drafted questions (`finetune.pocket.asked`).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from data_prep.conversations import CONTEXT_INSTRUCTION, context_block, refusal
from finetune.errors import FinetuneError
from finetune.pocket import lexicon, wording
from finetune.pocket.text import Passage, Sentence, passages

_UNFIT = re.compile(
    r"[:;,]$|```|\b(below|above)\b|as follows|https?:|\||\b[Ss]ee\b|for (more|detailed|further)", re.IGNORECASE
)
_FOLLOWS_ON = re.compile(r"(This|It|They|Otherwise|If not|Then|These|The default|You can also|For example)\b")


@dataclass(frozen=True)
class Mixture:
    """Shares and sizes of the examples of one level of the curriculum; shares are of all examples.

    words: size of a passage; most_passages: sources of an example; context_words: all its sources together at most;
    near_misses: share of the unanswerable whose passages are of the same page (a share of 0.18 unanswerable, most of
    them near misses, taught a model of this size to decline three in five of the questions that people write) ·
    alone: each source is one sentence of its passage, as retrieval shows them to a model with a short context.
    """

    words: tuple[int, int]
    most_passages: int
    context_words: int
    unanswerable: float = 0.1
    near_misses: float = 0.1
    closed_book: float = 0.08
    header: float = 0.7
    follow_ups: int = 0
    alone: bool = False

    def __post_init__(self) -> None:
        wrong = [
            name
            for name in ("unanswerable", "near_misses", "closed_book", "header")
            if not 0 <= getattr(self, name) <= 1
        ]
        if self.words[0] > self.words[1] or self.words[0] < 12:
            wrong.append("words")
        if self.most_passages < 1:
            wrong.append("most_passages")
        if wrong:
            raise FinetuneError(f"mixture out of range: {', '.join(wrong)}")


LEVELS = {
    "short": Mixture((20, 45), 1, 60, unanswerable=0.04, closed_book=0.05, header=0.3, follow_ups=3),
    "middle": Mixture((30, 110), 2, 130, unanswerable=0.05, closed_book=0.06, follow_ups=3),
    "long": Mixture((60, 130), 3, 250, unanswerable=0.05, closed_book=0.05, header=0.85, follow_ups=1),
    "asked": Mixture((40, 130), 2, 200, unanswerable=0.03, near_misses=0.3, closed_book=0, header=0.85, follow_ups=3),
    "asked-alone": Mixture((40, 130), 5, 150, unanswerable=0.03, closed_book=0, header=0.85, alone=True),
}
"""The curriculum: copying is learned cheaply on short contexts and carried over to long ones; the first three levels
ask by rule, those whose names begin with `ASKED` ask what `finetune.pocket.asked` holds."""
ASKED = "asked"


@dataclass(frozen=True)
class Turn:
    """A further question on the same sources: it makes far more of the tokens that a context costs."""

    question: str
    answer: str
    copied: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """One example: `passages` is empty for a closed-book one; `copied` are the sentences of a passage in the answer."""

    question: str
    passages: tuple[str, ...]
    answer: str
    kind: str
    source: str
    copied: tuple[str, ...]
    follow_ups: tuple[Turn, ...] = ()

    def prompt(self) -> list[dict[str, str]]:
        """Return the chat messages before the answer, as `data_prep.conversations` has them."""
        if not self.passages:
            return [{"role": "user", "content": self.question}]
        return [
            {"role": "system", "content": CONTEXT_INSTRUCTION["en"]},
            {"role": "user", "content": f"{context_block(self.passages)}\n\nQuestion: {self.question}"},
        ]

    def turns(self) -> tuple[Turn, ...]:
        """Return all questions with their answers, the first one first."""
        return (Turn(self.question, self.answer, self.copied), *self.follow_ups)


@dataclass(frozen=True)
class Fact:
    """A question, the sentences that answer it, and the passage that holds them."""

    question: str
    answer: str
    sentences: tuple[Sentence, ...]
    passage: Passage
    kind: str


Draw = Callable[[Passage, random.Random], Fact | None]
"""Draws a fact from a passage; None if nothing in it fits."""


def examples(
    pages: Sequence[dict[str, str]], mixture: Mixture, draw: Draw, *, seed: int, per_page: int = 4
) -> Iterator[Example]:
    """Yield examples of `pages` in random order of pages, at most `per_page` of each page, the same for one seed."""
    rng = random.Random(seed)
    order = list(range(len(pages)))
    rng.shuffle(order)
    others: list[Passage] = []
    for index in order:
        page = pages[index]
        cut = passages(page, rng.randint(*mixture.words))
        rng.shuffle(cut)
        for passage in cut[:per_page]:
            fact = draw(passage, rng)
            if fact is not None and others:
                yield _example(fact, cut, others, mixture, page["source"], draw, rng)
        others = (others + cut[:3])[-60:]


def write_examples(path: Path, made: Iterator[Example]) -> int:
    """Write examples as JSON lines and return how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for example in made:
            file.write(json.dumps(asdict(example), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_examples(path: Path) -> list[Example]:
    """Read what `write_examples` wrote."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [
        Example(
            **{
                **row,
                "passages": tuple(row["passages"]),
                "copied": tuple(row["copied"]),
                "follow_ups": tuple(
                    Turn(t["question"], t["answer"], tuple(t["copied"])) for t in row.get("follow_ups", ())
                ),
            }
        )
        for row in rows
    ]


def _fit(sentence: Sentence) -> bool:
    """Tell whether a sentence can stand alone as an answer."""
    words = sentence.text.split()
    letters = sum(character.isalpha() or character == " " for character in sentence.text)
    return 5 <= len(words) <= 42 and not _UNFIT.search(sentence.text) and letters > 0.75 * len(sentence.text)


def fact_by_rule(passage: Passage, rng: random.Random) -> Fact | None:
    """Draw a fact from a passage: a task with its steps, or a sentence with a question; None if nothing fits."""
    fit = [index for index, sentence in enumerate(passage.sentences) if _fit(sentence)]
    if not fit:
        return None
    heading = passage.section.rsplit(" › ", 1)[-1] or passage.title
    goal = wording.goal_of_heading(heading)
    if passage.opens_section and goal and rng.random() < 0.5:
        return _task(passage, goal, rng)
    index = rng.choice(fit)
    sentence = passage.sentences[index]
    made = wording.questions(sentence.text, rng)
    if made and rng.random() < 0.85:
        question, kind = rng.choice(made), "pattern"
    else:
        keywords = wording.keyword_question(sentence.text, rng)
        if keywords is None:
            return None
        question, kind = keywords, "keywords"
    if rng.random() < 0.08 and len(heading.split()) <= 6:
        question = f"{question.rstrip('?.')} in {heading}?"
    used: tuple[Sentence, ...] = (sentence,)
    if rng.random() < 0.25 and index + 1 < len(passage.sentences) and _follows(passage, index):
        used = (sentence, passage.sentences[index + 1])
    answer = " ".join(each.text for each in used)
    return Fact(lexicon.vary(question, rng, 0.35), answer, used, passage, kind)


def _follows(passage: Passage, index: int) -> bool:
    """Tell whether the next sentence continues this one and the two are short enough together."""
    here, after = passage.sentences[index], passage.sentences[index + 1]
    together = len(here.text.split()) + len(after.text.split())
    return bool(_FOLLOWS_ON.match(after.text)) and together <= 42 and _fit(after)


def _task(passage: Passage, goal: str, rng: random.Random) -> Fact | None:
    """Ask how to do what the heading names; the answer is the first steps, or the first sentence."""
    steps = [sentence for sentence in passage.sentences if sentence.step and _fit(sentence)]
    used: list[Sentence] = []
    for sentence in steps or [s for s in passage.sentences if _fit(s)][:1]:
        if used and (len(used) == 3 or sum(len(s.text.split()) for s in [*used, sentence]) > 42):
            break
        used.append(sentence)
    answer = " ".join(sentence.text for sentence in used)
    return Fact(lexicon.vary(wording.how_question(goal, rng), rng), answer, tuple(used), passage, "task")


def _example(
    fact: Fact,
    page: Sequence[Passage],
    others: Sequence[Passage],
    mixture: Mixture,
    source: str,
    draw: Draw,
    rng: random.Random,
) -> Example:
    """Surround a fact with other passages, or leave its passage out."""
    if mixture.alone:
        fact, page, others = _alone(fact, page, others, rng)
    drawn = rng.random()
    header = rng.random() < mixture.header
    if drawn < mixture.closed_book:
        return Example(fact.question, (), fact.answer, fact.kind, source, copied=())
    answerable = drawn >= mixture.closed_book + mixture.unanswerable
    near = answerable or rng.random() < mixture.near_misses
    texts = _distractors(fact, page if near else (), others, mixture, rng, header=header, least=0 if answerable else 1)
    if answerable:
        texts.insert(rng.randint(0, len(texts)), fact.passage.text(header=header))
        return Example(
            fact.question,
            tuple(texts),
            fact.answer,
            fact.kind,
            source,
            copied=tuple(each.text for each in fact.sentences),
            follow_ups=_follow_ups(fact, others, mixture, draw, rng),
        )
    left = _without(fact)
    if left and near and rng.random() < 0.5:
        texts[rng.randrange(len(texts))] = left
    return Example(fact.question, tuple(texts), refusal(), "unanswerable", source, copied=())


def _alone(
    fact: Fact, page: Sequence[Passage], others: Sequence[Passage], rng: random.Random
) -> tuple[Fact, list[Passage], list[Passage]]:
    """Cut a fact's passage down to its first sentence, and each passage to the other one nearest to the question."""
    (sentence,) = fact.sentences[:1]
    cut = replace(fact, passage=_only(fact.passage, sentence), sentences=(sentence,))
    same, rest = (
        [_only(each, found) for each in pool if (found := _nearest(each, fact, rng))] for pool in (page, others)
    )
    return cut, same, rest


def _nearest(passage: Passage, fact: Fact, rng: random.Random) -> Sentence | None:
    """Return the sentence of `passage` that shares most words with the question and does not answer it."""
    words = set(fact.question.lower().strip("?").split())
    left = [each for each in passage.sentences if each.text != fact.answer]
    return max(left, key=lambda each: (len(words & set(each.text.lower().split())), rng.random()), default=None)


def _only(passage: Passage, sentence: Sentence) -> Passage:
    """Return a passage that holds nothing but one of its sentences."""
    alone = replace(sentence, start=0, end=len(sentence.text))
    return replace(passage, body=sentence.text, sentences=(alone,))


def _follow_ups(
    fact: Fact, others: Sequence[Passage], mixture: Mixture, draw: Draw, rng: random.Random
) -> tuple[Turn, ...]:
    """Ask more of the fact's passage, each answer once; now and then something that it does not hold."""
    answers = {fact.answer}
    turns: list[Turn] = []
    for _ in range(mixture.follow_ups):
        strange = rng.random() < mixture.unanswerable
        each = draw(rng.choice(others) if strange else fact.passage, rng)
        if each is None or each.answer in answers:
            continue
        answers.add(each.answer)
        copied = () if strange else tuple(sentence.text for sentence in each.sentences)
        turns.append(Turn(each.question, refusal() if strange else each.answer, copied))
    return tuple(turns)


def _distractors(
    fact: Fact,
    page: Sequence[Passage],
    others: Sequence[Passage],
    mixture: Mixture,
    rng: random.Random,
    *,
    header: bool,
    least: int,
) -> list[str]:
    """Draw other passages of this page and of others, as many as the mixture has room for."""
    same = [passage for passage in page if passage is not fact.passage and fact.answer not in passage.body]
    count = rng.randint(0, mixture.most_passages - 1) if least == 0 else rng.randint(1, mixture.most_passages)
    room = mixture.context_words - (len(fact.passage.body.split()) if least == 0 else 0)
    drawn: list[str] = []
    for _ in range(count):
        pool = same if same and rng.random() < 0.5 else others
        passage = rng.choice(pool)
        text = passage.text(header=header)
        if drawn and len(text.split()) > room:
            break
        if len(text.split()) <= room or least:
            room -= len(text.split())
            drawn.append(text)
    return drawn


def _without(fact: Fact) -> str:
    """Return the fact's passage with its sentences cut out; empty if hardly anything is left."""
    body = fact.passage.body
    for sentence in sorted(fact.sentences, key=lambda s: -s.start):
        body = body[: sentence.start].rstrip() + " " + body[sentence.end :].lstrip()
    return body.strip() if len(body.split()) >= 20 else ""
