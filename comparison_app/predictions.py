"""What an arm says to one question, and the file of such answers.

`predictions.jsonl` holds one prediction a line, in the order in which they were made. A line is only ever appended,
so a run that was killed loses at most the line that was being written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from comparison_app.errors import PredictionError
from data_prep.questions import Question

SENTENCE_STATUSES = ("supported", "uncited", "unsupported")
UNSUPPORTED = SENTENCE_STATUSES[2]


@dataclass(frozen=True)
class RetrievedSpan:
    """A piece of a document that an arm read: characters `start` to `end` (exclusive) of document `document`.

    `score` is the retriever's own, comparable only within one answer; spans stand best first.
    """

    document: str
    start: int
    end: int
    score: float = 0.0
    title: str = ""


@dataclass(frozen=True)
class CheckedSentence:
    """One sentence of an answer, characters `start` to `end` of it, held against what the arm read.

    `status`: supported (carried by what it cites), uncited (carried by something it does not cite) or unsupported.
    `citations` are numbers of `documents`, from 1; `span` is the document, start and end of what carries it, or None.
    """

    start: int
    end: int
    status: str
    citations: tuple[int, ...] = ()
    span: tuple[str, int, int] | None = None


@dataclass(frozen=True)
class LinkedPicture:
    """A picture that a section of what was read links to, from character `start` on of `document`.

    `path` is relative to the corpus's folder, or a web address; `title` is its text for those who do not see it.
    """

    document: str
    start: int
    path: str
    title: str = ""


@dataclass(frozen=True)
class Prediction:
    """One arm's reply to one question, with what it read and what it took.

    `abstained`: the arm declined. `error`: the arm failed, which is scored as a wrong answer. `cost` is in the
    experiment's currency and None where it follows from `seconds` and the machine's price. `sentences` is empty for
    arms that read nothing, for refusals, and in runs made before sentences were kept; so is `pictures`.
    """

    question_id: str
    arm: str
    answer: str = ""
    abstained: bool = False
    documents: tuple[RetrievedSpan, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds_to_first_token: float | None = None
    seconds: float = 0.0
    cost: float | None = None
    error: str | None = None
    sentences: tuple[CheckedSentence, ...] = ()
    pictures: tuple[LinkedPicture, ...] = ()

    @property
    def pieces(self) -> list[tuple[str, bool]]:
        """The answer in pieces, in order, each with whether it is a sentence that nothing read carries."""
        found, place = [], 0
        for each in self.sentences:
            if each.status == UNSUPPORTED and each.start >= place:
                said = self.answer[each.start : each.end].rstrip()
                found += [(self.answer[place : each.start], False), (said, True)]
                place = each.start + len(said)
        found.append((self.answer[place:], False))
        return [(text, unsupported) for text, unsupported in found if text]


class AnswerSystem(Protocol):
    """An arm that answers. `answer` yields one `Prediction` per question, in order; `stream` serves the app.

    An arm may have a `batch_size` of its own, the number of questions that it likes to be given at once.
    """

    @property
    def name(self) -> str:
        """The arm's name, unique in an experiment."""

    def answer(self, questions: Sequence[Question]) -> Iterator[Prediction]:
        """Yield one prediction per question, in the order of `questions`."""

    def stream(self, question: Question) -> Iterator[str | Prediction]:
        """Yield pieces of the answer as they come, and the whole `Prediction` last."""


