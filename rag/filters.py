"""Haystack metadata filters over the SQLite store: SQL narrows what Haystack's own function then decides.

The values of a filter are bound, and its field names are checked, so neither can carry SQL.
"""

from __future__ import annotations

import re
from typing import Any

_FIELD = re.compile(r"(?:meta\.)?([A-Za-z_][A-Za-z0-9_]*)")
_COLUMNS = ("id", "content")
_EVERYTHING: tuple[str, list[Any]] = ("1", [])


def narrowing(filters: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return an SQL condition on the table of chunks, and its values, that every match of `filters` fulfils.

    Equality with texts and whole numbers is translated, under AND and OR; all else narrows nothing (`1`).
    """
    if "field" in filters:
        return _comparison(filters)
    conditions = [item for item in filters.get("conditions") or [] if isinstance(item, dict)]
    if not conditions or filters.get("operator") not in ("AND", "OR"):
        return _EVERYTHING
    parts = [narrowing(condition) for condition in conditions]
    joined = f" {filters['operator']} ".join(f"({condition})" for condition, _ in parts)
    return joined, [value for _, values in parts for value in values]


def _comparison(condition: dict[str, Any]) -> tuple[str, list[Any]]:
    column = _column(str(condition.get("field")))
    operator, value = condition.get("operator"), condition.get("value")
    if column is None:
        return _EVERYTHING
    if operator == "==" and _is_plain(value):
        return f"{column} = ?", [value]
    if operator == "in" and isinstance(value, list) and 0 < len(value) <= 500 and all(map(_is_plain, value)):
        return f"{column} IN ({', '.join('?' * len(value))})", list(value)
    return _EVERYTHING


def _column(field: str) -> str | None:
    """Return the SQL expression of a field, or None for one that SQL is not asked about (a nested one, say)."""
    if field in _COLUMNS:
        return field
    name = _FIELD.fullmatch(field)
    return f"json_extract(meta, '$.{name[1]}')" if name else None


def _is_plain(value: object) -> bool:
    """Tell whether SQL and Haystack agree on equality with `value`: not for dates, which Haystack compares as times."""
    if isinstance(value, str):
        return re.match(r"\d{4}-", value) is None and "\0" not in value
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
