"""Question files as people have them (JSONL, JSON, CSV) into a corpus's own question files.

| field here | names understood |
|---|---|
| id | id, question_id, qid |
| question | question, query, prompt, input |
| answers | answers, answer, response, output, gold |
| document | document, doc, source, doc_id, file, context_doc |
| answerable | answerable, is_answerable |
| split | split; else the file name (`questions.test.jsonl` is test) |
| slice | slice, where it holds a slice of Versus; any other label becomes `category` |
| category | category, type, topic |
| fact | fact, fact_id |

Where no slice is given, the split means one (train → `trained`, test_seen → `trained-page`, test → `unseen-page`), and
it is then recomputed from the train questions: a test question that repeats a trained one is `trained`.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_prep.corpus import Corpus
from data_prep.errors import DataError, QuestionError
from data_prep.folders import document_id
from data_prep.questions import SLICES, Evidence, Question, write_questions
from data_prep.splits import assign_slices, wording_key

FIELD_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id", "question_id", "qid"),
    "question": ("question", "query", "prompt", "input"),
    "answers": ("answers", "answer", "response", "output", "gold"),
    "document": ("document", "doc", "source", "doc_id", "file", "context_doc"),
    "answerable": ("answerable", "is_answerable"),
    "split": ("split",),
    "slice": ("slice",),
    "category": ("category", "type", "topic"),
    "fact": ("fact", "fact_id"),
}
_SPLIT_SLICE = {"train": "trained", "test_seen": "trained-page", "test": "unseen-page"}
_SPLIT_FILE = {"train": "train", "dev": "dev", "validation": "dev", "val": "dev", "test": "test", "test_seen": "test"}
_REPEATED_TRAINED = 100


@dataclass(frozen=True)
class ImportReport:
    """How many questions went where, by split and slice; `repeated` train rows stand in test as `trained` too."""

    questions: int
    splits: dict[str, int]
    slices: dict[str, int]
    repeated: int


@dataclass(frozen=True, slots=True)
class _Row:
    """One imported question with the split it belongs to and the place it came from, for messages."""

    question: Question
    split: str
    labelled: bool


def import_questions(
    files: Sequence[Path], corpus: Corpus, *, names: Mapping[str, str] | None = None, seed: int = 0
) -> ImportReport:
    """Read question files and write them as the corpus's `questions/{train,dev,test}.jsonl`, replacing those.

    `names` maps a field of Versus to the field name that the files use, ahead of the names understood anyway. Up to
    100 seeded train questions are repeated in test under the slice `trained`, so that memorisation can be measured.
    Raises `QuestionError` that names file and line.
    """
    chosen = _field_names(names or {})
    documents = {document_id(name): name for name in corpus.document_ids(include_new=True)}
    rows = [_row(*place, raw, chosen, documents) for path in files for place, raw in _raw_rows(path)]
    if not rows:
        raise DataError(f"no questions in {', '.join(map(str, files))}")
    splits = _by_split(_with_unique_ids(rows))
    splits["test"] = _relabelled(
        splits["test"], splits["train"], corpus, {row.question.id for row in rows if row.labelled}
    )
    repeated = _repeat_trained(splits, seed)
    for split, questions in splits.items():
        write_questions(corpus.path / "questions" / f"{split}.jsonl", questions)
    everything = [question for questions in splits.values() for question in questions]
    return ImportReport(
        questions=len(rows),
        splits={split: len(questions) for split, questions in splits.items()},
        slices=dict(Counter(question.slice or "none" for question in everything)),
        repeated=repeated,
    )


def _field_names(names: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    unknown = [name for name in names if name not in FIELD_NAMES]
    if unknown:
        raise DataError(f"--map knows no field {', '.join(unknown)}; it knows {', '.join(FIELD_NAMES)}")
    return {key: ((names[key],) if key in names else ()) + known for key, known in FIELD_NAMES.items()}


def _raw_rows(path: Path) -> Iterator[tuple[tuple[Path, int], dict[str, Any]]]:
    """Yield ((file, line or row number), row) of a JSONL, JSON or CSV file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise QuestionError(f"{path}: cannot be read: {error}") from error
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".json": _json_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise QuestionError(f"{path}: give a .jsonl, .json, .csv or .tsv file")
    for number, row in readers[path.suffix.lower()](path, text):
        if not isinstance(row, dict):
            raise QuestionError(f"{path}, line {number}: a question must be an object with named fields")
        yield (path, number), row


