"""Question files as people have them become a corpus's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.corpus import Corpus, load_corpus
from data_prep.errors import DataError, QuestionError
from data_prep.folders import scrape_files
from data_prep.importing import import_questions


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Two documents without questions."""
    (tmp_path / "src").mkdir()
    for name in ("one", "two"):
        (tmp_path / "src" / f"{name}.md").write_text(f"# {name}\n\nText of {name}.\n")
    scrape_files([tmp_path / "src"], tmp_path / "corpus")
    return load_corpus(tmp_path / "corpus")


ROWS = [
    {"id": "1", "question": "What is one?", "answer": "A number.", "doc": "one", "split": "train", "slice": "alert"},
    {"id": "2", "question": "Where is one?", "answer": "Here.", "doc": "one.md", "split": "test_seen"},
    {"id": "3", "question": "What is two?", "answers": ["More.", "Two."], "doc": "two", "split": "test"},
    {"id": "4", "question": "Who won?", "answer": "", "doc": None, "answerable": False, "split": "test"},
    {"id": "5", "question": "Is two even?", "answer": "Yes.", "source": "two", "split": "dev"},
]


def test_splits_become_slices_and_other_labels_categories(corpus: Corpus, tmp_path: Path) -> None:
    """Train, test_seen and test map to their slices; `alert` is a category; train rows are repeated in test."""
    file = tmp_path / "qa.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    report = import_questions([file], corpus)
    assert report.questions == 5
    assert report.repeated == 1
    by_id = {question.id: question for question in corpus.questions("test")}
    assert {name: question.slice for name, question in by_id.items()} == {
        "2": "trained-page", "3": "unseen-page", "4": "unanswerable", "1@test": "trained",
    }  # fmt: skip
    assert by_id["3"].answers == ("More.", "Two.")
    assert by_id["3"].evidence[0].document == "two"
    assert by_id["3"].evidence[0].start is None
    assert corpus.questions("train")[0].category == "alert"
    assert [question.id for question in corpus.questions("dev")] == ["5"]


def test_csv_and_json_are_read_and_the_file_name_gives_the_split(corpus: Corpus, tmp_path: Path) -> None:
    """A CSV called `…train.csv` holds train questions; a JSON file may wrap its list in an object."""
    (tmp_path / "qa.train.csv").write_text('question,response,doc\n"What, then?",This.,one\n')
    (tmp_path / "qa.test.json").write_text(
        json.dumps({"data": [{"query": "And now?", "gold": "That.", "file": "two"}]})
    )
    import_questions([tmp_path / "qa.train.csv", tmp_path / "qa.test.json"], corpus)
    assert corpus.questions("train")[0].question == "What, then?"
    assert {question.slice for question in corpus.questions("test")} == {"unseen-page", "trained"}


def test_other_field_names_are_mapped_by_hand(corpus: Corpus, tmp_path: Path) -> None:
    """`names` says which field holds the question."""
    (tmp_path / "qa.jsonl").write_text(json.dumps({"frage": "Was?", "answer": "Das.", "doc": "one"}) + "\n")
    with pytest.raises(QuestionError, match=r"qa\.jsonl, line 1: question is empty .*--map"):
        import_questions([tmp_path / "qa.jsonl"], corpus)
    import_questions([tmp_path / "qa.jsonl"], corpus, names={"question": "frage"})
    assert corpus.questions("test")[0].question == "Was?"
    with pytest.raises(DataError, match="knows no field"):
        import_questions([tmp_path / "qa.jsonl"], corpus, names={"prompt": "frage"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "Q?", "answer": "A", "doc": "three"}', "no document 'three'"),
        ('{"question": "Q?", "answer": "A", "split": "later"}', "split is 'later'"),
        ("{", "not JSON"),
        ("[1]", "named fields"),
    ],
)
def test_a_bad_row_names_file_and_line_and_leaves_the_corpus_alone(
    corpus: Corpus, tmp_path: Path, content: str, message: str
) -> None:
    """Nothing is written when any row is wrong."""
    (tmp_path / "bad.jsonl").write_text('{"question": "Fine?", "answer": "Yes", "doc": "one"}\n' + content + "\n")
    with pytest.raises(QuestionError, match=r"bad\.jsonl, line 2") as caught:
        import_questions([tmp_path / "bad.jsonl"], corpus)
    assert message in str(caught.value)
    assert corpus.questions("test") == []
