"""Files of one JSON object a line that people write and edit: questions, facts, listings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data_prep.errors import DataError
from data_prep.facts import read_facts
from data_prep.listings import read_listings
from data_prep.questions import read_questions

Reader = Callable[[Path], Sequence[object]]
FILES = pytest.mark.parametrize(
    ("read", "row"),
    [
        (read_questions, {"id": "a", "question": "Was ist größer?"}),
        (read_facts, {"id": "a", "wordings": ["Was ist größer?"]}),
        (read_listings, {"id": "a", "title": "Größe", "description": "Groß.", "category": "furniture"}),
    ],
)


@FILES
def test_a_file_saved_by_an_editor_of_windows_is_read(read: Reader, row: dict[str, object], tmp_path: Path) -> None:
    """A byte order mark and line ends of two characters change nothing."""
    plain, saved = tmp_path / "plain.jsonl", tmp_path / "saved.jsonl"
    line = json.dumps(row, ensure_ascii=False)
    plain.write_text(line + "\n", encoding="utf-8")
    saved.write_bytes((line + "\r\n").encode("utf-8-sig"))
    assert read(saved) == read(plain)
    assert len(read(saved)) == 1


@FILES
def test_a_file_in_another_encoding_is_an_error_that_names_it(
    read: Reader, row: dict[str, object], tmp_path: Path
) -> None:
    """No character is guessed."""
    path = tmp_path / "latin.jsonl"
    path.write_bytes(json.dumps(row, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.jsonl: cannot be read: .*utf-8"):
        read(path)
