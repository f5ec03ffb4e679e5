"""A made-up run: 40 documents, about 200 questions on six slices, and six seeded arms of known strength."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from comparison_app.experiment import Experiment, experiment_from_mapping
from comparison_app.metrics.scoring import DocumentTexts
from comparison_app.predictions import Prediction, RetrievedSpan
from data_prep.questions import SLICES, Evidence, Question

PARTS = ("mirror", "heater", "charger", "wiper", "seat", "horn", "pump", "valve", "fuse", "lamp", "brake", "latch")
PLACES = ("under the dashboard", "behind the rear seat", "in the front boot", "beside the steering column")
REFUSAL = "The documents do not say."


def made_documents(count: int = 40, seed: int = 1) -> dict[str, str]:
    """Return documents of five facts each."""
    rng = random.Random(seed)
    return {f"page-{number:02d}": _page(number, rng) for number in range(count)}


def _page(number: int, rng: random.Random) -> str:
    facts = [_fact(number, part, rng) for part in rng.sample(PARTS, 5)]
    return f"# Section {number}\n\n" + "\n\n".join(facts) + "\n"


def _fact(number: int, part: str, rng: random.Random) -> str:
    return (
        f"The {part} of model {number} sits {rng.choice(PLACES)} and takes {rng.randint(2, 90)} minutes to replace. "
        "Switch the car off before you begin."
    )


def made_questions(documents: dict[str, str], per_slice: int = 34, seed: int = 2) -> list[Question]:
    """Return `per_slice` questions of every slice; the unanswerable ones ask for what no document holds."""
    rng = random.Random(seed)
    facts = [(name, text, line) for name, text in documents.items() for line in text.split("\n\n")[1:]]
    rng.shuffle(facts)
    made = []
    for place, slice_name in enumerate(SLICES):
        for number in range(per_slice):
            name, text, line = facts[(place * per_slice + number) % len(facts)]
            made.append(_question(f"{slice_name}-{number:03d}", slice_name, name, text, line.strip()))
    return made


def _question(question_id: str, slice_name: str, name: str, text: str, line: str) -> Question:
    part, model = line.split()[1], line.split()[4]
    if slice_name == "unanswerable":
        return Question(id=question_id, question=f"What does the {part} of model {model} weigh?", slice=slice_name)
    start = text.index(line)
    return Question(
        id=question_id,
        question=f"Where is the {part} of model {model}, and how long does it take to replace?",
        answers=(line.split(". ")[0] + ".",),
        evidence=(Evidence(name, start, start + len(line.split(". ")[0]) + 1),),
        slice=slice_name,
        fact=f"{name}-{part}",
    )


@dataclass(frozen=True)
class FakeArm:
    """An arm that knows the answers and gives each with a chance that depends on the slice.

    A miss is, by the draw, half the answer, another number, a refusal, or (for `fails_on`) a raised error.
    """

    name: str
    documents: dict[str, str]
    chance: dict[str, float]
    retrieves: bool
    pace: float = 0.2
    fails_on: tuple[str, ...] = ()
    seed: int = 3

    def answer(self, questions: Sequence[Question]) -> Iterator[Prediction]:
        """Yield one prediction a question, the same ones whatever the batch."""
        for question in questions:
            if question.id in self.fails_on:
                raise ConnectionError("the endpoint closed the connection <b>early</b>")
            yield self._one(question, random.Random(f"{self.name} {question.id} {self.seed}"))

    def stream(self, question: Question) -> Iterator[str | Prediction]:
        """Yield the answer's words, then the prediction."""
        prediction = next(self.answer([question]))
        yield from prediction.answer.split()
        yield prediction

    def _one(self, question: Question, rng: random.Random) -> Prediction:
        hit = rng.random() < self.chance.get(question.slice or "", 0.5)
        answer = _answer(question, hit, rng)
        return Prediction(
            question_id=question.id,
            arm=self.name,
            answer=answer,
            abstained=answer == REFUSAL,
            documents=self._sources(question, hit, rng) if self.retrieves else (),
            prompt_tokens=rng.randint(200, 380) if self.retrieves else rng.randint(15, 30),
            completion_tokens=len(answer.split()) * 2,
            seconds_to_first_token=self.pace * 0.4,
            seconds=self.pace * rng.uniform(0.7, 1.8),
        )

    def _sources(self, question: Question, hit: bool, rng: random.Random) -> tuple[RetrievedSpan, ...]:
        names = rng.sample(sorted(self.documents), 3)
        spans = [RetrievedSpan(name, 0, 160, rng.random(), f"Section {int(name[-2:])}") for name in names]
        if question.evidence and (hit or rng.random() < 0.4):
            item = question.evidence[0]
            end = min(len(self.documents[item.document]), (item.end or 0) + 60)
            span = RetrievedSpan(
                item.document, max(0, (item.start or 0) - 40), end, 1.0, f"Section {item.document[-2:]}"
            )
            spans.insert(0 if hit else 1, span)
        return tuple(spans[:3])


