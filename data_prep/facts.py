"""Facts: what a corpus says, with the wordings that ask for it, from which the question files are split.

`questions/facts.jsonl` holds one fact a line:
`{"id", "wordings": [str], "paraphrases": [str], "answers": [str], "evidence": [{"document", "start", "end"}],
"category"}`.
The wordings may be trained on; the paraphrases never are. A fact without answers is one that the documents do not hold.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from data_prep.atomic import write_text
from data_prep.errors import DataError, QuestionError
from data_prep.questions import Evidence, Question, write_questions
from data_prep.splits import assign_slices

_SMALL_CATEGORY = 5


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that can be asked in several wordings; see the module's docstring."""

    id: str
    wordings: tuple[str, ...]
    paraphrases: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    category: str | None = None

    @property
    def documents(self) -> tuple[str, ...]:
        """The ids of the documents that hold the evidence."""
        return tuple(dict.fromkeys(evidence.document for evidence in self.evidence))

    def question(self, wording: str, suffix: str, slice_: str | None) -> Question:
        """Return the question that asks this fact in one wording."""
        return Question(
            id=f"{self.id}-{suffix}",
            question=wording,
            answers=self.answers,
            evidence=self.evidence,
            fact=self.id,
            slice=slice_,
            category=self.category,
        )


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How facts are shared out. Shares are of the facts of a kind; the rest of each kind goes to test.

    `unseen_documents` and `dev_documents` are pages of which no fact is trained: the first are asked in test, the
    second in dev; so is a fact that needs one of them and another page as well. Of the other pages' facts,
    `trained_share` is trained (every page keeps one that is), the rest is asked as `trained-page`. The first wordings
    of `repeated` trained facts stand in test as `trained`. `subsets` are the sizes, in answerable facts, of nested
    subsets of the trained ones (a quarter and a half of them if all sizes are too large); each holds a third as many
    unanswerable ones.
    `together` keeps facts of a page that are nearly one (`fact_groups`) on one side of every cut.
    """

    unseen_documents: frozenset[str]
    dev_documents: frozenset[str] = frozenset()
    new_documents: frozenset[str] = frozenset()
    trained_share: float = 0.45
    dev_share: float = 0.17
    unanswerable_shares: tuple[float, float] = (0.5, 0.2)
    repeated: int = 120
    subsets: tuple[int, ...] = (60, 120, 250)
    seed: int = 0
    together: bool = False


@dataclass(frozen=True)
class Splits:
    """The three question files and the nested subsets of trained facts."""

    train: list[Question] = field(default_factory=list)
    dev: list[Question] = field(default_factory=list)
    test: list[Question] = field(default_factory=list)
    subsets: dict[str, list[str]] = field(default_factory=dict)


def read_facts(path: Path) -> list[Fact]:
    """Read a facts file; raises `QuestionError` that names file and line."""
    return [fact for _, fact in _iter_facts(path)]


def write_facts(path: Path, facts: Iterable[Fact]) -> None:
    """Write a facts file in one step."""
    write_text(path, "".join(json.dumps(asdict(fact), ensure_ascii=False) + "\n" for fact in facts))


def write_splits(folder: Path, splits: Splits) -> None:
    """Write `train.jsonl`, `dev.jsonl`, `test.jsonl` and `subsets.json` into a corpus's `questions/` folder."""
    for name in ("train", "dev", "test"):
        write_questions(folder / f"{name}.jsonl", getattr(splits, name))
    write_text(folder / "subsets.json", json.dumps(splits.subsets, indent=1) + "\n")


