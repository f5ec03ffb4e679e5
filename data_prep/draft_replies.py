"""A model's reply read: the JSON that was asked for, and the drafts it holds, their evidence located."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_prep.drafts import Draft, draft_id
from data_prep.locating import locate
from data_prep.questions import Evidence
from data_prep.sections import Section

_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """The facts of one reply that have questions, answer and quote; how many lack a part; and the near-misses."""

    facts: list[dict[str, Any]] = field(default_factory=list)
    incomplete: int = 0
    near_misses: list[str] = field(default_factory=list)


def parse_reply(reply: str) -> Reply:
    """Read a model's reply; a code fence or words around the JSON do not matter.

    Raises `ValueError` with the reason if there is no JSON object of the right form, or if it has facts and none of
    them has all parts.
    """
    data = _json_object(reply)
    facts, near = data.get("facts"), data.get("unanswerable", [])
    if not isinstance(facts, list) or not isinstance(near, list):
        raise ValueError('"facts" and "unanswerable" must be lists')
    good = [fact for fact in facts if _is_fact(fact)]
    if facts and not good:
        raise ValueError("no fact has questions, answer and quote")
    near_misses = [text.strip() for text in near if isinstance(text, str) and text.strip()]
    return Reply(good, len(facts) - len(good), near_misses)


def drafts_of_reply(reply: Reply, section: Section, text: str, *, wordings: int, origin: str) -> list[Draft]:
    """Turn one section's reply into drafts, their evidence located in the document's `text`."""
    drafts = [_draft(fact, section, text, wordings, origin) for fact in reply.facts]
    for question in reply.near_misses:
        name = draft_id(section.document, section.path, question)
        drafts.append(Draft(name, section.document, (question,), section.path, category="near-miss", origin=origin))
    return drafts


def _draft(fact: Mapping[str, Any], section: Section, text: str, wordings: int, origin: str) -> Draft:
    asked = [question.strip() for question in fact["questions"] if isinstance(question, str) and question.strip()]
    paraphrase = str(fact.get("paraphrase") or "").strip()
    found = locate(fact["quote"], text, section.start, section.end)
    return Draft(
        id=draft_id(section.document, section.path, fact["quote"], asked[0]),
        document=section.document,
        wordings=tuple(dict.fromkeys(asked))[:wordings],
        section=section.path,
        paraphrases=(paraphrase,) if paraphrase else (),
        answers=(" ".join(fact["answer"].split()),),
        quote=fact["quote"],
        evidence=(Evidence(section.document, found.start, found.end),) if found else (),
        located=found.how if found else None,
        category="drafted",
        origin=origin,
    )


def _is_fact(fact: Any) -> bool:
    if not isinstance(fact, dict) or not isinstance(fact.get("questions"), list):
        return False
    asked = [question for question in fact["questions"] if isinstance(question, str) and question.strip()]
    texts = [fact.get("answer"), fact.get("quote")]
    return bool(asked) and all(isinstance(text, str) and text.strip() for text in texts)


def _json_object(reply: str) -> dict[str, Any]:
    fenced = _FENCED.search(reply)
    body = fenced.group(1) if fenced else reply
    first = body.find("{")
    if first < 0:
        raise ValueError("no JSON object in the reply")
    try:
        data, _ = json.JSONDecoder().raw_decode(body[first:])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"broken JSON: {error}") from error
    return dict(data)
