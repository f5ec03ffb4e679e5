"""PDF, DOCX and EPUB become light markdown; what cannot be read says why."""

from __future__ import annotations

import pytest

from data_prep.convert import Source, convert_bytes
from data_prep.errors import DataError
from tests.data_prep.made_files import archive, docx, docx_paragraph, epub, paragraph, pdf

LONG = "The pump must be filled with water before it is switched on for the first time in the season. "
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40


def _pdf_markdown(data: bytes) -> str:
    return convert_bytes(data, Source("pdf", "pump-manual"))[0].markdown


def test_a_pdf_keeps_headings_lists_code_and_pages() -> None:
    """Headings by size, bullets, fixed width as code, running heads and page numbers gone, pages by offset."""
    pages = []
    for number, word in enumerate(("one", "two", "three"), start=1):
        runs = [(50.0, 810.0, 8.0, "F1", "Pump manual"), (290.0, 20.0, 8.0, "F1", f"- {number} -")]
        runs += [
            (50.0, 760.0, 18.0, "F2", f"Chapter {'ABC'[number - 1]}"),
            *paragraph(50, 730, f"Part {word}: {LONG * 3}"),
        ]
        runs += [(50.0, 640.0, 10.0, "F1", "• Open the valve"), (50.0, 626.0, 10.0, "F1", "• Close the lid")]
        runs += [(50.0, 590.0, 10.0, "F3", "pump --on"), (62.0, 578.0, 10.0, "F3", "--slow")]
        pages.append(runs)
    found = convert_bytes(pdf(pages), Source("pdf", "pump-manual"))[0]
    assert found.title == "Chapter A"
    assert found.markdown.startswith("# Chapter A\n\nPart one: The pump must be filled")
    assert "- Open the valve\n- Close the lid\n" in found.markdown
    assert "```\npump --on\n  --slow\n```" in found.markdown
    assert "Pump manual" not in found.markdown
    assert "- 1 -" not in found.markdown
    assert found.pages is not None
    assert [found.markdown[offset:].split("\n")[0] for offset in found.pages] == [
        "# Chapter A",
        "# Chapter B",
        "# Chapter C",
    ]


def test_columns_are_read_one_after_the_other() -> None:
    """Two columns under a title: the left one is finished before the right one begins."""
    left = [run for n in range(4) for run in paragraph(50, 700 - 60 * n, f"Left {n}. {LONG}", width=40)]
    right = [run for n in range(4) for run in paragraph(320, 700 - 60 * n, f"Right {n}. {LONG}", width=40)]
    text = _pdf_markdown(pdf([[(200.0, 760.0, 20.0, "F2", "Both columns of text"), *left, *right]]))
    order = [text.index(f"{side} {n}.") for side in ("Left", "Right") for n in range(4)]
    assert order == sorted(order)
    assert text.startswith("# Both columns of text\n")


def test_words_cut_at_line_ends_are_made_whole() -> None:
    """A hyphen of the line goes, one of the word stays."""
    runs = [
        (50.0, 700.0, 10.0, "F1", "The state-of-the-art pump is a docu-"),
        (50.0, 686.0, 10.0, "F1", "mented one, a state-of-the-"),
    ]
    runs += [(50.0, 672.0, 10.0, "F1", "art one.")]
    assert "a documented one, a state-of-the-art one." in _pdf_markdown(pdf([runs]))


def test_a_ruled_table_of_a_pdf_becomes_a_table() -> None:
    """Its rules are found, its cells stand in rows."""
    rules = "".join(f"50 {y} m 300 {y} l S\n" for y in (700, 680, 660)) + "".join(
        f"{x} 660 m {x} 700 l S\n" for x in (50, 175, 300)
    )
    runs = [*paragraph(50, 760, LONG), (55.0, 686.0, 10.0, "F1", "Power"), (180.0, 686.0, 10.0, "F1", "Head")]
    runs += [(55.0, 666.0, 10.0, "F1", "400 W"), (180.0, 666.0, 10.0, "F1", "12 m")]
    assert "| Power | Head |\n| --- | --- |\n| 400 W | 12 m |\n" in _pdf_markdown(pdf([runs], drawn={0: rules}))