def to_line(prediction: Prediction) -> str:
    """Return `prediction` as one JSON line, newline included; characters that UTF-8 cannot hold become '?'."""
    text = json.dumps(asdict(prediction), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"


def from_line(line: str, where: str) -> Prediction:
    """Read one line of `predictions.jsonl`; `where` names file and line in the error."""
    try:
        data = json.loads(line)
    except ValueError as error:
        raise PredictionError(f"{where}: not JSON ({error}); delete the line and run with --resume") from error
    if not isinstance(data, dict):
        raise PredictionError(f"{where}: not a JSON object; delete the line and run with --resume")
    problems = _problems(data)
    if problems:
        raise PredictionError(f"{where}: {'; '.join(problems)}; mend or delete the line and run with --resume")
    read = {
        "documents": tuple(RetrievedSpan(**span) for span in data.get("documents", ())),
        "sentences": tuple(_sentence(item) for item in data.get("sentences", ())),
        "pictures": tuple(LinkedPicture(**item) for item in data.get("pictures", ())),
    }
    return Prediction(**{**data, **read})


def _sentence(item: dict[str, Any]) -> CheckedSentence:
    span = item.get("span")
    citations = tuple(item.get("citations", ()))
    return CheckedSentence(**{**item, "citations": citations, "span": tuple(span) if span else None})


def read_predictions(path: Path) -> list[Prediction]:
    """Read every prediction of `path`. A last line without its newline was torn by a kill and is left out."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PredictionError(f"{path}: cannot be read ({error.strerror})") from error
    lines = data.split(b"\n")
    return [
        from_line(line.decode("utf-8", "replace"), f"{path}:{number}")
        for number, line in enumerate(lines[:-1], start=1)
        if line.strip()
    ]


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write all of `predictions` to `path` at once, atomically."""
    from data_prep.atomic import write_text

    write_text(path, "".join(to_line(prediction) for prediction in predictions))


_NUMBERS = {"seconds": False, "seconds_to_first_token": True, "cost": True}
_COUNTS = ("prompt_tokens", "completion_tokens")
_KNOWN = {field.name for field in fields(Prediction)}
_SPAN_KEYS = {field.name for field in fields(RetrievedSpan)}
_SENTENCE_KEYS = {field.name for field in fields(CheckedSentence)}
_PICTURE_KEYS = {field.name for field in fields(LinkedPicture)}


def _problems(data: dict[str, Any]) -> list[str]:
    """Say what is wrong with one prediction's JSON object; an empty list if nothing is."""
    found = [f"unknown key {key!r}" for key in sorted(set(data) - _KNOWN)]
    found += [f"{key} must be a non-empty string" for key in ("question_id", "arm") if not _is_name(data.get(key))]
    if not isinstance(data.get("answer", ""), str):
        found.append("answer must be a string")
    if not isinstance(data.get("abstained", False), bool):
        found.append("abstained must be true or false")
    if not isinstance(data.get("error"), str | None):
        found.append("error must be a string or null")
    found += _number_problems(data) + _span_problems(data.get("documents", []))
    return found + _sentence_problems(data.get("sentences", [])) + _picture_problems(data.get("pictures", []))


def _is_name(value: object) -> bool:
    """Tell whether `value` is a string with something in it."""
    return isinstance(value, str) and bool(value)


def _number_problems(data: dict[str, Any]) -> list[str]:
    """Say which numbers of a prediction are not numbers of their kind."""
    found = []
    for key, may_be_null in _NUMBERS.items():
        value = data.get(key, None if may_be_null else 0.0)
        if not (value is None and may_be_null) and not _is_amount(value):
            found.append(f"{key} must be a number of at least 0")
    for key in _COUNTS:
        value = data.get(key)
        if value is not None and not (_is_amount(value) and isinstance(value, int)):
            found.append(f"{key} must be a whole number of at least 0, or null")
    return found


def _is_amount(value: object) -> bool:
    """Tell whether `value` is a finite number of at least 0 (True and False are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _span_problems(spans: object) -> list[str]:
    """Say what is wrong with a prediction's `documents`."""
    if not isinstance(spans, list):
        return ["documents must be a list"]
    for span in spans:
        if not isinstance(span, dict) or not {"document", "start", "end"} <= set(span) <= _SPAN_KEYS:
            return [f"documents must be objects with the keys {', '.join(sorted(_SPAN_KEYS))}"]
        if not isinstance(span["document"], str) or not (_is_amount(span["start"]) and _is_amount(span["end"])):
            return ["a span of documents needs a document id, a start and an end"]
    return []


def _sentence_problems(sentences: object) -> list[str]:
    """Say what is wrong with a prediction's `sentences`."""
    if not isinstance(sentences, list):
        return ["sentences must be a list"]
    for item in sentences:
        if not isinstance(item, dict) or not {"start", "end", "status"} <= set(item) <= _SENTENCE_KEYS:
            return [f"sentences must be objects with the keys {', '.join(sorted(_SENTENCE_KEYS))}"]
        if item["status"] not in SENTENCE_STATUSES or not (_is_place(item["start"]) and _is_place(item["end"])):
            return [f"a sentence needs a start, an end and a status of {', '.join(SENTENCE_STATUSES)}"]
        numbers, span = item.get("citations", []), item.get("span")
        if not isinstance(numbers, list) or not all(_is_place(number) for number in numbers):
            return ["citations of a sentence must be whole numbers"]
        if span is not None and not _is_triple(span):
            return ["span of a sentence must be null, or a document id, a start and an end"]
    return []


def _picture_problems(pictures: object) -> list[str]:
    """Say what is wrong with a prediction's `pictures`."""
    if not isinstance(pictures, list):
        return ["pictures must be a list"]
    for item in pictures:
        if not isinstance(item, dict) or not {"document", "start", "path"} <= set(item) <= _PICTURE_KEYS:
            return [f"pictures must be objects with the keys {', '.join(sorted(_PICTURE_KEYS))}"]
        words = (item["document"], item["path"], item.get("title", ""))
        if not _is_place(item["start"]) or not all(isinstance(word, str) for word in words):
            return ["a picture needs a document id, a start, and a path"]
    return []


def _is_place(value: object) -> bool:
    """Tell whether `value` is a whole number of at least 0."""
    return _is_amount(value) and isinstance(value, int)


def _is_triple(value: object) -> bool:
    """Tell whether `value` is a document id, a start and an end."""
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and all(map(_is_place, value[1:]))
