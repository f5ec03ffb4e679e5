"""Sections and quotes: where they stand in a document."""

from __future__ import annotations

import pytest

from data_prep.locating import locate
from data_prep.sections import MAX_CHARACTERS, headings, sections

TEXT = """# Lamp

Charge the lamp for **4 hours** before its first use. The light glows amber while it charges.

## Levels

| Level | Output |
|---|---|
| 1 | 40 lm |

```
# not a heading
```

### Night mode

Press the ring twice for night mode. It gives a red light of 5 lm and ends by itself after 8 hours.
"""


@pytest.mark.parametrize(
    ("quote", "found", "how"),
    [
        ("It gives a red light of 5 lm", "It gives a red light of 5 lm", "exact"),
        ("“charge the lamp for 4 hours before its first use”", None, "words"),
        ("Level Output 1 40 lm", None, "words"),
        ("Press the ring twice to enter night mode. It gives a red light of 5 lm", None, "fuzzy"),
    ],
)
def test_a_quote_is_found_exactly_or_nearly(quote: str, found: str | None, how: str) -> None:
    """Markdown, case and a changed word do not hide it; the span is a stretch of the document."""
    located = locate(quote, TEXT)
    assert located is not None
    assert located.how == how
    if found:
        assert TEXT[located.start : located.end] == found
    first, last = quote.strip("“”").split()[0], quote.strip("“”").split()[-1]
    assert TEXT[located.start : located.end].casefold().startswith(first.casefold())
    assert TEXT[located.start : located.end].casefold().endswith(last.casefold())


@pytest.mark.parametrize(
    "quote",
    [
        "Press the ring twice for night mode. It gives a red light of 6 lm and ends by itself after 8 hours.",
        "The warranty of the lamp lasts three years from the day of purchase.",
        "",
        "…",
    ],
)
def test_a_quote_with_another_number_or_of_another_text_is_not_found(quote: str) -> None:
    """Nearly the same words with another number are no evidence."""
    assert locate(quote, TEXT) is None


def test_the_section_that_was_asked_about_is_searched_first() -> None:
    """A sentence that stands twice is found where the question came from."""
    text = "Wait 5 minutes.\n\nThen go on.\n\nWait 5 minutes.\n"
    located = locate("Wait 5 minutes.", text, 20, len(text))
    assert located is not None
    assert located.start == text.rindex("Wait")


def test_sections_follow_the_headings_and_cover_the_text() -> None:
    """Headings inside code are none; every character lies in exactly one section; paths name the upper headings."""
    found = sections("lamp", TEXT)
    assert [section.path for section in found] == ["Lamp", "Lamp › Levels", "Lamp › Levels › Night mode"]
    assert "".join(section.text(TEXT) for section in found) == TEXT
    assert [heading.level for heading in headings(TEXT)] == [1, 2, 3]


def test_short_sections_join_and_long_ones_are_cut() -> None:
    """A heading without text goes with the section under it; no piece is longer than the limit, none is lost."""
    text = "# A\n\n## B\n\n" + "word " * 300 + "\n\n" + "\n\n".join(f"Sentence {i} of many." for i in range(400))
    found = sections("d", text)
    assert found[0].path == "A"
    assert len(found) > 1
    assert all(len(section.text(text)) <= MAX_CHARACTERS for section in found)
    assert "".join(section.text(text) for section in found) == text