def split_facts(facts: Sequence[Fact], plan: SplitPlan) -> Splits:
    """Share facts out to train, dev and test by `plan`; the same facts and plan give the same splits.

    Raises `DataError` if no fact is left to train on.
    """
    rng = random.Random(plan.seed)
    splits = Splits()
    pages = {page: _shuffled(group, rng) for page, group in _by_page(facts, plan).items()}
    trained = _split_pages(pages, plan, splits)
    if not trained:
        raise DataError("no fact is left to train on; name fewer unseen documents")
    trained = _shuffled(trained, rng)
    declined = _split_unanswerable([fact for fact in facts if not fact.answers], plan, splits, rng)
    _split_trained(trained, plan, splits)
    _relabel(splits, plan)
    for size in _subset_sizes(plan.subsets, len(trained)):
        chosen = trained[:size] + declined[: size // 3]
        splits.subsets[str(size)] = [fact.id for fact in chosen]
    return splits


def _subset_sizes(wanted: Sequence[int], trained: int) -> list[int]:
    fitting = sorted({size for size in wanted if 0 < size < trained})
    return fitting or sorted({size for size in (trained // 4, trained // 2) if wanted and size > 1})


def _by_page(facts: Iterable[Fact], plan: SplitPlan) -> dict[str, list[Fact]]:
    """Group the answerable facts by page; one that needs a page kept from training belongs to that."""
    kept_from_training = (plan.new_documents, plan.unseen_documents, plan.dev_documents)
    pages: dict[str, list[Fact]] = {}
    for fact in facts:
        if fact.answers:
            reserved = [page for group in kept_from_training for page in fact.documents if page in group]
            pages.setdefault((reserved or fact.documents)[0], []).append(fact)
    return dict(sorted(pages.items()))


def _relabel(splits: Splits, plan: SplitPlan) -> None:
    """Give the facts that need a page kept from training and a trained one as well the slice that follows from both."""
    for name in ("dev", "test"):
        questions: list[Question] = getattr(splits, name)
        computed = assign_slices(questions, splits.train, plan.new_documents)
        questions[:] = [
            replace(question, slice=computed[question.id])
            if len(question.documents) > 1 and question.slice == "unseen-page"
            else question
            for question in questions
        ]


def _split_pages(pages: dict[str, list[Fact]], plan: SplitPlan, splits: Splits) -> list[Fact]:
    """Fill in what page membership decides; return the facts to train."""
    trained = []
    for page, group in pages.items():
        if page in plan.new_documents:
            splits.test.extend(fact.question(fact.wordings[0], "w1", "new-document") for fact in group)
        elif page in plan.unseen_documents:
            splits.test.extend(fact.question(fact.wordings[0], "w1", "unseen-page") for fact in group)
        elif page in plan.dev_documents:
            splits.dev.extend(fact.question(fact.wordings[0], "w1", "unseen-page") for fact in group)
        else:
            group, kin = _ordered(group, plan)
            count = _whole(kin, max(1, round(plan.trained_share * len(group))))
            in_dev = _whole(kin[count:], round(plan.dev_share * (len(group) - count)))
            trained += group[:count]
            rest = [fact.question(fact.wordings[0], "w1", "trained-page") for fact in group[count:]]
            splits.dev.extend(rest[:in_dev])
            splits.test.extend(rest[in_dev:])
    return trained


def _ordered(group: list[Fact], plan: SplitPlan) -> tuple[list[Fact], list[int]]:
    """Return the facts of a page, those that belong together side by side, and the group that each is of."""
    if not plan.together:
        return group, list(range(len(group)))
    from data_prep.fact_groups import fact_groups

    kin = fact_groups(group)
    ordered = sorted(group, key=lambda fact: kin[fact.id])
    return ordered, [kin[fact.id] for fact in ordered]


def _whole(kin: Sequence[int], count: int) -> int:
    """Return `count`, or as many more as it takes to cut no group in two."""
    while 0 < count < len(kin) and kin[count] == kin[count - 1]:
        count += 1
    return count


def _split_trained(trained: Sequence[Fact], plan: SplitPlan, splits: Splits) -> None:
    for number, fact in enumerate(trained):
        splits.train.extend(
            fact.question(wording, f"w{place}", "trained") for place, wording in enumerate(fact.wordings, start=1)
        )
        # The subsets' facts come first and all their paraphrases are tested: dev takes from the other end.
        paraphrases = splits.dev if number >= len(trained) * (1 - plan.dev_share) else splits.test
        paraphrases.extend(
            fact.question(wording, f"p{place}", "paraphrase") for place, wording in enumerate(fact.paraphrases, start=1)
        )
        if number < plan.repeated:
            splits.test.append(fact.question(fact.wordings[0], "w@test", "trained"))


def _split_unanswerable(facts: Sequence[Fact], plan: SplitPlan, splits: Splits, rng: random.Random) -> list[Fact]:
    """Share out each category of unanswerable facts; return those in train, categories taking turns.

    Categories of under `_SMALL_CATEGORY` facts are shared out together, so that every split gets some.
    """
    train: list[list[Fact]] = []
    sizes = Counter(fact.category or "" for fact in facts)
    names = {fact.id: name if sizes[name := fact.category or ""] >= _SMALL_CATEGORY else "" for fact in facts}
    for category in sorted(set(names.values())):
        group = _shuffled([fact for fact in facts if names[fact.id] == category], rng)
        first = round(plan.unanswerable_shares[0] * len(group))
        second = first + round(plan.unanswerable_shares[1] * len(group))
        train.append(group[:first])
        splits.dev.extend(fact.question(fact.wordings[0], "w1", "unanswerable") for fact in group[first:second])
        splits.test.extend(fact.question(fact.wordings[0], "w1", "unanswerable") for fact in group[second:])
    turns = [group[turn] for turn in range(max(map(len, train), default=0)) for group in train if turn < len(group)]
    splits.train.extend(fact.question(fact.wordings[0], "w1", "unanswerable") for fact in turns)
    return turns


def _shuffled(facts: Collection[Fact], rng: random.Random) -> list[Fact]:
    return rng.sample(sorted(facts, key=lambda fact: fact.id), len(facts))


def _iter_facts(path: Path) -> Iterator[tuple[int, Fact]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise QuestionError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            evidence = tuple(Evidence(**item) for item in row.pop("evidence", []))
            lists = {key: tuple(row.get(key, ())) for key in ("wordings", "paraphrases", "answers")}
            fact = Fact(**{**row, **lists, "evidence": evidence})
            if not fact.wordings or (fact.answers and not fact.evidence):
                raise ValueError("a fact needs a wording, and evidence if it has an answer")
        except (ValueError, TypeError, AttributeError) as error:
            raise QuestionError(f"{path}, line {number}: {error}") from error
        yield number, fact
