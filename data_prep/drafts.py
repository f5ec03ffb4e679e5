"""Drafted questions, before a person or a check has let them in: `questions/drafts.jsonl`, one draft a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from data_prep.atomic import write_text
from data_prep.errors import QuestionError
from data_prep.facts import Fact
from data_prep.questions import Evidence


@dataclass(frozen=True, slots=True)
class Draft:
    """One fact as it was drafted.

    `wordings` ask for it, `paraphrases` with other words; `answers` is empty for a question that the documents should
    not answer. `quote` is what the model gave as evidence, `evidence` where that stands, found as `located` says
    (exact, words, fuzzy; None: not found). `origin` is the model's name, `rules`, or `import`. `dropped` is the reason
    why a check left it out, and `detail` what it saw; None: it stays.
    """

    id: str
    document: str
    wordings: tuple[str, ...]
    section: str = ""
    paraphrases: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    quote: str = ""
    evidence: tuple[Evidence, ...] = ()
    located: str | None = None
    category: str | None = None
    origin: str = ""
    dropped: str | None = None
    detail: str | None = None

    @property
    def answerable(self) -> bool:
        """Whether it claims that the documents hold an answer."""
        return bool(self.answers)

    @property
    def questions(self) -> tuple[str, ...]:
        """All wordings, paraphrases last."""
        return self.wordings + self.paraphrases

    @property
    def documents_key(self) -> tuple[str, ...]:
        """The documents of its evidence, else the one it was drafted from: what tells two askings apart."""
        return tuple(dict.fromkeys(item.document for item in self.evidence)) or (self.document,)

    def fact(self) -> Fact:
        """Return the fact that it becomes when it is let in."""
        evidence = self.evidence if self.answerable else ()
        return Fact(self.id, self.wordings, self.paraphrases, self.answers, evidence, self.category)


def draft_id(document: str, *parts: str) -> str:
    """Return an id that depends on what is drafted alone, so that drafting again gives the same."""
    return f"{document}-{hashlib.sha256(chr(0).join((document, *parts)).encode()).hexdigest()[:8]}"


def drafts_path(corpus: Path) -> Path:
    """Return where a corpus keeps its drafts."""
    return corpus / "questions" / "drafts.jsonl"


def write_drafts(path: Path, drafts: Iterable[Draft]) -> None:
    """Write drafts in one step."""
    write_text(path, "".join(json.dumps(asdict(draft), ensure_ascii=False) + "\n" for draft in drafts))


def read_drafts(path: Path) -> list[Draft]:
    """Read drafts; raises `QuestionError` that names file and line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise QuestionError(f"{path} does not exist; `versus questions draft {path.parents[1]}` makes it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise QuestionError(f"{path}: cannot be read: {error}") from error
    drafts = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                drafts.append(draft_from_mapping(json.loads(line)))
            except (ValueError, TypeError, AttributeError) as error:
                raise QuestionError(f"{path}, line {number}: {error}") from error
    return drafts


def draft_from_mapping(row: Mapping[str, Any]) -> Draft:
    """Build a draft from one decoded JSON object; raises `ValueError` or `TypeError` that says what is wrong."""
    unknown = set(row) - {field.name for field in fields(Draft)}
    if unknown:
        raise ValueError(f"unknown field {', '.join(sorted(unknown))}")
    lists = {key: tuple(map(str, row.get(key) or ())) for key in ("wordings", "paraphrases", "answers")}
    if not lists["wordings"] or not all(text.strip() for texts in lists.values() for text in texts):
        raise ValueError("a draft needs a wording, and no wording or answer may be empty")
    evidence = tuple(Evidence(**item) for item in row.get("evidence") or ())
    return Draft(**{**row, **lists, "evidence": evidence})
