"""Site profiles: where the pages of a tool or of one site keep their text, and what in it is no text."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.errors import DataError

if TYPE_CHECKING:
    from lxml.cssselect import CSSSelector  # type: ignore[import-untyped]

BUNDLED = Path(__file__).with_name("profiles.toml")
_LISTS = ("detect", "content", "drop", "note")


@dataclass(frozen=True, slots=True)
class Profile:
    """CSS selectors that fit one site or tool; see profiles.toml for what each is for."""

    name: str
    detect: tuple[str, ...]
    content: tuple[str, ...]
    drop: tuple[str, ...] = ()
    note: tuple[str, ...] = ()

    def fits(self, tree: Any) -> bool:
        """Tell whether a page is built as this profile says."""
        return any(selector(tree) for selector in _compiled(self.detect))

    def main(self, tree: Any) -> Any | None:
        """Return the element that holds the document, or None if the page has none of them."""
        found = (hits for selector in _compiled(self.content) if (hits := selector(tree)))
        return max(next(found, []), key=lambda element: len(element.text_content()), default=None)

    def dropped(self, element: Any) -> list[Any]:
        """Return the elements inside `element` that are no part of the document."""
        return [hit for selector in _compiled(self.drop) for hit in selector(element)]

    def notes(self, element: Any) -> list[Any]:
        """Return the boxes inside `element` that are admonitions."""
        return [hit for selector in _compiled(self.note) for hit in selector(element)]


def read_profiles(path: Path) -> tuple[Profile, ...]:
    """Read a file of site profiles; raises `DataError` that names the file and everything that is wrong in it."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("profile")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a file of site profiles: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: holds no [[profile]]; it needs name, detect and content")
    faults = [fault for place, row in enumerate(rows, start=1) for fault in _faults(place, row)]
    if faults:
        raise DataError(f"{path}: {'; '.join(faults)}")
    return tuple(Profile(row["name"], *(tuple(row.get(key, ())) for key in _LISTS)) for row in rows)


@cache
def bundled_profiles() -> tuple[Profile, ...]:
    """Return the profiles that come with Versus."""
    return read_profiles(BUNDLED)


def matching(tree: Any, own: Sequence[Profile] = ()) -> Profile | None:
    """Return the first profile that fits a page, `own` ones first."""
    return next((profile for profile in (*own, *bundled_profiles()) if profile.fits(tree)), None)


def _faults(place: int, row: dict[str, Any]) -> list[str]:
    from lxml.cssselect import CSSSelector  # type: ignore[import-untyped]

    faults = [f"profile {place}: unknown key {key!r}" for key in row.keys() - {"name", *_LISTS}]
    faults += [f"profile {place}: {key} is missing" for key in ("name", "detect", "content") if not row.get(key)]
    for key in _LISTS:
        values = row.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            faults.append(f"profile {place}: {key} must be a list of CSS selectors")
            continue
        for value in values:
            try:
                CSSSelector(value)
            except Exception as error:  # cssselect has several unrelated error classes
                faults.append(f"profile {place}: {key} {value!r}: {error}")
    return faults


@cache
def _compiled(selectors: tuple[str, ...]) -> tuple[CSSSelector, ...]:
    from lxml.cssselect import CSSSelector  # type: ignore[import-untyped]

    return tuple(CSSSelector(selector, translator="html") for selector in selectors)
