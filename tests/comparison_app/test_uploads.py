"""Files from a browser: hostile ones are passed over with a reason, and nothing leaves its folder."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from comparison_app.errors import ComparisonError
from comparison_app.uploads import LARGEST_UPLOAD, Upload, take_in
from data_prep.corpus import load_corpus


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
