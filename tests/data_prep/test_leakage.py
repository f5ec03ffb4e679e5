"""Leakage: what test questions share with train questions, and what of it is meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from data_prep.corpus import load_corpus
from data_prep.facts import Fact, SplitPlan, split_facts
from data_prep.leakage import leakage
from data_prep.questions import Evidence, Question
from data_prep.splits import assign_slices


def _question(name: str, text: str, fact: str, span: tuple[int, int], slice_: str) -> Question:
    return Question(name, text, ("yes",), (Evidence("d", *span),), fact, slice_)


TRAIN = [
    _question("t1", "How long must the lamp charge before first use?", "f1", (0, 50), "trained"),
    _question("t2", "What is the colour of the charging light?", "f2", (60, 90), "trained"),
    Question("t3", "Can the lamp play music?", slice="unanswerable"),
]


def test_each_kind_of_leak_is_found() -> None:
    """The same words, nearly the same, the same fact, the same evidence; what shares nothing is not reported."""
    test = [
        _question("exact", "how long must the lamp charge before first use?", "f9", (200, 250), "unseen-page"),
        _question("near", "How long must a lamp be charged before the first use?", "f8", (300, 350), "unseen-page"),
        _question("fact", "Which light shows it?", "f2", (400, 450), "trained-page"),
        _question("evidence", "When may the new one be switched on?", "f7", (10, 40), "trained-page"),
        _question("clean", "Who repairs the stand?", "f6", (500, 550), "unseen-page"),
    ]
    report = leakage(TRAIN, test)
    assert {(leak.kind, leak.test, leak.train) for leak in report.leaks} == {
        ("exact", "exact", "t1"),
        ("near", "near", "t1"),
        ("same-fact", "fact", "t2"),
        ("same-evidence", "evidence", "t1"),
    }
    assert report.counts == {"exact": 1, "near": 1, "same-fact": 1, "same-evidence": 1}


def test_what_the_slice_means_is_no_leak() -> None:
    """A repeated wording in `trained` and another wording in `paraphrase` are counted apart."""
    test = [
        _question("w", "How long must the lamp charge before first use?", "f1", (0, 50), "trained"),
        _question("p", "My new light arrived, when can it go on?", "f1", (0, 50), "paraphrase"),
    ]
    report = leakage(TRAIN, test)
    assert report.leaks == []
    assert report.meant == {"exact": 1, "near": 0, "same-fact": 2, "same-evidence": 0}


def test_questions_that_differ_in_a_number_are_not_near() -> None:
    """Alert 101 is not alert 102."""
    train = [Question("a", "What should I do when the display shows alert TRN 101 while driving?")]
    test = [Question("b", "What should I do when the display shows alert TRN 102 while driving?", slice="unanswerable")]
    assert leakage(train, test).leaks == []
    same = [
        Question("c", "What should I do when alert TRN 101 shows on the display while driving?", slice="trained-page")
    ]
    assert [leak.kind for leak in leakage(train, same).leaks] == ["near"]


def test_the_small_corpus_leaks_nothing(small_corpus: Path) -> None:
    """Facts split by the library share only what the slices mean."""
    corpus = load_corpus(small_corpus)
    for split in ("dev", "test"):
        assert leakage(corpus.questions("train"), corpus.questions(split)).leaks == []


def _fact(name: str, *documents: str) -> Fact:
    evidence = tuple(Evidence(document, 0, 5) for document in documents)
    return Fact(name, (f"What is {name}?",), (f"Tell me of {name}.",), ("It is.",), evidence)


def test_a_fact_that_needs_an_unseen_page_too_is_never_trained() -> None:
    """It is asked in test, under the slice that follows from both of its pages."""
    facts = [_fact(f"f{number}", "seen") for number in range(8)] + [
        _fact("u", "unseen"),
        _fact("both", "seen", "unseen"),
    ]
    splits = split_facts(facts, SplitPlan(frozenset({"unseen"}), trained_share=0.9))
    assert not {"u", "both"} & {question.fact for question in splits.train}
    slices = {question.fact: question.slice for question in splits.test if question.fact in ("u", "both")}
    assert slices == {"u": "unseen-page", "both": "trained-page"}
    computed = assign_slices(splits.test, splits.train)
    assert all(question.slice == computed[question.id] for question in splits.test)


def test_every_split_gets_unanswerable_questions_and_small_corpora_nested_subsets() -> None:
    """Also where their categories are tiny, and where no usual subset size fits."""
    facts = [_fact(f"f{number}", f"page{number % 4}") for number in range(40)]
    facts += [Fact(f"n{number}", (f"Nothing {number}?",), category=f"c{number}") for number in range(10)]
    splits = split_facts(facts, SplitPlan(frozenset({"page3"}), frozenset(), trained_share=0.8))
    for name in ("train", "dev", "test"):
        assert any(question.slice == "unanswerable" for question in getattr(splits, name)), name
    small, large = sorted(splits.subsets, key=int)
    assert set(splits.subsets[small]) < set(splits.subsets[large])
    assert any(name.startswith("n") for name in splits.subsets[large])


def test_facts_that_are_nearly_one_stay_together_on_request() -> None:
    """Three wordings of one sentence land on one side; without the wish they may be cut apart."""
    facts = [_fact(f"f{number}", "page") for number in range(12)]
    spans = [(number // 3 * 100, number // 3 * 100 + 50) for number in range(12)]
    facts = [replace(fact, evidence=(Evidence("page", *span),)) for fact, span in zip(facts, spans, strict=True)]
    together = split_facts(facts, SplitPlan(frozenset(), trained_share=0.5, together=True))
    assert leakage(together.train, together.test).counts["same-evidence"] == 0
    assert len({question.fact for question in together.train}) == 6
    apart = split_facts(facts, SplitPlan(frozenset(), trained_share=0.5))
    assert leakage(apart.train, apart.test).counts["same-evidence"] > 0
