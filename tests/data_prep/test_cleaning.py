"""Cleaning: what is mended, what is taken out, and what must stay."""

from __future__ import annotations

import pytest

from data_prep.cleaning import CleaningConfig, clean_documents, clean_text, language_of
from data_prep.errors import DataError
from data_prep.personal_data import remove_personal_data

FOOTER = "Copyright 2024 Lamp Works. All rights reserved. Contact us for help with this manual."
MENU = "[Home](index) [Products](products) [Support](support)"
SUBJECTS = ("battery", "shade", "plug", "ring", "case", "stand", "cable", "switch", "fuse", "bulb")


def _pages() -> dict[str, str]:
    return {
        name: f"# The {name}\n\n{MENU}\n\nThe {name} of the lamp is made of part {place} and lasts.\n\n"
        f"## Care of the {name}\n\nWipe the {name} with a cloth that was {'dipped ' * place}in water.\n\n"
        f"**Warning:** pull the plug first.\n\nThen let the {name} dry.\n\nPut it back.\n\nSwitch on the {name}.\n\n"
        f"The {name} is ready after {place} minutes.\n\n## Legal\n\n{FOOTER}\n"
        for place, name in enumerate(SUBJECTS, start=1)
    }


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("The lamp â€” itâ€™s bright", "The lamp — it’s bright\n"),
        ("5\u00a0kg\u200b of  oil  \n\n\n\nend", "5 kg of oil\n\nend\n"),
        ("o\ufb03ce\r\nhours &lt;b&gt;", "office\nhours &lt;b&gt;\n"),
        ("e\u0301te\u0301", "été\n"),
        ("- a\n    - b  c", "- a\n    - b  c\n"),
        ("```\na  b \n\n\n\nc\u00a0d\n```\n", "```\na  b \n\n\n\nc\u00a0d\n```\n"),
        (" \n\u200b\n", ""),
    ],
)
def test_unicode_and_white_space_are_mended(dirty: str, clean: str) -> None:
    """Mojibake, odd spaces, ligatures and blank lines are mended; code, entities and indents stay."""
    assert clean_text(dirty) == clean


def test_boilerplate_is_found_at_the_edges_and_what_repeats_inside_stays() -> None:
    """A menu and a footer on every page go, with the footer's heading; a warning in the middle of all pages stays."""
    cleaned, report = clean_documents(_pages())
    assert set(cleaned) == set(SUBJECTS)
    for name, text in cleaned.items():
        assert "Copyright" not in text
        assert "Home" not in text
        assert "## Legal" not in text
        assert "**Warning:** pull the plug first." in text
        assert f"## Care of the {name}" in text
    assert sorted(report.boilerplate.values()) == [10, 10]


def test_a_few_pages_have_no_boilerplate() -> None:
    """What stands on three pages of three is not enough to be called boilerplate."""
    pages = dict(list(_pages().items())[:3])
    cleaned, report = clean_documents(pages)
    assert report.boilerplate == {}
    assert cleaned == pages


def test_near_duplicates_go_unless_title_or_numbers_differ() -> None:
    """A copy with one word changed goes; a variant with another number or another title stays, and is told."""
    text = "# Tyres\n\n" + " ".join(f"The {one} stands by the {two}." for one in SUBJECTS for two in SUBJECTS)
    base = text + " Inflate them to 2 bar and check them when they are cold, before a long drive, every month."
    documents = {"a": base, "b": base.replace("cold", "cool"), "c": base.replace("2 bar", "3 bar")}
    documents["d"] = base.replace("# Tyres", "# Winter tyres")
    cleaned, report = clean_documents(documents)
    assert set(cleaned) == {"a", "c", "d"}
    assert [(pair.document, pair.of) for pair in report.duplicates] == [("b", "a")]
    assert [(pair.document, pair.of) for pair in report.variants] == [("c", "a"), ("d", "a")]
    assert "nearly the same as a" in report.dropped["b"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Charge the lamp for four hours before you use it for the first time.", "en"),
        ("Laden Sie die Lampe vier Stunden lang auf, bevor Sie sie zum ersten Mal benutzen.", "de"),
        ("Зарядите лампу в течение четырёх часов перед первым использованием.", "ru"),
        ("OK 5 V", None),
    ],
)
def test_the_language_is_told_where_there_is_enough_text(text: str, code: str | None) -> None:
    """A few letters are not enough to tell."""
    assert language_of(text) == code


def test_documents_of_other_languages_are_left_out_on_request() -> None:
    """The reason names the language; a document too short to tell stays."""
    documents = {
        "en": "Charge the lamp for four hours before you use it for the first time.\n",
        "de": "Laden Sie die Lampe vier Stunden lang auf, bevor Sie sie zum ersten Mal benutzen.\n",
        "short": "5 V\n",
    }
    cleaned, report = clean_documents(documents, CleaningConfig(languages=("en",)))
    assert set(cleaned) == {"en", "short"}
    assert report.dropped == {"de": "is in language de, not in en"}


def test_cleaning_twice_changes_nothing_more() -> None:
    """The result of cleaning is clean."""
    cleaned, _ = clean_documents(_pages())
    again, report = clean_documents(cleaned)
    assert again == cleaned
    assert report.changed == 0


def test_personal_data_is_replaced_and_the_rest_stays() -> None:
    """Phones, addresses and links go; prices, sizes, years and pictures of the corpus stay."""
    text = (
        "Bike, 28 inch, 2019, 1 250 EUR. Call +44 20 7946 0958 or (650) 253-0000, write to ann.b@mail.example.com "
        "or see https://bikes.example/ad?id=7 and [my shop](https://shop.example/x). ![front](../assets/a1.png)"
    )
    cleaned, counts = remove_personal_data(text)
    assert cleaned == (
        "Bike, 28 inch, 2019, 1 250 EUR. Call [phone] or [phone], write to [e-mail] or see [link] and my shop. "
        "![front](../assets/a1.png)"
    )
    assert counts == {"phones": 2, "e-mails": 1, "links": 2}


def test_national_numbers_are_read_by_region() -> None:
    """A Russian mobile number is a phone number in Russia; the same digits are not one in the United States."""
    text = "Звоните 8 (912) 345-67-89 после 18:00, цена 12 500 руб."
    assert remove_personal_data(text, ("RU",))[0] == "Звоните [phone] после 18:00, цена 12 500 руб."
    assert remove_personal_data(text, ())[0] == text


def test_cleaning_that_makes_no_sense_is_refused() -> None:
    """All wrong settings are named at once."""
    with pytest.raises(DataError, match=r"duplicate_share.*boilerplate_documents"):
        CleaningConfig(duplicate_share=0, boilerplate_documents=1)
