"""Small PDF, DOCX and EPUB files, written by hand so that a test knows every byte of them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence

Run = tuple[float, float, float, str, str]
"""x, y from the bottom, size, font (F1 plain, F2 bold, F3 fixed width), text."""


def pdf(pages: Sequence[Sequence[Run]], *, extra: str = "", drawn: Mapping[int, str] | None = None) -> bytes:
    """Return a PDF whose pages hold these runs of text; `drawn` holds further drawing orders by page."""
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /{} /Encoding /WinAnsiEncoding >>"
    fonts = [font.format(name).encode() for name in ("Helvetica", "Helvetica-Bold", "Courier")]
    objects: list[bytes] = [b"", b"", *fonts]
    kids = []
    for number, runs in enumerate(pages):
        orders = "".join(
            f"BT /{font} {size} Tf {x} {y} Td ({_escaped(text)}) Tj ET\n" for x, y, size, font, text in runs
        )
        stream = zlib.compress((orders + (drawn or {}).get(number, "")).encode("cp1252"))
        objects.append(b"<< /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        kids.append(len(objects) + 1)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {len(objects)} 0 R "
            f"/Resources << /Font << /F1 3 0 R /F2 4 0 R /F3 5 0 R >> {extra} >> >>".encode()
        )
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] /Count {len(kids)} >>".encode()
    return _numbered(objects)


def paragraph(x: float, y: float, text: str, *, width: int = 60, size: float = 10, font: str = "F1") -> list[Run]:
    """Return a text as lines of at most `width` signs, 14 points apart."""
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return [(x, y - 14 * place, size, font, part) for place, part in enumerate([*lines, line])]


def docx(body: str, pictures: Mapping[str, bytes] | None = None, *, head: str = "") -> bytes:
    """Return a Word document with this body XML; `pictures` are linked by the ids rId1, rId2 and so on."""
    kinds = '<Default Extension="png" ContentType="image/png"/>' if pictures else ""
    links = "".join(
        f'<Relationship Id="rId{number}" Target="media/{name}" '
        'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/image"/>'
        for number, name in enumerate(pictures or {}, start=1)
    )
    package = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    members: dict[str, bytes] = {
        "[Content_Types].xml": (
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Default Extension="xml" ContentType="application/xml"/>{kinds}</Types>'
        ).encode(),
        "_rels/.rels": (
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" Type="{office}/officeDocument" '
            'Target="word/document.xml"/></Relationships>'
        ).encode(),
        "word/_rels/document.xml.rels": (
            f'<Relationships xmlns="{package}/relationships">{links}</Relationships>'
        ).encode(),
        "word/document.xml": (
            f'{head}<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
            f'xmlns:r="{office}" xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing" '
            'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
            'xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture">'
            f"<w:body>{body}</w:body></w:document>"
        ).encode(),
        **{f"word/media/{name}": data for name, data in (pictures or {}).items()},
    }
    return archive(members)


def docx_paragraph(text: str, style: str = "") -> str:
    """Return the XML of one paragraph of a Word document."""
    named = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{named}<w:r><w:t>{text}</w:t></w:r></w:p>"


def epub(chapters: Mapping[str, str], others: Mapping[str, bytes] | None = None) -> bytes:
    """Return a book with these chapters (file name to body HTML) and further files."""
    items = "".join(
        f'<item id="i{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="i{number}"/>' for number in range(len(chapters)))
    members = {
        "mimetype": b"application/epub+zip",
        "META-INF/container.xml": (
            b'<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            b'<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
        ),
        "OEBPS/book.opf": (
            '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
            f"<dc:title>The Pump</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"
        ).encode(),
        **{f"OEBPS/{name}": f"<html><body>{body}</body></html>".encode() for name, body in chapters.items()},
        **dict(others or {}),
    }
    return archive(members)


def archive(members: Mapping[str, bytes]) -> bytes:
    """Return a ZIP archive of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def _numbered(objects: Sequence[bytes]) -> bytes:
    data = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + trailer
