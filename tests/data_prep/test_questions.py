"""Question files: what is read back, and what a broken line says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.errors import QuestionError
from data_prep.questions import Evidence, Question, read_questions, write_questions


def test_questions_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    """Every field survives the file, Cyrillic and line breaks included."""
    questions = [
        Question("a", "Как зарядить?\nСколько?", ("4 часа",), (Evidence("d", 0, 5),), "f", "trained", "number", "d"),
        Question("b", "Who won?", slice="unanswerable"),
    ]
    write_questions(tmp_path / "q.jsonl", questions)
    assert read_questions(tmp_path / "q.jsonl") == questions


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2: Expecting property name"),
        ('["a"]', "one JSON object"),
        ('{"id": "x", "question": ""}', "question is empty"),
        ('{"id": "x", "question": "q", "answer": "a"}', "unknown field 'answer'"),
        ('{"id": "x", "question": "q", "answers": "a"}', "answers must be a list"),
        ('{"id": "x", "question": "q", "slice": "seen"}', "slice 'seen' is not one of trained"),
        (
            '{"id": "x", "question": "q", "answers": ["a"], "evidence": [{"document": "d", "start": 3}]}',
            "start and end",
        ),
        ('{"id": "x", "question": "q", "evidence": [{"document": "d", "start": 5, "end": 5}]}', "5:5 is empty"),
        ('{"id": "ok", "question": "q"}', "stands in line 1 too"),
    ],
)
def test_a_broken_line_is_an_error_that_names_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    """The message holds the file's name, the line's number and what is wrong."""
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"id": "ok", "question": "q"}) + "\n" + line + "\n")
    with pytest.raises(QuestionError, match=r"bad\.jsonl, line 2") as caught:
        read_questions(path)
    assert message in str(caught.value)