def _jsonl_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise QuestionError(f"{path}, line {number}: not JSON: {error}") from error


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise QuestionError(f"{path}: not JSON: {error}") from error
    if isinstance(rows, dict):
        rows = next((value for value in rows.values() if isinstance(value, list)), [])
    yield from enumerate(rows, start=1)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    for row in reader:
        if None in row or None in row.values():
            raise QuestionError(f"{path}, line {reader.line_num}: has not as many fields as the header")
        yield reader.line_num, row


def _row(
    path: Path, number: int, raw: Mapping[str, Any], names: Mapping[str, tuple[str, ...]], documents: Mapping[str, str]
) -> _Row:
    def value(key: str) -> Any:
        return next((raw[name] for name in names[key] if raw.get(name) not in (None, "")), None)

    try:
        answers = _answers(value("answers")) if _truth(value("answerable")) is not False else ()
        split = _split(value("split"), path)
        label, category = value("slice"), value("category")
        known = label if label in SLICES else None
        question = Question(
            id=str(value("id") or f"{path.stem}-{number}"),
            question=str(value("question") or ""),
            answers=answers,
            evidence=_evidence(value("document"), documents) if answers else (),
            fact=str(value("fact")) if value("fact") is not None else None,
            slice=known or (_SPLIT_SLICE.get(split) if answers else "unanswerable"),
            category=str(category or (label if label and not known else "")) or None,
        )
    except ValueError as error:
        found = ", ".join(map(str, raw))
        raise QuestionError(f"{path}, line {number}: {error} (its fields: {found}; `--map` names others)") from error
    return _Row(question, split, labelled=known is not None)


def _answers(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(str(answer) for answer in values if str(answer).strip())


def _truth(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).strip().lower() not in words:
        raise ValueError(f"answerable is {value!r}; give true or false")
    return words[str(value).strip().lower()]


def _split(value: Any, path: Path) -> str:
    if value is not None:
        if str(value) not in _SPLIT_FILE:
            raise ValueError(f"split is {value!r}; known are {', '.join(_SPLIT_FILE)}")
        return str(value)
    parts = path.stem.replace("-", ".").split(".")
    return next((part for part in reversed(parts) if part in _SPLIT_FILE), "test")


def _evidence(value: Any, documents: Mapping[str, str]) -> tuple[Evidence, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(Evidence(_resolve(str(name), documents)) for name in values)


def _resolve(name: str, documents: Mapping[str, str]) -> str:
    for candidate in (name, f"{name}.md"):
        if document_id(candidate) in documents:
            return documents[document_id(candidate)]
    raise ValueError(f"there is no document {name!r} in the corpus; scrape the documents first")


def _with_unique_ids(rows: Iterable[_Row]) -> list[_Row]:
    seen: Counter[str] = Counter()
    unique = []
    for row in rows:
        seen[row.question.id] += 1
        times = seen[row.question.id]
        name = row.question.id if times == 1 else f"{row.question.id}~{times}"
        unique.append(replace(row, question=replace(row.question, id=name)))
    return unique


def _by_split(rows: Iterable[_Row]) -> dict[str, list[Question]]:
    splits: dict[str, list[Question]] = {"train": [], "dev": [], "test": []}
    for row in rows:
        splits[_SPLIT_FILE[row.split]].append(row.question)
    return splits


def _relabelled(
    test: Iterable[Question], train: Sequence[Question], corpus: Corpus, labelled: Collection[str]
) -> list[Question]:
    """Recompute the slice of every test question that brought none of its own."""
    test = list(test)
    computed = assign_slices(test, train, corpus.new_document_ids())
    return [q if q.id in labelled else replace(q, slice=computed[q.id]) for q in test]


def _repeat_trained(splits: dict[str, list[Question]], seed: int) -> int:
    """Add seeded train rows to test as `trained`, unless test has such rows; return how many."""
    if any(question.slice == "trained" for question in splits["test"]):
        return 0
    trained = [question for question in splits["train"] if question.answerable]
    chosen = random.Random(seed).sample(trained, min(_REPEATED_TRAINED, len(trained)))
    asked = {wording_key(question.question) for question in chosen}
    splits["test"] = [question for question in splits["test"] if wording_key(question.question) not in asked] + [
        replace(question, id=f"{question.id}@test", slice="trained") for question in chosen
    ]
    return len(chosen)
