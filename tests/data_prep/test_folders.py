"""A folder of somebody's files becomes a corpus: what is read, what is passed over, what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.convert import convert_markdown
from data_prep.corpus import load_corpus
from data_prep.errors import CorpusError
from data_prep.folders import document_id, scrape_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Markdown with front matter and HTML, a text file, a picture, and three files that cannot be read."""
    source = tmp_path / "manual"
    (source / "part two").mkdir(parents=True)
    (source / "start.md").write_text(
        "---\ntitle: Getting started\n---\n<div class='x'>Press <b>On</b>.</div>\n\n![The lamp](lamp.svg)\n\n"
        "<script>alert(1)</script>\n\n```html\n<b>kept</b>\n```\n"
    )
    (source / "part two" / "notes.txt").write_text("Plain text.\r\nSecond line.\n")
    (source / "lamp.svg").write_text("<svg/>")
    (source / "latin.md").write_bytes("Größe".encode("latin-1"))
    (source / "empty.md").write_text("\n\n")
    (source / "table.xlsx").write_bytes(b"PK")
    return source


def test_a_folder_becomes_a_corpus_and_what_cannot_be_read_is_counted(folder: Path, tmp_path: Path) -> None:
    """Three documents come in, one of them in Latin-1; two files are passed over, each with its reason."""
    report = scrape_files([folder], tmp_path / "corpus")
    assert sorted(report.added) == ["latin", "part-two__notes", "start"]
    assert set(report.skipped) == {"empty.md", "table.xlsx"}
    assert "Größe" in (tmp_path / "corpus" / "documents" / "latin.md").read_text(encoding="utf-8")
    corpus = load_corpus(tmp_path / "corpus")
    start = next(document for document in corpus.documents() if document.id == "start")
    assert start.meta["title"] == "Getting started"
    assert "<b>kept</b>" in (start.content or "")
    assert "<div" not in (start.content or "")
    assert "alert" not in (start.content or "")


def test_pictures_stay_linked_where_they_stood(folder: Path, tmp_path: Path) -> None:
    """The picture is copied into the corpus and the link points to it."""
    scrape_files([folder], tmp_path / "corpus")
    text = (tmp_path / "corpus" / "documents" / "start.md").read_text()
    link = text.split("](")[1].split(")")[0]
    assert (tmp_path / "corpus" / "documents" / link).resolve().read_text() == "<svg/>"


def test_scraping_again_touches_only_what_changed(folder: Path, tmp_path: Path) -> None:
    """The second scrape reports one change and one unchanged document."""
    scrape_files([folder], tmp_path / "corpus")
    (folder / "part two" / "notes.txt").write_text("Other text.\n")
    report = scrape_files([folder], tmp_path / "corpus")
    assert (report.added, report.changed, report.unchanged) == ([], ["part-two__notes"], ["latin", "start"])


def test_a_link_that_leaves_the_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """Neither a linked file nor a picture outside the folder is taken."""
    (tmp_path / "secret.md").write_text("# Secret\n")
    (tmp_path / "secret.png").write_text("png")
    (folder / "inside.md").symlink_to(tmp_path / "secret.md")
    (folder / "start.md").write_text("# Start\n\n![x](../secret.png)\n")
    report = scrape_files([folder], tmp_path / "corpus")
    assert "leaves the folder" in report.skipped["inside.md"]
    assert not (tmp_path / "corpus" / "assets").exists()


def test_a_picture_link_that_leaves_the_folder_loses_its_target_and_is_counted(tmp_path: Path) -> None:
    """In markdown and in HTML; its words stay, and links within the folder and to the web do."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.md").write_text(
        "# A\n\n![pump](../../../etc/x.png) ![out](/etc/y.png) ![in](../gone.png) ![web](https://x.example/z.png)\n"
    )
    (folder / "b.html").write_text('<html><body><h1>B</h1><p>Text.</p><img src="../../x.png" alt="pump"></body></html>')
    report = scrape_files([folder], tmp_path / "corpus")
    text = (tmp_path / "corpus" / "documents" / "sub__a.md").read_text()
    assert "![pump]() ![out]() ![in](../gone.png) ![web](https://x.example/z.png)" in text
    assert "![pump]()" in (tmp_path / "corpus" / "documents" / "b.md").read_text()
    assert report.notes["sub__a"] == ["2 picture links that leave the folder lost their target: ../../../etc/x.png"]
    assert report.notes["b"] == ["1 picture links that leave the folder lost their target: ../../x.png"]


def test_nothing_to_read_is_an_error_that_says_why(tmp_path: Path) -> None:
    """A missing folder and one without text are told apart."""
    with pytest.raises(CorpusError, match="does not exist"):
        scrape_files([tmp_path / "missing"], tmp_path / "corpus")
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.md").write_text("")
    with pytest.raises(CorpusError, match="holds no text"):
        scrape_files([tmp_path / "only"], tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("path", "name"), [("a/b c.md", "a__b-c"), ("x.y.md", "x.y"), ("../../etc/passwd", "etc__passwd")]
)
def test_ids_are_safe_file_names(path: str, name: str) -> None:
    """No id holds a folder or climbs out of one."""
    assert document_id(path).replace("..__", "").lstrip("_") == name
    assert "/" not in document_id(path)


def test_tags_that_are_placeholders_are_kept() -> None:
    """`<name>` in running text is no HTML tag."""
    assert "--user <name>" in convert_markdown("# T\n\nRun it with --user <name>.\n", "t").markdown
