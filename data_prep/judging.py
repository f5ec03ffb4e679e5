"""A model as judge of drafted pairs: yes or no to each, every reply kept, so that no pair is judged twice."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.conversations import judge_request
from data_prep.draft_journal import JUDGE_KEY, DraftJournal, JournalEntry, tokens_told

if TYPE_CHECKING:
    from haystack.dataclasses import ChatMessage

    from data_prep.drafting import ChatGenerator
    from data_prep.support import Claim

_YES = re.compile(r"\W*(?:yes|да)\b", re.IGNORECASE)
_NO = re.compile(r"\W*(?:no|нет)\b", re.IGNORECASE)


class ModelJudge:
    """Asks a Haystack chat generator whether a passage gives an answer; satisfies `grounding.Judge`.

    Verdicts lie in the journal at `journal` under `model`'s name and the prompt. A failed request is no verdict, and is
    asked again the next time.
    """

    def __init__(self, generator: ChatGenerator, model: str, journal: Path, *, in_flight: int = 8) -> None:
        self._generator, self._model, self._journal, self._in_flight = generator, model, journal, in_flight

    def verdicts(self, claims: Sequence[Claim]) -> list[bool | None]:
        """Return, for each claim, whether its passage gives its answer; None where no usable reply came."""
        requests = [judge_request(claim.question, claim.answer, claim.passage) for claim in claims]
        keys = [self._key(request) for request in requests]
        with DraftJournal(self._journal) as journal:
            known = journal.entries(keys)
            todo = {
                key: request
                for key, request in zip(keys, requests, strict=True)
                if key not in known or known[key].status != "done"
            }
            with ThreadPoolExecutor(max_workers=self._in_flight) as pool:
                for entry in pool.map(lambda item: self._ask(*item), todo.items()):
                    journal.record(entry)
                    known[entry.key] = entry
        return [verdict_of(known[key].reply) if known[key].status == "done" else None for key in keys]

    def _key(self, request: Sequence[ChatMessage]) -> str:
        parts = (self._model, *(message.text or "" for message in request))
        return JUDGE_KEY + hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _ask(self, key: str, request: list[ChatMessage]) -> JournalEntry:
        started, text, error = time.monotonic(), "", None
        usage: dict[str, Any] = {}
        try:
            message = self._generator.run(messages=request)["replies"][0]
            text, usage = message.text or "", message.meta.get("usage") or {}
            error = None if verdict_of(text) is not None else "neither yes nor no"
        except Exception as failure:  # whatever a vendor's client raises: the pair has no verdict
            error = f"{type(failure).__name__}: {failure}"
        return JournalEntry(
            key=key,
            document="",
            status="failed" if error else "done",
            reply=text,
            error=error,
            attempts=1,
            prompt_tokens=tokens_told(usage, "prompt_tokens"),
            completion_tokens=tokens_told(usage, "completion_tokens"),
            seconds=time.monotonic() - started,
        )


def verdict_of(reply: str) -> bool | None:
    """Read a judge's reply: True for one that opens with yes, False for no, None for anything else."""
    return True if _YES.match(reply) else False if _NO.match(reply) else None
