"""Slices are recomputed from what was trained; facts are shared out so that every slice means what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.checks import check_corpus
from data_prep.corpus import load_corpus
from data_prep.errors import DataError
from data_prep.facts import read_facts, split_facts
from data_prep.questions import Evidence, Question
from data_prep.splits import assign_slices, check_slices
from tests.small_corpus import write_small_corpus


def _question(name: str, text: str, document: str, fact: str | None = None, **more: str) -> Question:
    return Question(name, text, ("yes",), (Evidence(document),), fact, **more)


TRAINED = [_question("t1", "How long?", "battery", "f1"), Question("t2", "Who won?")]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (_question("q", "how  LONG?", "battery", "f1"), "trained"),
        (_question("q", "For what time?", "battery", "f1"), "paraphrase"),
        (_question("q", "What colour?", "battery", "f2"), "trained-page"),
        (_question("q", "How long?", "cleaning", "f3"), "unseen-page"),
        (_question("q", "How long?", "cleaning"), "unseen-page"),
        (_question("q", "When?", "recall", "f4"), "new-document"),
        (Question("q", "Who won?"), "unanswerable"),
    ],
)
def test_the_slice_follows_from_what_was_trained(question: Question, expected: str) -> None:
    """Wording, fact and page decide, in this order."""
    assert assign_slices([question], TRAINED, {"recall"}) == {"q": expected}


def test_a_label_that_disagrees_with_the_run_record_is_an_error() -> None:
    """The message counts them and names the first."""
    question = _question("q", "What colour?", "cleaning", "f9", slice="trained")
    with pytest.raises(DataError, match="labelled trained, recomputed unseen-page"):
        check_slices([question], assign_slices([question], TRAINED), "adapter lamp")


def test_the_split_of_facts_passes_its_own_checks(small_corpus: Path) -> None:
    """The small corpus, split by the library, has every slice and no problem that `check_corpus` knows."""
    corpus = load_corpus(small_corpus)
    slices = {question.slice for question in corpus.questions("test")}
    assert slices == {"trained", "paraphrase", "trained-page", "unseen-page", "new-document", "unanswerable"}
    assert [problem for problem in check_corpus(corpus) if problem.check != "repetition"] == []


def test_the_same_facts_and_seed_give_the_same_files(small_corpus: Path, tmp_path: Path) -> None:
    """Two corpora written from the same facts have equal question files."""
    again = write_small_corpus(tmp_path / "again")
    for name in ("train", "dev", "test"):
        file = f"questions/{name}.jsonl"
        assert (small_corpus / file).read_bytes() == (again / file).read_bytes()


def test_subsets_are_nested_and_their_paraphrases_are_tested(small_corpus: Path) -> None:
    """Each smaller subset lies in the larger, and its facts have test questions."""
    facts = read_facts(small_corpus / "questions" / "facts.jsonl")
    from data_prep.facts import SplitPlan

    splits = split_facts(facts, SplitPlan(frozenset({"cleaning"}), trained_share=0.8, subsets=(1, 2, 4)))
    one, two, four = (set(splits.subsets[size]) for size in ("1", "2", "4"))
    assert one < two < four
    tested = {question.fact for question in splits.test if question.slice == "paraphrase"}
    assert {name for name in two if not name.startswith("none")} <= tested


def test_checks_find_a_leak_a_close_paraphrase_and_an_unsupported_answer(small_corpus: Path) -> None:
    """Three faults put in by hand are each found under their name."""
    corpus = load_corpus(small_corpus)
    train = corpus.questions("train")
    from dataclasses import replace

    from data_prep.questions import write_questions

    answerable = [question for question in train if question.answerable]
    leak = replace(answerable[0], id="leak", slice="unseen-page")
    close = replace(answerable[1], id="close", question="So " + answerable[1].question, slice="paraphrase")
    wrong = replace(
        answerable[2], id="wrong", question="Anything else?", answers=("Bananas ripen.",), slice="paraphrase"
    )
    write_questions(small_corpus / "questions" / "test.jsonl", [leak, close, wrong])
    found = {(problem.check, problem.where) for problem in check_corpus(corpus)}
    assert {("leak", "test/leak"), ("paraphrase", "test/close"), ("support", "test/wrong")} <= found
