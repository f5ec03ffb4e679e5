"""What must hold of a corpus and its questions before a figure measured on them means anything."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from data_prep.corpus import SPLITS, Corpus, verify_manifest
from data_prep.listings import Listing, read_listings
from data_prep.questions import Evidence, Question
from data_prep.splits import assign_slices, wording_key

MAX_PARAPHRASE_OVERLAP = 0.34
MAX_SKELETON_DOCUMENTS = 3
MIN_DISTINCT_FOUR_GRAMS = 0.80
MAX_LISTING_OVERLAP = 0.6
_SKELETON_WORDS = 5

_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_FUNCTION_WORDS = frozenset(
    re.split(
        r"\s+",
        "a an the of to in on at for from by with and or but is are was were be been being do does did can could "
        "should would will may might must shall how what when where which who whom whose why my your his her our "
        "their i you he she it we they me him us them its this that these those if as than then so not no there "
        "here have has had having much many long need get go any some all into onto up down out off over under "
        "about after before while during "
        "и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по ее мне было вот от о из "
        "ему какой какая какое какие сколько где когда кто чем для ли при или это эта этот",
    )
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not hold: which check, where, and what is wrong."""

    check: str
    where: str
    message: str


def check_corpus(corpus: Corpus) -> list[Problem]:
    """Run every check on a corpus and its questions; an empty list means that all hold.

    Evidence outside its document and broken lines are errors, not problems: reading the questions raises them.
    """
    splits = {split: corpus.questions(split) for split in SPLITS}
    texts = corpus.texts()
    all_texts = corpus.texts(include_new=True) if corpus.new_document_ids() else texts
    return [
        *(Problem("manifest", corpus.name, line) for line in (verify_manifest(corpus) if corpus.manifest else [])),
        *_unsupported(splits, all_texts),
        *_duplicates(splits),
        *_leaks(splits),
        *_close_paraphrases(splits),
        *_wrong_slices(splits, corpus.new_document_ids()),
        *_repeated_skeletons(texts),
        *_repetitive(texts, corpus.name),
        *_alike_listings(corpus),
    ]


def content_words(text: str) -> set[str]:
    """Return the lower-cased words of a text that carry content: function words of English and Russian are left out."""
    return {word for word in _WORD.findall(text.casefold()) if word not in _FUNCTION_WORDS}


def overlap(first: str, second: str) -> float:
    """Return the Jaccard overlap of two texts' content words, from 0 to 1 (0 where neither has any)."""
    a, b = content_words(first), content_words(second)
    return len(a & b) / len(a | b) if a | b else 0.0


def evidence_text(evidence: Iterable[Evidence], texts: Mapping[str, str]) -> str:
    """Return the characters of all evidence spans, a line break between two."""
    return "\n".join(texts[item.document][item.start : item.end] for item in evidence if item.document in texts)


def _unsupported(splits: Mapping[str, Sequence[Question]], texts: Mapping[str, str]) -> Iterator[Problem]:
    """Answers that share neither their numbers nor a third of their content words with the evidence."""
    for split, questions in splits.items():
        for question in (question for question in questions if question.answerable and question.evidence):
            evidence = evidence_text(question.evidence, texts)
            if not any(_supports(evidence, answer) for answer in question.answers):
                yield Problem("support", f"{split}/{question.id}", "the evidence does not carry the answer")


def _supports(evidence: str, answer: str) -> bool:
    numbers = set(_NUMBER.findall(answer))
    if numbers and numbers <= set(_NUMBER.findall(evidence)):
        return True
    words = content_words(answer)
    return not words or len(words & content_words(evidence)) >= len(words) / 3


def _duplicates(splits: Mapping[str, Sequence[Question]]) -> Iterator[Problem]:
    seen: dict[tuple[str, str | None], str] = {}
    for split, questions in splits.items():
        for question in questions:
            if question.slice == "trained" and split != "train":
                continue
            key = (wording_key(question.question), question.about)
            where = f"{split}/{question.id}"
            if key in seen:
                yield Problem("duplicate", where, f"asks the same as {seen[key]}: {question.question}")
            seen.setdefault(key, where)


def _leaks(splits: Mapping[str, Sequence[Question]]) -> Iterator[Problem]:
    trained = {(wording_key(question.question), question.about) for question in splits["train"]}
    for split in ("dev", "test"):
        for question in splits[split]:
            known = (wording_key(question.question), question.about) in trained
            if known and question.slice != "trained":
                yield Problem("leak", f"{split}/{question.id}", f"a trained wording labelled {question.slice}")
            if not known and question.slice == "trained":
                yield Problem("leak", f"{split}/{question.id}", "labelled trained, but no trained wording is the same")