def _answer(question: Question, hit: bool, rng: random.Random) -> str:
    if not question.answers:
        return REFUSAL if hit else "It weighs 4 kg."
    gold = question.answers[0]
    if hit:
        return gold
    miss = rng.random()
    if miss < 0.4:
        return " ".join(gold.split()[: len(gold.split()) // 2]) + "."
    if miss < 0.8:
        return gold.replace("minutes", "hours").replace("sits", "lies").replace("and takes", "and needs")
    return REFUSAL


_CHANCES = {
    "base": (0.02, 0.02, 0.02, 0.02, 0.02, 0.1),
    "finetuned": (0.97, 0.62, 0.18, 0.06, 0.05, 0.35),
    "rag": (0.66, 0.62, 0.64, 0.66, 0.7, 0.6),
    "finetuned-rag": (0.93, 0.75, 0.55, 0.5, 0.5, 0.3),
    "raft": (0.9, 0.8, 0.78, 0.74, 0.7, 0.75),
    "rag-extractive": (0.82, 0.8, 0.83, 0.82, 0.8, 0.8),
}


def made_arms(documents: dict[str, str]) -> list[FakeArm]:
    """Return six arms named by their kind; `rag` fails on one question."""
    paces = {"base": 0.05, "finetuned": 0.06, "rag": 0.3, "finetuned-rag": 0.3, "raft": 0.31, "rag-extractive": 0.02}
    return [
        FakeArm(
            name,
            documents,
            dict(zip(SLICES, chances, strict=True)),
            retrieves=name not in ("base", "finetuned"),
            pace=paces[name],
            fails_on=("trained-page-003",) if name == "rag" else (),
        )
        for name, chances in _CHANCES.items()
    ]


def made_experiment(**changes: object) -> Experiment:
    """Return the experiment of these arms; `changes` replace top-level keys."""
    arms: list[dict[str, object]] = [{"name": kind, "kind": kind} for kind in _CHANCES]
    for arm in arms:
        if arm["kind"] in ("finetuned", "finetuned-rag", "raft"):
            arm["adapter"] = "tern-raft" if arm["kind"] == "raft" else "tern-live"
    four = ["trained", "paraphrase", "unseen-page", "new-document"]
    data: dict[str, object] = {
        "name": "made-up",
        "corpus": "tern-manual",
        "seed": 5,
        "new_documents": True,
        "arms": arms,
        "comparisons": [
            {"a": "rag-extractive", "b": "finetuned", "slices": [*four, "unanswerable"]},
            {"a": "rag", "b": "finetuned", "slices": four},
            {"a": "raft", "b": "rag"},
            {"a": "finetuned-rag", "b": "rag"},
        ],
    }
    return experiment_from_mapping({**data, **changes})


def made_predictions(arms: Sequence[FakeArm], questions: Sequence[Question]) -> list[Prediction]:
    """Ask every arm every question, one at a time; a raised error becomes a failed prediction."""
    found = []
    for arm in arms:
        for question in questions:
            try:
                found.extend(arm.answer([question]))
            except ConnectionError as error:
                found.append(Prediction(question.id, arm.name, error=f"ConnectionError: {error}"))
    return found


def made_texts(documents: dict[str, str]) -> DocumentTexts:
    """Return the documents as the scorer takes them."""
    return DocumentTexts(documents)


def bag_of_words(texts: list[str]) -> NDArray[np.float64]:
    """Embed texts as hashed word counts, shape (n, 64): a light stand-in for a sentence embedder."""
    rows = np.zeros((len(texts), 64))
    for row, text in enumerate(texts):
        for word in text.lower().split():
            rows[row, sum(map(ord, word)) % 64] += 1
    return rows


def with_answers(predictions: Sequence[Prediction], answers: dict[tuple[str, str], str]) -> list[Prediction]:
    """Return `predictions` with the answers of (arm, question id) replaced."""
    return [replace(p, answer=answers.get((p.arm, p.question_id), p.answer)) for p in predictions]
