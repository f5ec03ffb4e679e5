"""Questions drafted from documents by a model: section by section, several at once, resumable, with their cost.

The generator is any Haystack chat generator (`run(messages=…) -> {"replies": [ChatMessage]}`), handed in. Each section
is one request; its reply is JSON (`draft_replies`), and its evidence is located in the document. Replies are kept in a
journal (`draft_journal`) as they come, so a section with a reply is never asked again; one that failed is asked again
by the next run. Nothing here checks whether an answer is true: that is `grounding`'s work.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from data_prep.conversations import draft_again, draft_request
from data_prep.corpus import title_of
from data_prep.draft_journal import DraftJournal, JournalEntry, tokens_told
from data_prep.draft_replies import drafts_of_reply, parse_reply
from data_prep.drafts import Draft
from data_prep.errors import DataError
from data_prep.sections import Section, sections

if TYPE_CHECKING:
    from haystack.dataclasses import ChatMessage

Progress = Callable[[int, int], None]
CHARACTERS_PER_TOKEN = 4.0
"""For the estimate before the first reply; the tokens told by the model's own replies take its place."""
COMPLETION_TOKENS_PER_FACT = 110
GIVE_UP_AFTER = 20
"""Drafting stops after so many failed sections in a row: a wrong key or a server that is down is not paid for twice."""


class ChatGenerator(Protocol):
    """What is needed of a Haystack chat generator."""

    def run(self, messages: list[ChatMessage]) -> dict[str, Any]:
        """Reply to one conversation: {"replies": [ChatMessage]}."""
        ...


