"""Answers to take along: one asking as markdown, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from comparison_app.asking import Asking, Column

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_FIELDS = ("question", "corpus", "arm", "state", "answer", "abstained", "error", "seconds", "prompt_tokens",
           "completion_tokens", "cost", "sources")  # fmt: skip


def as_markdown(asking: Asking) -> str:
    """Return the question and every arm's answer with its sources; answers are quoted, so that they stay text."""
    parts = [f"## {_one_line(asking.question.question)}", f"Corpus: {asking.corpus}"]
    for column in asking.columns:
        parts.append(f"### {column.arm} ({_told(column)})")
        parts.append("\n".join(f"> {line}" for line in (_said(column) or "–").splitlines()))
        if column.prediction and column.prediction.documents:
            sources = [
                f"{number}. {span.title or span.document} ({span.document}, characters {span.start}–{span.end})"
                for number, span in enumerate(column.prediction.documents, start=1)
            ]
            parts.append("Sources:\n\n" + "\n".join(sources))
    return "\n\n".join(parts) + "\n"


def as_json(asking: Asking) -> str:
    """Return the asking as one JSON document: question, corpus, and each arm's prediction."""
    answers = [
        {"arm": column.arm, "state": column.state, "text": column.text}
        | ({"prediction": asdict(column.prediction)} if column.prediction else {})
        for column in asking.columns
    ]
    whole = {"question": asking.question.question, "about": asking.question.about, "corpus": asking.corpus}
    return json.dumps({**whole, "answers": answers}, ensure_ascii=False, indent=2) + "\n"


def as_csv(asking: Asking) -> str:
    """Return a row per arm; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    return table_csv([dict(zip(_FIELDS, _row(asking, column), strict=True)) for column in asking.columns], _FIELDS)


def table_csv(rows: Sequence[dict[str, object]], fields: Sequence[str]) -> str:
    """Return rows as CSV with a header; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(fields)
    for row in rows:
        writer.writerow([_harmless(row.get(name)) for name in fields])
    return out.getvalue()


def _row(asking: Asking, column: Column) -> list[object]:
    made = column.prediction
    sources = "; ".join(f"{span.document}:{span.start}-{span.end}" for span in made.documents) if made else ""
    return [
        asking.question.question,
        asking.corpus,
        column.arm,
        column.state,
        column.text,
        made.abstained if made else None,
        made.error if made else None,
        f"{column.seconds:.3f}",
        made.prompt_tokens if made else None,
        made.completion_tokens if made else None,
        made.cost if made else None,
        sources,
    ]


def _harmless(value: object) -> object:
    if not isinstance(value, str):
        return "" if value is None else value
    clean = value.replace("\x00", "")
    return f"'{clean}" if clean.startswith(_FORMULA) else clean


def _said(column: Column) -> str:
    error = column.prediction.error if column.prediction else None
    return f"failed: {error}" if error else column.text


def _told(column: Column) -> str:
    return f"{column.state}, {column.seconds:.2f} s"


def _one_line(text: str) -> str:
    return " ".join(text.split())
