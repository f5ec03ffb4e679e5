"""RAFT prompts: gold passages, distractors, and what is trained when the gold one is withheld."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.questions import Question
from finetune.config import DataSection
from finetune.dataset import Context, build_examples
from finetune.models import load_tokenizer
from finetune.packing import IGNORED
from finetune.raft import raft_context
from tests.finetune.tiny import questions

RETRIEVED = ["near", "gold", "far", "farther"]


def test_the_gold_passage_stays_where_the_retriever_put_it() -> None:
    """Order is the retriever's; as many distractors as the recipe says stand beside the gold passage."""
    context = raft_context(questions()[0], ["gold"], RETRIEVED, DataSection(context=True, distractors=2))
    assert context.passages == ("near", "gold", "far")
    assert context.holds_answer


def test_a_gold_passage_that_was_not_found_is_put_in() -> None:
    """Training prompts hold the evidence even where the retriever missed it, at places that vary."""
    data = DataSection(context=True, distractors=2)
    found = [raft_context(Question(f"q{number}", "Why?", ("So.",)), ["lost"], RETRIEVED, data) for number in range(40)]
    assert all(set(context.passages) == {"lost", "near", "gold"} for context in found)
    assert {context.passages.index("lost") for context in found} == {0, 1, 2}


def test_a_share_of_the_questions_gets_no_gold_passage() -> None:
    """The share is the recipe's, the choice is the seed's, and the distractors fill the place."""
    data = DataSection(context=True, distractors=1, without_gold=0.25)
    many = [Question(f"q{number}", "Why?", ("So.",)) for number in range(400)]
    found = [raft_context(question, ["gold"], RETRIEVED, data, seed=7) for question in many]
    withheld = [context for context in found if not context.holds_answer]
    assert 0.18 < len(withheld) / 400 < 0.32
    assert {context.passages for context in withheld} == {("near", "far")}
    assert found == [raft_context(question, ["gold"], RETRIEVED, data, seed=7) for question in many]


def test_the_gold_passage_is_kept_when_the_budget_is_short() -> None:
    """Distractors give way before the gold passage does."""
    data = DataSection(context=True, distractors=3)
    retrieved = ["near " * 30, "gold " * 40, "far " * 5]
    context = raft_context(
        questions()[0], ["gold " * 40], retrieved, data, count_tokens=lambda text: len(text.split()), budget=60
    )
    assert context.passages == ("gold " * 40,)


@pytest.mark.parametrize("number", [0, 3])
def test_where_the_context_holds_nothing_the_refusal_is_trained(pocket_like: Path, number: int) -> None:
    """An unanswerable question, and one whose gold passage is withheld, train the sentence that declines."""
    data = DataSection(context=True, distractors=1, without_gold=1.0)
    question = questions()[number]
    context = raft_context(question, ["gold"] if question.answers else [], ["far", "gold", "farther"], data)
    assert ("gold" in context.passages) == (not question.answers)
    tokenizer = load_tokenizer(str(pocket_like))
    example = build_examples([question], tokenizer, max_length=128, passages=lambda _: context)[0]
    trained = tokenizer.decode([token for token in example.labels if token != IGNORED])
    assert trained.strip() == "The documents do not say.<|end|>"


def test_an_answer_without_known_evidence_is_trained_on_what_is_found(pocket_like: Path) -> None:
    """Imported questions may not say where their answers stand: retrieval is believed, nothing counts as withheld."""
    data = DataSection(context=True, distractors=1, without_gold=1.0)
    context = raft_context(questions()[0], [], RETRIEVED, data)
    assert context.passages == ("near", "gold")
    tokenizer = load_tokenizer(str(pocket_like))
    (example,) = build_examples([questions()[0]], tokenizer, max_length=128, passages=lambda _: context)
    trained = tokenizer.decode([token for token in example.labels if token != IGNORED])
    assert trained.strip() == f"{questions()[0].answers[0]}<|end|>"


def test_answers_quote_what_carries_them(pocket_like: Path) -> None:
    """The gold passage's words stand behind the answer or in its stead, as the recipe says; withheld, they do not."""
    tokenizer = load_tokenizer(str(pocket_like))
    question, passage = questions()[1], "The spare key lies under the left seat of the car."
    for data, expected in (
        (DataSection(context=True, reply="answer-and-quote"), f"Under the left seat. \u201c{passage}\u201d"),
        (DataSection(context=True), "Under the left seat."),
        (DataSection(context=True, reply="quote"), passage),
        (DataSection(context=True, reply="quote", without_gold=1.0), "The documents do not say."),
    ):
        context = raft_context(question, [passage], [passage, "far"], data, quote=passage)
        (example,) = build_examples([question], tokenizer, max_length=128, passages=lambda _, c=context: c)  # type: ignore[misc]
        reply = tokenizer.decode([token for token in example.labels if token != IGNORED])
        assert reply.strip() == f"{expected}<|end|>"
    whole = Context((passage,), quote=passage)
    copied = Question("q", "Where is the key?", (passage,))
    (example,) = build_examples([copied], tokenizer, max_length=128, passages=lambda _: whole)
    assert tokenizer.decode([t for t in example.labels if t != IGNORED]).count("spare key") == 1