def _close_paraphrases(splits: Mapping[str, Sequence[Question]]) -> Iterator[Problem]:
    wordings = defaultdict(list)
    for question in splits["train"]:
        wordings[question.fact].append(question.question)
    for split in ("dev", "test"):
        for question in (question for question in splits[split] if question.slice == "paraphrase"):
            closest = max((overlap(question.question, wording) for wording in wordings[question.fact]), default=0.0)
            if closest >= MAX_PARAPHRASE_OVERLAP:
                message = f"shares {closest:.2f} of its content words with a trained wording: {question.question}"
                yield Problem("paraphrase", f"{split}/{question.id}", message)


def _wrong_slices(splits: Mapping[str, Sequence[Question]], new_documents: set[str]) -> Iterator[Problem]:
    for split in ("dev", "test"):
        computed = assign_slices(splits[split], splits["train"], new_documents)
        for question in splits[split]:
            if question.slice is not None and question.slice != computed[question.id]:
                message = f"labelled {question.slice}, but by the train questions it is {computed[question.id]}"
                yield Problem("slice", f"{split}/{question.id}", message)


def _repeated_skeletons(texts: Mapping[str, str]) -> Iterator[Problem]:
    """Sentences that differ in numbers and names only and stand in more than three documents."""
    places: dict[str, set[str]] = defaultdict(set)
    for name, text in texts.items():
        for sentence in _SENTENCE.split(text):
            words = sentence.strip(" #>*-|").split()
            if len(words) >= _SKELETON_WORDS:
                skeleton = " ".join(_masked(word, first=place == 0) for place, word in enumerate(words))
                places[skeleton].add(name)
    for skeleton, names in sorted(places.items()):
        if len(names) > MAX_SKELETON_DOCUMENTS and len(_WORD.findall(skeleton.replace("·", ""))) >= _SKELETON_WORDS:
            yield Problem("skeleton", ", ".join(sorted(names)), f"all hold {skeleton!r}")


def _masked(word: str, *, first: bool) -> str:
    """Return a word as its skeleton shows it: a name or a number as a dot, another in small letters."""
    return "·" if (word[:1].isupper() and not first) or _DIGIT.search(word) else word.casefold()


def _repetitive(texts: Mapping[str, str], name: str) -> Iterator[Problem]:
    """A corpus whose 4-grams repeat; they are counted by hash, 8 bytes each, so that a large corpus fits."""
    import numpy as np

    hashes = [np.fromiter(map(hash, _four_grams(text)), dtype=np.int64) for text in texts.values()]
    grams = np.sort(np.concatenate(hashes)) if hashes else np.zeros(0, dtype=np.int64)
    share = (1 + np.count_nonzero(np.diff(grams))) / grams.size if grams.size else 1.0
    if share < MIN_DISTINCT_FOUR_GRAMS:
        yield Problem("repetition", name, f"only {share:.2f} of all 4-grams are distinct")


def _four_grams(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return zip(words, words[1:], words[2:], words[3:], strict=False)


def _alike_listings(corpus: Corpus) -> Iterator[Problem]:
    """Listings that are nearly the same (MinHash of word triples), unless they are variants of one model."""
    path = corpus.path / "listings.jsonl"
    for first, second in near_duplicates(read_listings(path)) if path.exists() else ():
        yield Problem("near-duplicate", f"{first.id}, {second.id}", "two ungrouped listings are nearly the same")


def near_duplicates(listings: Sequence[Listing]) -> list[tuple[Listing, Listing]]:
    """Return pairs of ungrouped listings whose word triples overlap by `MAX_LISTING_OVERLAP` or more.

    The overlap is the Jaccard index as MinHash estimates it from 128 permutations (Broder 1997).
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=MAX_LISTING_OVERLAP, num_perm=128)
    sketches: dict[str, MinHash] = {}
    by_id = {listing.id: listing for listing in listings}
    pairs = []
    for listing in listings:
        words = _WORD.findall(f"{listing.title} {listing.description}".casefold())
        sketch = MinHash(num_perm=128, seed=1)
        sketch.update_batch([" ".join(triple).encode() for triple in zip(words, words[1:], words[2:], strict=False)])
        for other in (by_id[name] for name in index.query(sketch)):
            variants = listing.variant_group is not None and listing.variant_group == other.variant_group
            if not variants and sketch.jaccard(sketches[other.id]) >= MAX_LISTING_OVERLAP:
                pairs.append((other, listing))
        index.insert(listing.id, sketch)
        sketches[listing.id] = sketch
    return pairs