def test_scanned_pages_are_reported() -> None:
    """A page of pictures only is named; a file of nothing else is refused with the mend."""
    picture = "/XObject << /I 6 0 R >>"
    data = pdf([paragraph(50, 700, LONG), []], extra=picture, drawn={1: "q 595 0 0 842 0 0 cm /I Do Q"})
    image = (
        b"<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8 /Length 1 >>"
    )
    data = data.replace(b"/I 6 0 R", b"/I 99 0 R").replace(
        b"xref\n", b"99 0 obj\n%s\nstream\n0\nendstream\nendobj\nxref\n" % image, 1
    )
    found = convert_bytes(data, Source("pdf", "x"))[0]
    assert found.notes == ("pages 2 hold pictures and no text (scanned?)",)
    assert found.pages is not None
    assert len(found.pages) == 2


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"<!DOCTYPE html><html><body>no PDF</body></html>", "pdf", "says it is a PDF, but is HTML"),
        (b"%PDF-1.4\nbroken", "pdf", "not a PDF that can be read"),
        (pdf([]), "pdf", "no pages"),
        (pdf([[]]), "pdf", "no text"),
        (pdf([paragraph(50, 700, LONG)])[:300], "pdf", "PDF"),
        (b"PK\x03\x04 cut", "docx", "says it is DOCX"),
        (docx(docx_paragraph("x"))[:400], "docx", "DOCX"),
        (docx(""), "docx", "no text"),
        (docx(docx_paragraph("&a;"), head='<!DOCTYPE x [<!ENTITY a "boom">]>'), "docx", "declares entities"),
        (archive({"word/document.xml": b"0" * 60_000_000, "[Content_Types].xml": b"x"}), "docx", "made to explode"),
        (epub({}, {"OEBPS/x": b"0" * 60_000_000}), "epub", "made to explode"),
        (epub({}), "epub", "no text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"0" * 99, "docx", "old Office file or a locked one"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_says_why(data: bytes, kind: str, message: str) -> None:
    """Damaged, empty, explosive, or of another kind than its name says."""
    with pytest.raises(DataError, match=message):
        convert_bytes(data, Source(kind, "x"))


def test_a_locked_pdf_is_named_as_locked() -> None:
    """A user password is neither guessed nor asked for."""
    locked = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -1 >> /ID [<00> <00>] /Size" % (
        b"11" * 32,
        b"22" * 32,
    )
    data = pdf([paragraph(50, 700, LONG)]).replace(b"/Size", locked, 1)
    with pytest.raises(DataError, match="locked with a password"):
        convert_bytes(data, Source("pdf", "x"))


def test_a_word_document_keeps_its_structure_and_pictures() -> None:
    """Headings by style, a table with its header, a picture stored beside the text."""
    cell = "<w:tc>{}</w:tc>"
    rows = ("Power", "400 W"), ("Head", "12 m")
    table = "".join("<w:tr>" + "".join(cell.format(docx_paragraph(text)) for text in row) + "</w:tr>" for row in rows)
    drawing = (
        "<w:p><w:r><w:drawing><wp:inline><wp:docPr id='1' name='p' descr='The pump'/><a:graphic><a:graphicData>"
        "<pic:pic><pic:blipFill><a:blip r:embed='rId1'/></pic:blipFill></pic:pic></a:graphicData></a:graphic>"
        "</wp:inline></w:drawing></w:r></w:p>"
    )
    body = (
        docx_paragraph("Pumps", "Heading1")
        + docx_paragraph("Fill it &lt;script&gt;.")
        + f"<w:tbl>{table}</w:tbl>"
        + drawing
    )
    found = convert_bytes(docx(body, {"a.png": PNG}), Source("docx", "pump"))[0]
    assert found.markdown.startswith(
        "# Pumps\n\nFill it &lt;script>.\n\n| Power | 400 W |\n| --- | --- |\n| Head | 12 m |\n"
    )
    assert [picture.data for picture in found.pictures] == [PNG]
    assert f"![The pump](embedded:{found.pictures[0].name})" in found.markdown


def test_a_book_gives_a_document_a_chapter() -> None:
    """In the order of the spine; a cover is left out, a picture kept, a link out of the book finds nothing."""
    text = f"<p>{LONG}</p>"
    chapters = {
        "cover.xhtml": "<p>The Pump</p>",
        "two.xhtml": f'<h1 id="s">Second</h1><img src="img/p.png" alt="P"/>{text}'
        '<img src="../../../etc/passwd.png" alt="no"/>',
        "one.xhtml": f"<h1>First</h1>{text}",
    }
    found = convert_bytes(epub(chapters, {"OEBPS/img/p.png": PNG}), Source("epub", "book"))
    assert [(document.title, document.part) for document in found] == [("Second", "002-two"), ("First", "003-one")]
    assert [picture.data for picture in found[0].pictures] == [PNG]
    assert f"![P](embedded:{found[0].pictures[0].name})" in found[0].markdown
    assert "passwd" not in found[0].markdown
    assert found[0].anchors == ((0, "s"),)
