"""Files from a browser: hostile ones are passed over with a reason, and nothing leaves its folder."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from comparison_app.errors import ComparisonError
from comparison_app.uploads import LARGEST_UPLOAD, Upload, take_in
from data_prep.corpus import load_corpus
from tests.data_prep.made_files import docx, docx_paragraph, epub, paragraph, pdf


def _zip(files: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for name, target in (links or {}).items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, target)
    return out.getvalue()


def test_files_and_archives_become_documents(tmp_path: Path) -> None:
    """A markdown file and a zip of two in folders give three documents with their titles."""
    archive = _zip({"guide/start.md": b"# Start\n\nPress the knob.\n", "guide/end.txt": b"END\n\nPull it.\n"})
    report = take_in([Upload("one.md", b"# One\n\nText.\n"), Upload("rest.zip", archive)], tmp_path / "mine")
    assert sorted(report.added) == ["guide__end", "guide__start", "one"]
    assert load_corpus(tmp_path / "mine").manifest["guide__start"].title == "Start"


_PRODUCT = b"""<html><head><title>Lamp</title><script type="application/ld+json">{"@context": "https://schema.org",
"@type": "Product", "name": "Hand lamp", "description": "A lamp for the hand.", "offers": {"@type": "Offer",
"price": "20", "priceCurrency": "EUR"}}</script></head><body><h1>Hand lamp</h1><p>A lamp for the hand that glows
amber while it charges and goes out when the battery is full.</p></body></html>"""
_PAGE = b"""<html><head><meta charset="latin-1"></head><body><nav>Home</nav><h1>Gr\xf6\xdfe</h1><p>The lamp is
12 cm tall, which is as tall as a mug, and it fits into every bag.</p></body></html>"""


_BOOK = epub({"c1.xhtml": "<h1>Size</h1><p>" + "The lamp is 12 cm tall, as a mug is. " * 12 + "</p>"})


@pytest.mark.parametrize(
    ("name", "data", "holds"),
    [
        ("a.md", "# Größe\n\nThe lamp is 12 cm tall.\n".encode(), "12 cm"),
        ("a.txt", b"SIZE\n\nThe lamp is 12 cm tall.\n", "12 cm"),
        ("a.html", _PAGE, "# Größe"),
        ("a.htm", _PRODUCT, "Hand lamp"),
        ("a.pdf", pdf([paragraph(50, 700, "The lamp is 12 cm tall, which is as tall as a mug.")]), "12 cm tall"),
        ("a.docx", docx(docx_paragraph("The lamp is 12 cm tall.")), "12 cm"),
        (
            "a.epub",
            _BOOK,
            "12 cm",
        ),
        ("a.csv", b"title,description,price\nHand lamp,A lamp for the hand,20\n", "Hand lamp"),
        ("a.jsonl", b'{"title": "Hand lamp", "description": "A lamp for the hand", "price": 20}\n', "Hand lamp"),
        ("a.zip", _zip({"in/b.html": _PAGE}), "# Größe"),
    ],
)
def test_every_kind_of_file_goes_through_the_intake(name: str, data: bytes, holds: str, tmp_path: Path) -> None:
    """One document of markdown, in the manifest with the hash of its file, without the page's frame."""
    report = take_in([Upload(name, data)], tmp_path / "mine")
    assert len(report.added) == 1 and not report.skipped
    corpus = load_corpus(tmp_path / "mine")
    entry = corpus.manifest[report.added[0]]
    text = (tmp_path / "mine" / entry.path).read_text(encoding="utf-8")
    assert holds in text and "Home" not in text and "<" not in text
    assert entry.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_200_mb_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """In one file, or in several that are small enough each."""
    block = bytes(40_000_000)
    for uploads in ([Upload("huge.md", bytes(200_000_000))], [Upload(f"{n}.md", block) for n in range(5)]):
        with pytest.raises(ComparisonError, match="200 MB, at most 50 MB"):
            take_in(uploads, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_zip_bomb_is_given_up_and_the_rest_is_taken(tmp_path: Path) -> None:
    """A file of 15 MB of zeros from 15 kB is refused while unpacking, as are links, archives within and `../`."""
    archive = _zip(
        {
            "bomb.md": b"\0" * 15_000_000,
            "huge.md": b"a b " * 6_000_000,
            "../../escape.md": b"# Escaped\n",
            "inner.zip": _zip({"x.md": b"x"}),
            "fine.md": b"# Fine\n\nAll is well.\n",
        },
        links={"link.md": "/etc/passwd"},
    )
    report = take_in([Upload("all.zip", archive)], tmp_path / "mine")
    assert report.added == ["fine"]
    assert "zip bomb" in report.skipped["bomb.md"]
    assert "huge.md" in report.skipped
    assert "out of the folder" in report.skipped["../../escape.md"]
    assert "archive within" in report.skipped["inner.zip"]
    assert "link" in report.skipped["link.md"]
    assert not list(tmp_path.rglob("escape*"))


@pytest.mark.parametrize(
    ("upload", "reason"),
    [
        (Upload("a.zip", b"PK\x03\x04 but no archive at all"), "not a zip archive"),
        (Upload("program.exe", b"MZ\x90"), r"\.exe"),
        (Upload("empty.md", b""), "holds no text"),
        (Upload("huge.md", b"x" * (LARGEST_UPLOAD + 1)), "send it in parts"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(upload: Upload, reason: str, tmp_path: Path) -> None:
    """Nothing is written when nothing could be read."""
    with pytest.raises(Exception, match=reason) as raised:
        take_in([upload], tmp_path / "mine")
    assert type(raised.value).__name__ in ("ComparisonError", "CorpusError")
    assert not (tmp_path / "mine").exists()


def test_no_file_is_said_so(tmp_path: Path) -> None:
    """An empty upload names what to do."""
    with pytest.raises(ComparisonError, match="choose one"):
        take_in([], tmp_path / "mine")
