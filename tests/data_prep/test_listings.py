"""Listings are read strictly and become documents in their own language."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.errors import DataError
from data_prep.listings import GoldAttribute, Listing, listing_markdown, read_listings, write_listings


def test_a_listing_becomes_a_document_with_what_it_has() -> None:
    """Attributes and description stand under headings; what is missing is said or left out."""
    listing = Listing("a", "Oak table", "Solid.\nNo scratches.", "furniture", 1250.0, "EUR", {"Width": "90 cm"}, None)
    text = listing_markdown(listing)
    assert text.startswith("# Oak table\n")
    assert "- Price: 1 250 EUR" in text
    assert "- Width: 90 cm" in text
    assert text.endswith("Solid.\nNo scratches.\n")
    assert "Rating" not in text
    russian = listing_markdown(Listing("b", "Стол", "Крепкий.", "мебель", rating=4.5, reviews=3, language="ru"))
    assert "- Цена: не указана" in russian
    assert "- Оценка: 4.5 (3 отзывов)" in russian


def test_listings_are_read_back_with_their_gold_spans(tmp_path: Path) -> None:
    """A labelled attribute keeps the characters that say it."""
    gold = (GoldAttribute("material", "oak", "title", 0, 3),)
    listings = [Listing("a", "Oak table", "Solid.", "furniture", gold=gold), Listing("b", "Стол", "Да.", "мебель")]
    write_listings(tmp_path / "listings.jsonl", listings)
    assert read_listings(tmp_path / "listings.jsonl") == listings


@pytest.mark.parametrize(
    ("change", "message"),
    [({"title": " "}, "title is empty"), ({"colour": "red"}, "colour"), ({"gold": [{"attribute": "x"}]}, "missing")],
)
def test_a_bad_listing_names_file_and_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """An empty title, an unknown field, half a gold attribute."""
    row = {"id": "a", "title": "T", "description": "D", "category": "c"}
    path = tmp_path / "listings.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "id": "b", **change}) + "\n")
    with pytest.raises(DataError, match=r"listings\.jsonl, line 2") as caught:
        read_listings(path)
    assert message in str(caught.value)
