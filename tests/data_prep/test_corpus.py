"""Corpora: found by name or path, read with their new documents, refused when they are broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.atomic import write_text
from data_prep.corpus import find_corpus, load_corpus, verify_manifest
from data_prep.errors import CorpusError, DataError, QuestionError


def test_documents_come_with_titles_and_new_ones_only_when_asked(small_corpus: Path) -> None:
    """The recall notice joins the four documents of the manual on request."""
    corpus = load_corpus(small_corpus)
    assert [document.id for document in corpus.documents()] == ["battery", "brightness", "cleaning", "warranty"]
    assert "recall" in {document.id for document in corpus.documents(include_new=True)}
    assert corpus.documents()[0].meta["title"] == "Battery"


def test_nested_subsets_are_listed_and_damaged_ones_named(small_corpus: Path) -> None:
    """Without a file there are none; a file of another shape is an error that names it."""
    corpus, path = load_corpus(small_corpus), small_corpus / "questions" / "subsets.json"
    path.write_text('{"n2": ["a", "b"], "n1": ["a"]}')
    assert corpus.subset_names() == ["n2", "n1"]
    assert corpus.subset("n1") == {"a"}
    for text in ("[1]", "{"):
        path.write_text(text)
        with pytest.raises(CorpusError, match=r"subsets\.json"):
            corpus.subset_names()
    path.unlink()
    assert corpus.subset_names() == []


def test_a_new_document_takes_the_place_of_an_older_one_of_its_id(small_corpus: Path) -> None:
    """With the new documents, the replaced text is gone."""
    (small_corpus / "new_documents" / "battery.md").write_text("# Battery\n\nCharge for 2 hours.\n")
    contents = {d.id: d.content or "" for d in load_corpus(small_corpus).documents(include_new=True)}
    assert "2 hours" in contents["battery"]
    assert "4 hours" not in contents["battery"]


def test_evidence_outside_its_document_names_file_and_line(small_corpus: Path) -> None:
    """A span past the end of the document is refused when questions are read."""
    path = small_corpus / "questions" / "test.jsonl"
    lines = path.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if '"end": ' in line)
    start = lines[place].index('"end": ') + 7
    lines[place] = lines[place][:start] + "99999" + lines[place][lines[place].index("}", start) :]
    path.write_text("\n".join(lines))
    with pytest.raises(QuestionError, match=rf"test\.jsonl, line {place + 1}: evidence .*99999 lies outside"):
        load_corpus(small_corpus).questions("test")


def test_a_corpus_is_found_by_path_in_the_workspace_and_among_the_samples(small_corpus: Path) -> None:
    """A bare name is looked up in the workspace's corpora."""
    workspace = small_corpus.parent
    small_corpus.rename(workspace / "moved")
    (workspace / "corpora").mkdir()
    (workspace / "moved").rename(workspace / "corpora" / "lamp")
    assert find_corpus("lamp", workspace) == workspace / "corpora" / "lamp"
    with pytest.raises(CorpusError, match="versus scrape"):
        find_corpus("nothing-of-this-name", workspace)


def test_an_empty_corpus_and_another_format_are_refused(tmp_path: Path) -> None:
    """The message says what is missing."""
    (tmp_path / "corpus.toml").write_text("format_version = 1\n")
    with pytest.raises(CorpusError, match="holds no documents"):
        load_corpus(tmp_path)
    (tmp_path / "corpus.toml").write_text("format_version = 7\n")
    with pytest.raises(CorpusError, match="format_version is 7"):
        load_corpus(tmp_path)


def test_a_changed_document_shows_against_the_manifest_and_in_the_fingerprint(small_corpus: Path) -> None:
    """An edit by hand is used, and told."""
    corpus = load_corpus(small_corpus)
    assert verify_manifest(corpus) == []
    before = corpus.fingerprint()
    with (small_corpus / "documents" / "battery.md").open("a") as file:
        file.write("More.\n")
    assert verify_manifest(corpus) == ["documents/battery.md differs from the manifest's sha256"]
    assert corpus.fingerprint() != before


def test_a_write_that_cannot_be_made_names_the_path_and_leaves_the_old_file(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "taken").write_text("old")
    with pytest.raises(DataError, match="cannot write"):
        write_text(tmp_path / "taken" / "file", "new")
    assert (tmp_path / "taken").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