@dataclass(frozen=True, slots=True)
class DraftConfig:
    """How much is asked of each section, how many requests run at once, and what a token costs.

    Prices are money per million tokens. Drafting stops asking when it has spent `max_cost`; what is left is asked by
    the next run.
    """

    facts: int = 3
    wordings: int = 2
    near_misses: int = 1
    in_flight: int = 8
    attempts: int = 3
    input_price: float = 0.0
    output_price: float = 0.0
    currency: str = "USD"
    max_cost: float | None = None

    def __post_init__(self) -> None:
        wrong = [name for name in ("facts", "wordings", "in_flight", "attempts") if getattr(self, name) < 1]
        wrong += [name for name in ("near_misses", "input_price", "output_price") if getattr(self, name) < 0]
        if wrong:
            raise DataError(f"drafting: {', '.join(wrong)} must be larger")

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the price of so many tokens."""
        return (prompt_tokens * self.input_price + completion_tokens * self.output_price) / 1e6


@dataclass(frozen=True, slots=True)
class DraftEstimate:
    """What is left to ask, and about what it will take; `measured` says whether earlier replies gave the tokens."""

    sections: int
    to_ask: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    currency: str
    measured: bool


@dataclass(frozen=True)
class DraftRun:
    """What drafting came to: the drafts of all sections, and what this run asked and spent.

    `failed` names each section that gave nothing usable, with the reason; it is asked again by the next run.
    `unasked` sections were left when the money ran out; `incomplete` facts lacked a part and are no drafts.
    """

    drafts: list[Draft] = field(default_factory=list)
    incomplete: int = 0
    sections: int = 0
    asked: int = 0
    known: int = 0
    unasked: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    currency: str = "USD"
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Task:
    """One section to ask about: the key of its journal entry, and its prompt."""

    key: str
    section: Section
    request: list[ChatMessage]


def estimate_drafting(documents: Mapping[str, str], journal: Path, config: DraftConfig, *, model: str) -> DraftEstimate:
    """Say what drafting these documents would still ask and cost; nothing is asked."""
    tasks = list(_tasks(documents, config, model))
    with DraftJournal(journal) as kept:
        known = kept.entries(task.key for task in tasks)
        left = [task for task in tasks if not _is_done(known.get(task.key))]
        mean = kept.mean_tokens()
    characters = sum(len(message.text or "") for task in left for message in task.request)
    prompt = len(left) * mean[0] if mean else characters / CHARACTERS_PER_TOKEN
    completion = len(left) * (mean[1] if mean else config.facts * COMPLETION_TOKENS_PER_FACT)
    cost = config.cost(prompt, completion)
    return DraftEstimate(len(tasks), len(left), round(prompt), round(completion), cost, config.currency, bool(mean))


def draft_questions(
    documents: Mapping[str, str],
    generator: ChatGenerator,
    journal: Path,
    config: DraftConfig,
    *,
    model: str,
    progress: Progress | None = None,
) -> DraftRun:
    """Ask `generator` about every section of `documents` (id -> markdown) that `journal` has no reply for.

    Replies are kept as they come; an interrupted run goes on where it was. `model` names the generator: replies of
    another model do not count. A request that fails, or whose reply is not the JSON asked for, is tried
    `config.attempts` times, then listed in `failed`.
    """
    started = time.monotonic()
    tasks = list(_tasks(documents, config, model))
    with DraftJournal(journal) as kept:
        known = kept.entries(task.key for task in tasks)
        left = [task for task in tasks if not _is_done(known.get(task.key))]
        asked = _ask_all(left, generator, kept, config, _from(progress, len(tasks) - len(left), len(tasks)))
    replies = {**known, **{entry.key: entry for entry in asked}}
    drafts: list[Draft] = []
    failed: dict[str, str] = {}
    incomplete = 0
    for task in tasks:
        entry, section = replies.get(task.key), task.section
        if entry is not None and entry.status == "done":
            reply = parse_reply(entry.reply)
            incomplete += reply.incomplete
            text = documents[section.document]
            drafts += drafts_of_reply(reply, section, text, wordings=config.wordings, origin=model)
        elif entry is not None:
            failed[f"{section.document}:{section.start}"] = entry.error or "no reply"
    prompt, completion = sum(entry.prompt_tokens for entry in asked), sum(entry.completion_tokens for entry in asked)
    return DraftRun(
        drafts=_unique(drafts),
        incomplete=incomplete,
        sections=len(tasks),
        asked=len(asked),
        known=len(tasks) - len(left),
        unasked=len(left) - len(asked),
        failed=failed,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cost=config.cost(prompt, completion),
        currency=config.currency,
        seconds=time.monotonic() - started,
    )


def _tasks(documents: Mapping[str, str], config: DraftConfig, model: str) -> Iterator[_Task]:
    wish = {"facts": config.facts, "wordings": config.wordings, "near_misses": config.near_misses}
    for name, text in documents.items():
        title = title_of(text, name)
        for section in sections(name, text):
            body = section.text(text).strip()
            if body:
                request = draft_request(title, section.path, body, **wish)
                parts = (model, name, *(message.text or "" for message in request))
                yield _Task(hashlib.sha256("\0".join(parts).encode()).hexdigest(), section, request)


def _ask_all(
    tasks: Sequence[_Task], generator: ChatGenerator, journal: DraftJournal, config: DraftConfig, progress: Progress
) -> list[JournalEntry]:
    """Ask with `in_flight` requests at once; each reply is recorded by this thread before the next is sent."""
    entries: list[JournalEntry] = []
    waiting = iter(tasks)
    with ThreadPoolExecutor(max_workers=config.in_flight) as pool:
        running: set[Future[JournalEntry]] = set()
        try:
            while True:
                for task in islice(waiting, 0 if _spent(entries, config) else config.in_flight - len(running)):
                    running.add(pool.submit(_ask, task, generator, config.attempts))
                if not running:
                    return entries
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    journal.record(future.result())
                    entries.append(future.result())
                progress(len(entries), len(tasks))
                _check_alive(entries)
        finally:  # stopped half-way: what is under way is paid for, so it is waited for and kept
            for future in wait(running).done:
                journal.record(future.result())


def _spent(entries: Sequence[JournalEntry], config: DraftConfig) -> bool:
    if config.max_cost is None:
        return False
    return sum(config.cost(entry.prompt_tokens, entry.completion_tokens) for entry in entries) >= config.max_cost


def _check_alive(entries: Sequence[JournalEntry]) -> None:
    last = entries[-GIVE_UP_AFTER:]
    if len(last) == GIVE_UP_AFTER and all(entry.status == "failed" for entry in last):
        raise DataError(
            f"the last {GIVE_UP_AFTER} sections all failed, the last one with: {last[-1].error}; "
            "what was drafted before is kept, and the same command goes on from there"
        )


def _ask(task: _Task, generator: ChatGenerator, attempts: int) -> JournalEntry:
    """Ask about one section until its reply can be read; a failure is an entry too."""
    started, request, usages = time.monotonic(), task.request, list[Mapping[str, Any]]()
    text, error, tried = "", None, 0
    while tried < attempts and (error or not tried):
        tried += 1
        try:
            message = generator.run(messages=request)["replies"][0]
        except Exception as failure:  # whatever a vendor's client raises: it is told, counted and asked again
            error = f"{type(failure).__name__}: {failure}"
            continue
        text, error = message.text or "", None
        usages.append(message.meta.get("usage") or {})
        try:
            parse_reply(text)
        except ValueError as failure:
            error = str(failure)
            request = draft_again(task.request, text, error)
    return JournalEntry(
        key=task.key,
        document=task.section.document,
        status="failed" if error else "done",
        reply=text,
        error=error,
        attempts=tried,
        prompt_tokens=sum(tokens_told(usage, "prompt_tokens") for usage in usages),
        completion_tokens=sum(tokens_told(usage, "completion_tokens") for usage in usages),
        seconds=time.monotonic() - started,
    )


def _is_done(entry: JournalEntry | None) -> bool:
    return entry is not None and entry.status == "done"


def _from(progress: Progress | None, known: int, total: int) -> Progress:
    return lambda done, _: progress(known + done, total) if progress else None


def _unique(drafts: Sequence[Draft]) -> list[Draft]:
    return list({draft.id: draft for draft in drafts}.values())
