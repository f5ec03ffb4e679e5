"""`versus scrape` with cleaning: what the person, and a program, learn of languages, duplicates and personal data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comparison_app.cli import main
from data_prep.listings import read_listings

ENGLISH = "The pump moves water from the well to the house, and it must be filled before the first start of the year."
RUSSIAN = "Насос подаёт воду из колодца в дом, и перед первым пуском в году его нужно заполнить водой до самого верха."


def test_the_languages_of_the_documents_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line with each language, a warning for documents that are not in the corpus's; the report in the JSON."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "one.md").write_text(f"# Pump\n\n{ENGLISH}\n", encoding="utf-8")
    (folder / "two.md").write_text(f"# Насос\n\n{RUSSIAN}\n", encoding="utf-8")
    command = ["scrape", str(folder), "--into", str(tmp_path / "corpus"), "--clean"]
    assert main(command) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "languages: en 1, ru 1" in told
    assert "1 documents are not in the corpus's language (en): two" in told
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cleaning"]["languages"] == {"one": "en", "two": "ru"}


def test_listings_lose_their_duplicates_and_the_numbers_of_their_language(tmp_path: Path) -> None:
    """The record of a document that cleaning left out goes too; `ru` reads national numbers as Russian ones."""
    rows = [
        {"id": "1", "title": "Насос", "description": f"{RUSSIAN} Звоните 8 (912) 345-67-89."},
        {"id": "2", "title": "Насос", "description": f"{RUSSIAN} Звоните 8 (912) 345-67-89."},
    ]
    feed = tmp_path / "feed.jsonl"
    feed.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    options = ["--listings", "--clean", "--remove-personal", "--language", "ru"]
    assert main(["scrape", str(feed), "--into", str(tmp_path / "corpus"), *options]) == 0
    listings = list(read_listings(tmp_path / "corpus" / "listings.jsonl"))
    assert [listing.id for listing in listings] == ["1"]
    assert "[phone]" in listings[0].description
    assert [path.stem for path in (tmp_path / "corpus" / "documents").iterdir()] == ["1"]


def test_regions_without_phone_numbers_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A code that no numbering plan has is named."""
    feed = tmp_path / "feed.csv"
    feed.write_text("id,title\n1,Pump\n")
    options = ["--listings", "--remove-personal", "--regions", "us,xx"]
    assert main(["scrape", str(feed), "--into", str(tmp_path / "corpus"), *options]) == 1
    assert "region XX" in capsys.readouterr().err
