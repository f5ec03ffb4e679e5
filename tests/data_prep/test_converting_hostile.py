"""Files made to harm: each is passed over with its reason, in bounded time, and the rest goes on."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.convert import Source, convert_bytes
from data_prep.converting.guarded import GuardedConverter
from data_prep.errors import DataError
from data_prep.folders import scrape_files
from tests.data_prep.made_files import docx, docx_paragraph, epub, paragraph, pdf

WHOLE = {
    "pdf": pdf([paragraph(50, 700, "A pump moves water. " * 9), paragraph(50, 700, "Second page.")]),
    "docx": docx(docx_paragraph("Pumps", "Heading1") + docx_paragraph("A pump moves water.")),
    "epub": epub({"a.xhtml": "<h1>Pumps</h1>" + "<p>A pump moves water.</p>" * 4}),
}
TAGS = (
    "p div span h1 h2 h6 ul ol li dl dt dd table tr td th thead caption pre code blockquote a img br b q svg math "
    "script style "
    "template iframe object form details summary figure figcaption section article main nav html body head title "
    "base meta"
)
WORDS = (
    "pump", "<script>alert(1)</script>", "&lt;script&gt;", "\ue000#x\ue001", "|", "```", "# x", "1. y", "![a](b)",
    "\x00",
    "\u2028", "]]>", "<!--", "-->", "javascript:alert(1)", "é", "水", "&#0;", "&#xD800;", " " * 50, "\n\n\n", "\ud800",
    "[x](javascript:y)", "<a b=c d>",
)  # fmt: skip
ATTRIBUTES = (
    "", ' id="a b"', ' id="x"', ' class="admonition note"', ' class="highlight-python linenos"', ' colspan="999999999"',
    " hidden", ' rowspan="-1"', ' src="data:image/png;base64,AAAA"', ' src="javascript:x"', ' href="http://["',
    ' start="99999999999"',
)  # fmt: skip


def _page(seed: int) -> str:
    """Return a page of up to 40 pieces: tags opened and closed at random, words of meaning to a parser, any signs."""
    chance = random.Random(seed)
    makers = (
        lambda: chance.choice(WORDS),
        lambda: f"<{chance.choice(TAGS.split())}{chance.choice(ATTRIBUTES)}>",
        lambda: f"</{chance.choice(TAGS.split())}>",
        lambda: "".join(chr(chance.choice((32, 96, 0x400, 0x10000)) + chance.randrange(95)) for _ in range(8)),
    )
    return "".join(chance.choice(makers)() for _ in range(chance.randint(0, 40)))


def _damaged(kind: str, seed: int, cut: float) -> bytes:
    chance = random.Random(seed)
    data = bytearray(WHOLE[kind])
    for _ in range(chance.randint(0, 12)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data[: int(len(data) * cut)])


def _holds(kind: str, data: bytes) -> None:
    """Convert; what must be true of every document, or a reason why there is none."""
    begun = time.monotonic()
    try:
        documents = convert_bytes(data, Source(kind, "made", url="https://made.example/"))
    except DataError as error:
        assert str(error)
        documents = []
    assert time.monotonic() - begun < 10
    for document in documents:
        text = document.markdown
        assert text.strip()
        assert "\ue000" not in text
        assert all(0 <= offset <= len(text) for offset, _ in document.anchors)
        assert list(document.pages or ()) == sorted(document.pages or ())
        if "`" not in text:
            assert "<script" not in text.lower()
        text.encode("utf-8")


@pytest.mark.slow
@settings(max_examples=1400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from(["html", "html", "html", "markdown", "text"]), seed=st.integers(0, 10**9))
def test_no_page_breaks_the_converters(kind: str, seed: int) -> None:
    """1,400 pages of tags, scripts, broken entities and marks: a document, or a reason; never another error."""
    _holds(kind, _page(seed).encode("utf-8", "surrogatepass"))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from(["pdf", "docx", "epub", "html", "markdown"]), data=st.binary(max_size=300))
def test_no_bytes_break_the_converters(kind: str, data: bytes) -> None:
    """300 strings of arbitrary bytes, for every kind."""
    _holds(kind, data)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(kind=st.sampled_from(sorted(WHOLE)), seed=st.integers(0, 10**6), cut=st.floats(0.2, 1.0))
def test_no_damaged_file_breaks_the_converters(kind: str, seed: int, cut: float) -> None:
    """300 PDF, DOCX and EPUB files with bytes changed and ends cut off."""
    _holds(kind, _damaged(kind, seed, cut))


@pytest.mark.slow
def test_one_folder_of_traps_and_one_good_page(tmp_path: Path) -> None:
    """Nesting of 100,000 levels, a page of 300 MB, bombs, wrong kinds: counted, and the good page comes in."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "deep.html").write_text("<html><body>" + "<div>" * 100_000 + "x" + "</div>" * 100_000 + "</body></html>")
    (folder / "bold.html").write_text(
        "<html><body><p>" + "<b>" * 2_000 + "two thousand" + "</b>" * 2_000 + "</body></html>"
    )
    with (folder / "huge.html").open("wb") as file:
        file.truncate(300_000_000)
    (folder / "liar.pdf").write_text("<!DOCTYPE html><html><body>no PDF</body></html>")
    nested = "<w:tbl><w:tr><w:tc>" * 3_000 + docx_paragraph("x") + "</w:tc></w:tr></w:tbl>" * 3_000
    (folder / "nested.docx").write_bytes(docx(nested))
    (folder / "quotes.md").write_text(
        "# Q\n\n" + "> " * 50_000 + "x\n\n" + "[" * 50_000 + "\n\n" + "*" * 50_000 + " " * 50_000 + "y"
    )
    (folder / "good.html").write_text("<html><body><h1>Good</h1><p>A good page.</p></body></html>")
    begun = time.monotonic()
    report = scrape_files([folder], tmp_path / "corpus")
    assert time.monotonic() - begun < 240, "six files, each with a limit of ten seconds, on a machine that may be busy"
    assert "good" in report.added
    assert {"deep.html", "huge.html", "liar.pdf", "nested.docx"} <= report.skipped.keys()
    assert "nested" in report.skipped["deep.html"]
    assert "MB" in report.skipped["huge.html"]


@pytest.mark.slow
def test_a_conversion_that_hangs_is_ended(tmp_path: Path) -> None:
    """The file that never comes to its end costs the limit, and the next one is converted by a new process."""
    import os

    os.mkfifo(tmp_path / "hangs.html")
    (tmp_path / "good.html").write_text("<html><body><h1>Good</h1><p>A good page.</p></body></html>")
    with GuardedConverter(seconds=5.0) as converter:
        with pytest.raises(DataError, match="took longer than 5 s"):
            converter.convert(tmp_path / "hangs.html", Source("html", "hangs"))
        assert converter.convert(tmp_path / "good.html", Source("html", "good"))[0].title == "Good"
