"""The sample corpora hold what they promise; every check of `versus questions check` holds for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data_prep.checks import check_corpus
from data_prep.consistency import contradictions
from data_prep.corpus import SAMPLE_CORPORA, Corpus, load_corpus
from data_prep.facts import SplitPlan, read_facts, split_facts
from data_prep.listings import listing_markdown, read_listings

READ_AND_FOUND_RIGHT = {
    frozenset({"child-seats", "child-seats-north-america"}),  # two regions
    frozenset({"camp-mode", "pet-mode"}),  # two modes that look alike
    frozenset({"range-and-consumption", "winter-driving"}),  # 2 °C lower, and 19 °C
}
"""Pairs of documents whose differing numbers were read by a person: they speak of different things."""


@pytest.fixture(scope="module")
def manual() -> Corpus:
    """The owner's manual."""
    return load_corpus(SAMPLE_CORPORA / "tern-manual")


def test_every_check_holds_for_the_manual(manual: Corpus) -> None:
    """Spans, support, duplicates, leaks, paraphrases, slices, hashes, skeletons, 4-grams."""
    assert check_corpus(manual) == []


def test_the_manual_is_as_large_as_it_says(manual: Corpus) -> None:
    """Documents, words, facts, and test questions per slice are at least what a comparison needs."""
    documents = manual.documents()
    assert len(documents) >= 70
    assert sum(len((document.content or "").split()) for document in documents) >= 50_000
    assert len(manual.new_document_ids()) >= 8
    slices = Counter(question.slice for question in manual.questions("test"))
    least = {"trained": 100, "paraphrase": 250, "trained-page": 150, "unseen-page": 150, "new-document": 60}
    assert {name: slices[name] >= count for name, count in least.items()} == dict.fromkeys(least, True)
    assert slices["unanswerable"] >= 120
    assert sum(not question.answerable for question in manual.questions("train")) >= 200
    assert sum(not question.answerable for question in manual.questions("dev")) >= 80
    assert all(len(answer.split()) <= 45 for q in manual.questions("test") for answer in q.answers)


def test_the_readme_of_the_sample_corpora_counts_right(manual: Corpus) -> None:
    """The table of splits and slices, and how many different questions there are."""
    text = (SAMPLE_CORPORA / "README.md").read_text(encoding="utf-8")
    names = next(line for line in text.splitlines() if line.startswith("| split |")).strip("| ").split(" | ")[1:]
    for split in ("train", "dev", "test"):
        told = next(line for line in text.splitlines() if line.startswith(f"| {split} |")).strip("| ").split(" | ")[1:]
        found = Counter(question.slice for question in manual.questions(split))
        assert [f"{found[name]:,}" for name in names] == told, split
    facts = [fact for fact in read_facts(manual.path / "questions" / "facts.jsonl") if fact.answers]
    asked = {question for fact in facts for question in (*fact.wordings, *fact.paraphrases)}
    assert f"{len(facts):,} facts with {len(asked):,} different questions" in text


def test_the_manual_does_not_contradict_itself(manual: Corpus) -> None:
    """Every pair of documents that claims a number differently was read and found right, or is meant to change it."""
    found = contradictions({document.id: document.content or "" for document in manual.documents()})
    assert {frozenset({a.document, b.document}) for a, b in found} <= READ_AND_FOUND_RIGHT


def test_the_question_files_follow_from_the_facts(manual: Corpus) -> None:
    """Splitting the facts again, with the pages that are unseen, gives the committed files."""
    facts = read_facts(manual.path / "questions" / "facts.jsonl")
    committed = {split: manual.questions(split) for split in ("train", "dev", "test")}

    def pages(split: str) -> frozenset[str]:
        return frozenset(q.documents[0] for q in committed[split] if q.slice == "unseen-page")

    again = split_facts(facts, SplitPlan(pages("test"), pages("dev"), frozenset(manual.new_document_ids())))
    assert {split: getattr(again, split) for split in committed} == committed


def test_pictures_and_links_of_the_manual_lead_somewhere(manual: Corpus) -> None:
    """Every linked drawing is there, and every cross-reference names a document."""
    import re

    names = set(manual.document_ids(include_new=True))
    for path in manual.path.glob("*documents/*.md"):
        for mark, target in re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
            if mark:
                assert (path.parent / target).is_file(), (path.name, target)
            else:
                assert Path(target.split("#")[0]).stem in names, (path.name, target)


def test_the_listings_are_as_many_and_as_various_as_they_say() -> None:
    """Listings, categories, languages, gold attributes, variants, and a document made of each."""
    path = SAMPLE_CORPORA / "fairfold-listings"
    listings = read_listings(path / "listings.jsonl")
    assert len(listings) >= 400
    assert len({listing.category for listing in listings}) >= 12
    assert sum(listing.language == "ru" for listing in listings) >= 100
    assert sum(bool(listing.gold) for listing in listings) >= 150
    assert sum(listing.variant_group is not None for listing in listings) >= 40
    for listing in listings:
        text = (path / "documents" / f"{listing.id}.md").read_text(encoding="utf-8")
        assert text == listing_markdown(listing)


def test_every_check_holds_for_the_listings() -> None:
    """The same checks as for the manual, and no two ungrouped ads that are nearly the same."""
    assert check_corpus(load_corpus(SAMPLE_CORPORA / "fairfold-listings")) == []
