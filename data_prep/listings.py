"""Listings: records of ads and products, and the markdown document that is made of each.

`listings.jsonl` holds one record a line: `{"id", "title", "description", "category", "price", "currency", "attributes",
"rating", "reviews", "place", "url", "language", "variant_group", "gold"}`. `gold` holds labelled attributes with their
span in `title` or `description`, and is empty where nobody labelled the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_prep.atomic import write_text
from data_prep.errors import DataError

_WORDS = {
    "en": {"price": "Price", "rating": "Rating", "reviews": "reviews", "place": "Place", "category": "Category",
           "details": "Details", "description": "Description", "link": "Link", "none": "not given"},
    "ru": {"price": "Цена", "rating": "Оценка", "reviews": "отзывов", "place": "Место", "category": "Раздел",
           "details": "Характеристики", "description": "Описание", "link": "Ссылка", "none": "не указана"},
}  # fmt: skip
GOLD_FIELDS = ("title", "description")


@dataclass(frozen=True, slots=True)
class GoldAttribute:
    """A labelled attribute: its value, and the characters `start:end` of `field` that say it."""

    attribute: str
    value: str
    field: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Listing:
    """One ad or product as a site shows it; `price`, `rating` and `variant_group` are None where it has none."""

    id: str
    title: str
    description: str
    category: str
    price: float | None = None
    currency: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    rating: float | None = None
    reviews: int = 0
    place: str | None = None
    url: str | None = None
    language: str = "en"
    variant_group: str | None = None
    gold: tuple[GoldAttribute, ...] = ()

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise ValueError("title is empty")
        for item in self.gold:
            if item.field not in GOLD_FIELDS or not 0 <= item.start < item.end <= len(getattr(self, item.field)):
                raise ValueError(f"gold attribute {item.attribute!r} lies outside its field")


def listing_markdown(listing: Listing) -> str:
    """Return the markdown document of a listing: title, price and place, attributes, description; in its language."""
    words = _WORDS.get(listing.language, _WORDS["en"])
    rating = f"{listing.rating:g} ({listing.reviews} {words['reviews']})" if listing.rating else None
    told = {
        "category": listing.category,
        "price": _price(listing) or words["none"],
        "rating": rating,
        "place": listing.place,
        "link": listing.url,
    }
    facts = [f"- {words[key]}: {value}" for key, value in told.items() if value]
    details = [f"- {name}: {value}" for name, value in listing.attributes.items()]
    parts = [f"# {listing.title}", "\n".join(facts)]
    if details:
        parts += [f"## {words['details']}", "\n".join(details)]
    return "\n\n".join([*parts, f"## {words['description']}", listing.description.strip()]) + "\n"


def read_listings(path: Path) -> list[Listing]:
    """Read a listings file; raises `DataError` that names file and line."""
    listings = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row: dict[str, Any] = json.loads(line)
                gold = tuple(GoldAttribute(**item) for item in row.get("gold", ()))
                listings.append(Listing(**{**row, "gold": gold}))
            except (ValueError, TypeError) as error:
                raise DataError(f"{path}, line {number}: {error}") from error
    return listings


def write_listings(path: Path, listings: Iterable[Listing]) -> None:
    """Write a listings file in one step."""
    write_text(path, "".join(json.dumps(asdict(listing), ensure_ascii=False) + "\n" for listing in listings))


def _price(listing: Listing) -> str | None:
    if listing.price is None:
        return None
    amount = f"{listing.price:,.2f}".removesuffix(".00").replace(",", " ")
    return f"{amount} {listing.currency}" if listing.currency else amount
