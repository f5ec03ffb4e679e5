"""A person's word on drafted questions: accepted, edited or rejected; kept in a file that all who review share.

`questions/drafts.jsonl` holds what was drafted and grounded, `questions/decisions.jsonl` one decision a line, the last
one on a draft being the one that counts; a decision is on disk when `decide` returns. `publish_facts` writes what was
accepted into `questions/facts.jsonl`, from which `versus questions split` makes the question files.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_prep.atomic import write_bytes
from data_prep.corpus import load_corpus
from data_prep.drafts import Draft, draft_from_mapping, drafts_path, read_drafts
from data_prep.errors import DataError, QuestionError
from data_prep.facts import Fact, read_facts, write_facts
from data_prep.locating import locate
from data_prep.questions import Evidence

DECISIONS = ("accept", "edit", "reject", "reopen")
EDITABLE = ("wordings", "paraphrases", "answers", "quote")
CONTEXT_CHARACTERS = 400
_STATES = {"accept": "accepted", "edit": "edited", "reject": "rejected"}


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One draft to look at: as it stands now, what was decided (accepted, edited, rejected, None), and its evidence.

    `before`, `evidence` and `after` are consecutive stretches of the document, so that a reader sees the evidence where
    it stands; all are empty for a draft without evidence.
    """

    draft: Draft
    state: str | None
    before: str = ""
    evidence: str = ""
    after: str = ""

    @property
    def id(self) -> str:
        """The draft's id."""
        return self.draft.id


def load_drafts(corpus_path: Path) -> list[ReviewItem]:
    """Return the drafts of a corpus with what was decided on each, in the order drafted.

    An edit that the document, which has changed since, no longer carries leaves its draft open. Raises `QuestionError`
    that names file and line, or says that nothing has been drafted yet.
    """
    texts = _texts(corpus_path)
    decisions = _decisions(corpus_path)
    items = []
    for draft in read_drafts(drafts_path(corpus_path)):
        try:
            items.append(_item(draft, decisions.get(draft.id), texts))
        except DataError:
            items.append(_item(draft, None, texts))
    return items


def decide(corpus_path: Path, draft_id: str, decision: str, edited: Mapping[str, Any] | None = None) -> ReviewItem:
    """Record one decision (accept, edit, reject, reopen) and return the draft as it stands now.

    `edited` holds what was changed of wordings, paraphrases, answers (lists of strings) and quote; an edit is an
    acceptance of the edited draft. A changed quote must stand in the draft's document. Raises `DataError` that says
    what is wrong; nothing is recorded then.
    """
    if decision not in DECISIONS:
        raise DataError(f"decision is {decision!r}; it is one of {', '.join(DECISIONS)}")
    if (decision == "edit") != bool(edited):
        raise DataError("an edit needs what was edited" if decision == "edit" else "only an edit changes a draft")
    drafts = {draft.id: draft for draft in read_drafts(drafts_path(corpus_path))}
    if draft_id not in drafts:
        raise DataError(f"there is no draft {draft_id!r} in {drafts_path(corpus_path)}")
    row = {"id": draft_id, "decision": decision, "edited": dict(edited) if edited else None}
    item = _item(drafts[draft_id], row, _texts(corpus_path))
    _append(_decisions_path(corpus_path), {**row, "at": datetime.now(UTC).isoformat(timespec="seconds")})
    return item


def review_counts(corpus_path: Path) -> dict[str, int]:
    """Return how many drafts are accepted, edited, rejected and open."""
    counts = Counter(item.state or "open" for item in load_drafts(corpus_path))
    return {state: counts.get(state, 0) for state in ("accepted", "edited", "rejected", "open")}


def publish_facts(corpus_path: Path, *, open_too: bool = False) -> int:
    """Write the accepted and edited drafts into `questions/facts.jsonl`; return how many facts it holds now.

    Facts that are no drafts stay as they are; a draft that was rejected or reopened leaves the file. `open_too` lets
    in what nobody has decided on as well.
    """
    items = load_drafts(corpus_path)
    path = corpus_path / "questions" / "facts.jsonl"
    drafted = {item.id for item in items}
    others = [fact for fact in read_facts(path) if fact.id not in drafted] if path.exists() else []
    wanted = ("accepted", "edited", None) if open_too else ("accepted", "edited")
    facts: list[Fact] = [*others, *(item.draft.fact() for item in items if item.state in wanted)]
    write_facts(path, facts)
    return len(facts)


def _texts(corpus_path: Path) -> dict[str, str]:
    return load_corpus(corpus_path).texts(include_new=True)


def _item(draft: Draft, decision: Mapping[str, Any] | None, texts: Mapping[str, str]) -> ReviewItem:
    state = _STATES.get(str(decision["decision"])) if decision else None
    if decision and decision.get("edited"):
        draft = _edited(draft, decision["edited"], texts)
    for span in draft.evidence[:1]:
        text = texts.get(span.document, "")
        start, end = span.start or 0, len(text) if span.end is None else span.end
        before, after = text[max(0, start - CONTEXT_CHARACTERS) : start], text[end : end + CONTEXT_CHARACTERS]
        return ReviewItem(draft, state, before, text[start:end], after)
    return ReviewItem(draft, state)


def _edited(draft: Draft, edited: Mapping[str, Any], texts: Mapping[str, str]) -> Draft:
    unknown = set(edited) - set(EDITABLE)
    if unknown:
        raise DataError(f"draft {draft.id}: {', '.join(sorted(unknown))} cannot be edited; {', '.join(EDITABLE)} can")
    try:
        changed = draft_from_mapping({**asdict(draft), **edited})
    except (ValueError, TypeError) as error:
        raise DataError(f"draft {draft.id}: {error}") from error
    if changed.quote == draft.quote:
        if changed.answerable and not changed.evidence:
            raise DataError(
                f"draft {draft.id}: an answer needs evidence; give a quote from document {draft.document!r}"
            )
        return changed
    if not changed.quote and not changed.answerable:
        return replace(changed, evidence=(), located=None)
    found = locate(changed.quote, texts.get(draft.document, ""))
    if found is None:
        raise DataError(f"draft {draft.id}: the quote stands nowhere in document {draft.document!r}")
    return replace(changed, evidence=(Evidence(draft.document, found.start, found.end),), located=found.how)


def _decisions_path(corpus_path: Path) -> Path:
    return corpus_path / "questions" / "decisions.jsonl"


def _decisions(corpus_path: Path) -> dict[str, dict[str, Any]]:
    """Return the last decision on each draft; a last line that a kill cut short counts as not written."""
    path = _decisions_path(corpus_path)
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found[row["id"]] = {"decision": row["decision"], "edited": row.get("edited")}
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise QuestionError(f"{path}, line {number}: not a decision: {error}") from error
    return found


def _append(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line in one write, on disk when it returns; what a kill left of the line before it is cut off."""
    if path.exists() and not (data := path.read_bytes()).endswith(b"\n"):
        write_bytes(path, data[: data.rfind(b"\n") + 1])
    line = json.dumps(row, ensure_ascii=False) + "\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode("utf-8"))
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
