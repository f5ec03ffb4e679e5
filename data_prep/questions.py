"""Questions, the spans of the documents that answer them, and the JSONL files that hold both.

One JSON object a line:
`{"id", "question", "answers": [str], "evidence": [{"document", "start", "end"}], "fact", "slice", "category",
"about"}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.atomic import write_text
from data_prep.errors import QuestionError

SLICES = ("trained", "paraphrase", "trained-page", "unseen-page", "new-document", "unanswerable")
"""How a question relates to what the fine-tuned model saw, from best known to not known at all."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The characters `start:end` of a document, or the whole document where both are None."""

    document: str
    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        if (self.start is None) != (self.end is None):
            raise ValueError("evidence has one of start and end; give both, or neither for the whole document")
        if self.start is not None and self.end is not None and not 0 <= self.start < self.end:
            raise ValueError(f"evidence span {self.start}:{self.end} is empty or negative")


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a data set.

    `answers` holds the accepted answers, and is empty when the documents hold none: then the right reply is to decline.
    `fact` names what is asked, so that wordings of one fact can be kept together. `about` names the one document that
    the question is asked of (a listing, say); None when it is asked of the whole corpus.
    """

    id: str
    question: str
    answers: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    fact: str | None = None
    slice: str | None = None
    category: str | None = None
    about: str | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("id is empty")
        if not self.question.strip():
            raise ValueError("question is empty")
        if self.slice is not None and self.slice not in SLICES:
            raise ValueError(f"slice {self.slice!r} is not one of {', '.join(SLICES)}")

    @property
    def answerable(self) -> bool:
        """Whether the documents hold an answer."""
        return bool(self.answers)

    @property
    def documents(self) -> tuple[str, ...]:
        """The ids of the documents that hold the evidence, each once, in order."""
        return tuple(dict.fromkeys(evidence.document for evidence in self.evidence))


def question_from_mapping(row: Mapping[str, Any]) -> Question:
    """Build a question from one decoded JSON object; raises `ValueError` that says what is wrong with it."""
    fields = Question.__dataclass_fields__
    unknown = [key for key in row if key not in fields]
    if unknown:
        raise ValueError(f"unknown field {', '.join(map(repr, unknown))}; known are {', '.join(fields)}")
    for key in ("id", "question"):
        if not isinstance(row.get(key), str):
            raise ValueError(f"{key} must be a string")
    for key in ("fact", "slice", "category", "about"):
        if not isinstance(row.get(key), str | None):
            raise ValueError(f"{key} must be a string or null")
    answers = row.get("answers", [])
    if not isinstance(answers, list) or not all(isinstance(answer, str) and answer.strip() for answer in answers):
        raise ValueError("answers must be a list of strings, none of them empty")
    evidence = tuple(_evidence(item) for item in row.get("evidence") or [])
    return Question(**{**row, "answers": tuple(answers), "evidence": evidence})


def _evidence(item: Any) -> Evidence:
    if not isinstance(item, dict) or not isinstance(item.get("document"), str):
        raise ValueError('evidence must be a list of {"document", "start", "end"}')
    unknown = set(item) - {"document", "start", "end"}
    if unknown:
        raise ValueError(f"unknown field {', '.join(map(repr, sorted(unknown)))} in evidence")
    return Evidence(item["document"], item.get("start"), item.get("end"))


def iter_questions(path: Path) -> Iterator[tuple[int, Question]]:
    """Yield each question of a JSONL file with its line number; raises `QuestionError` that names file and line."""
    seen: dict[str, int] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows put a byte order mark first
    except (OSError, UnicodeDecodeError) as error:
        raise QuestionError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a line must be one JSON object")
            question = question_from_mapping(row)
        except ValueError as error:
            raise QuestionError(f"{path}, line {number}: {error}") from error
        if question.id in seen:
            raise QuestionError(
                f"{path}, line {number}: id {question.id!r} stands in line {seen[question.id]} too; make ids unique"
            )
        seen[question.id] = number
        yield number, question


def read_questions(path: Path) -> list[Question]:
    """Read a JSONL file of questions; raises `QuestionError` that names file and line."""
    return [question for _, question in iter_questions(path)]


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write questions as JSONL, one object a line, in one step."""
    lines = [json.dumps(asdict(question), ensure_ascii=False) for question in questions]
    write_text(path, "".join(line + "\n" for line in lines))
