"""Drafted questions of pocket's instruction stage: the answer is the sentence, and the bundled file names it alone."""

from __future__ import annotations

import json
import random
import re

from finetune.pocket.asked import QUESTIONS, AskedFacts, read_asked, sentence_key, without
from finetune.pocket.instruct import Mixture, examples, fact_by_rule
from finetune.pocket.text import passages

LAMP = "Hold the button for 5 seconds to reset the counter of the lamp."
PUMP = "The pump stops by itself when the tank holds less than 2 litres of water."
PAGES = [
    {
        "source": "lamp",
        "text": f"# Lamp\n\nThe lamp stands on three feet of soft rubber. {LAMP} It lasts 14 hours.\n\n"
        "## Cleaning\n\nWipe the glass with a damp cloth once a month. Never use spirit or petrol for that.\n",
    },
    {
        "source": "pump",
        "text": f"# Pump\n\nThe pump draws water from the tank below the floor. {PUMP} Its filter is behind the lid.\n",
    },
]
ASKED = {sentence_key(LAMP): ("How do I set the count back to zero?", "lamp counter reset"), sentence_key(PUMP): ("?",)}


def test_the_answer_is_the_sentence_that_the_question_was_drafted_for() -> None:
    """Only passages that hold an asked sentence give examples, and both wordings come up."""
    asked = AskedFacts(ASKED)
    made = [each for seed in range(40) for each in examples(PAGES, Mixture((20, 60), 2, 90), asked.draw, seed=seed)]
    answered = [each for each in made if each.copied]
    assert {each.answer for each in answered} == {LAMP, PUMP}
    assert {each.question for each in answered if each.answer == LAMP} == set(ASKED[sentence_key(LAMP)])
    assert all(any(each.answer in passage for passage in each.passages) for each in answered)
    assert any(each.passages and not each.copied for each in made)


def test_sources_that_stand_alone_hold_one_sentence() -> None:
    """With `alone` every source is a sentence of its own, and the one that answers is among them once."""
    mixture = Mixture((20, 60), 4, 90, unanswerable=0, closed_book=0, header=0, alone=True)
    made = [each for seed in range(40) for each in examples(PAGES, mixture, AskedFacts(ASKED).draw, seed=seed)]
    sentences = {s.text for page in PAGES for passage in passages(page, 60) for s in passage.sentences}
    assert made
    assert max(len(each.passages) for each in made) > 1
    for each in made:
        assert set(each.passages) <= sentences
        assert each.passages.count(each.answer) == 1


def test_pages_without_a_drafted_question_are_left_out() -> None:
    """A page counts if one of its sentences was asked for."""
    asked = AskedFacts({sentence_key(LAMP): ("How?",)})
    assert [asked.of_page(page["text"]) for page in PAGES] == [True, False]
    assert asked.draw(passages(PAGES[1], 60)[0], random.Random(0)) is None
    assert fact_by_rule(passages(PAGES[1], 60)[0], random.Random(0)) is not None


def test_sentences_that_stand_on_other_pages_too_are_left_out() -> None:
    """A sentence of a held-out page that a training page repeats measures nothing."""
    assert without(ASKED, [PAGES[0]["text"]]) == {sentence_key(PUMP): ("?",)}
    assert without(ASKED, ["Another text. It says nothing of it."]) == ASKED


def test_the_bundled_questions_hold_no_text_of_the_data() -> None:
    """Each row names a sentence by its key; the questions end as questions or keywords and stand once."""
    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    assert len(rows) > 5_000
    assert all(set(row) == {"sentence", "source", "questions"} for row in rows)
    assert all(re.fullmatch(r"[0-9a-f]{16}", row["sentence"]) for row in rows)
    assert len({row["sentence"] for row in rows}) == len(rows) == len(read_asked())
    assert all(0 < len(row["questions"]) <= 2 for row in rows)
    assert all(3 <= len(question.split()) <= 36 for row in rows for question in row["questions"])
