"""A PDF to light markdown, with the offset at which each page begins; pages without text are named, not left silent."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_prep.converting.html_tables import markdown_table
from data_prep.converting.inert import inert, tidy_text
from data_prep.converting.pdf_blocks import pdf_markdown
from data_prep.converting.pdf_layout import Line, Word, reading_order, words_of
from data_prep.converting.result import Converted, Picture, split_marks
from data_prep.errors import DataError

MAX_PAGES = 5_000
_MAX_PICTURES = 200
_LEAST_PICTURE = 48.0
_LARGEST_PICTURE = 0.85
"""Of the page; a larger one is its background."""
_MAX_RULES = 2_000
"""Pages with more lines and boxes are drawings; tables are not looked for in them."""
_PICTURE_SCALE = 1.6


@dataclass(frozen=True, slots=True)
class _Page:
    lines: list[Line]
    sizes: Counter[float]
    pictured: bool


def convert_pdf(data: bytes, fallback_title: str, alive: Callable[[], None] = lambda: None) -> Converted:
    """Convert a PDF; `alive` is called after every page.

    Raises `DataError` for a file that is none, is locked, has no page, or holds pictures of text only.
    """
    import pdfplumber
    from pdfminer.pdfdocument import PDFPasswordIncorrect
    from pdfplumber.utils.exceptions import PdfminerException

    pictures: dict[str, bytes] = {}
    try:
        with pdfplumber.open(io.BytesIO(data)) as document:
            if not document.pages:
                raise DataError("the PDF has no pages")
            if len(document.pages) > MAX_PAGES:
                raise DataError(f"the PDF has {len(document.pages)} pages, more than {MAX_PAGES}; split it")
            drawer = _Drawer(data, pictures)
            pages = [_read_page(page, number, drawer, alive) for number, page in enumerate(document.pages, start=1)]
            drawer.close()
            stated = document.metadata.get("Title")
    except DataError:
        raise
    except PdfminerException as error:
        if error.args and isinstance(error.args[0], PDFPasswordIncorrect):
            raise DataError("the PDF is locked with a password; save it without one") from error
        raise DataError(f"not a PDF that can be read: {_said(error)}") from error
    except PDFPasswordIncorrect as error:
        raise DataError("the PDF is locked with a password; save it without one") from error
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # pdfminer raises nearly any error on a damaged file
        raise DataError(f"not a PDF that can be read: {type(error).__name__}: {_said(error)}") from error
    return _document(pages, pictures, stated, fallback_title)


def _document(pages: list[_Page], pictures: dict[str, bytes], stated: object, fallback_title: str) -> Converted:
    empty = [number for number, page in enumerate(pages, start=1) if not page.lines]
    scanned = [number for number in empty if pages[number - 1].pictured]
    if len(empty) == len(pages):
        why = "pictures of pages (scanned?) and no text; run text recognition (OCR) on it" if scanned else "no text"
        raise DataError(f"the PDF holds {why}")
    sizes: Counter[float] = sum((page.sizes for page in pages), Counter())
    marked = pdf_markdown([page.lines for page in pages], sizes)
    title = _title(marked, stated, fallback_title)
    if not re.match(r"(?:\ue000[^\ue001]*\ue001)*# ", marked):
        marked = f"# {inert(title)}\n\n{marked}"
    markdown, notes = split_marks(marked)
    offsets = [offset for offset, _ in notes]
    if offsets:
        offsets[0] = 0
    kept = tuple(Picture(name, content) for name, content in pictures.items() if f"embedded:{name}" in markdown)
    told = (f"pages {_ranges(scanned)} hold pictures and no text (scanned?)",) if scanned else ()
    return Converted(title, markdown, pages=tuple(offsets), pictures=kept, notes=told)


def _read_page(page: Any, number: int, drawer: _Drawer, alive: Callable[[], None]) -> _Page:
    words = words_of(page)
    sizes: Counter[float] = Counter()
    for word in words:
        sizes[round(word.size * 2) / 2] += len(word.text)
    tables = _tables(page)
    free = [word for word in words if not any(_inside(word, line) for line in tables)]
    lines = reading_order([_tidied(word) for word in free], float(page.width))
    shown = drawer.pictures(page, number) if words else []
    placed = _placed(lines, sorted([*tables, *shown], key=lambda line: line.top))
    pictured = bool(page.images)
    page.close()
    alive()
    return _Page([replace(line, page=number) for line in placed], sizes, pictured)


def _tidied(word: Word) -> Word:
    return replace(word, text=re.sub(r"\s+", " ", tidy_text(word.text)))


def _tables(page: Any) -> list[Line]:
    """Return the ruled tables of a page as ready lines."""
    rules = len(page.lines) + len(page.rects) + len(page.curves)
    if not 3 <= rules <= _MAX_RULES:
        return []
    found = []
    for table in page.find_tables():
        cells = [[_cell(text) for text in row] for row in table.extract()]
        filled = sum(bool(cell) for row in cells for cell in row)
        width = max((len(row) for row in cells), default=0)
        if len(cells) >= 2 and width >= 2 and filled >= 0.4 * len(cells) * width:
            x0, top, x1, bottom = table.bbox
            found.append(Line("", x0, x1, top, bottom, 0.0, markdown=markdown_table(cells)))
    return found


def _cell(text: str | None) -> str:
    return inert(" ".join(tidy_text(text or "").split())).replace("|", "\\|")


def _inside(word: Word, box: Line) -> bool:
    return box.x0 <= (word.x0 + word.x1) / 2 <= box.x1 and box.top <= (word.top + word.bottom) / 2 <= box.bottom


def _placed(lines: Sequence[Line], ready: Sequence[Line]) -> list[Line]:
    """Put tables and pictures among the lines: before the first line that begins under their top in their column."""
    placed = list(lines)
    for item in ready:
        under = [
            place
            for place, line in enumerate(placed)
            if line.top >= item.top and (line.markdown or (line.x0 < item.x1 and line.right > item.x0))
        ]
        placed.insert(min(under, default=len(placed)), item)
    return placed


class _Drawer:
    """Draws the pictures of pages with pdfium, which decodes every kind of them."""

    def __init__(self, data: bytes, kept: dict[str, bytes]) -> None:
        self._data, self._kept = data, kept
        self._document: Any = None

    def pictures(self, page: Any, number: int) -> list[Line]:
        """Return the pictures of a page as ready lines, and keep their bytes."""
        boxes = {
            (round(row["x0"]), round(row["top"]), round(row["x1"]), round(row["bottom"])): row for row in page.images
        }
        large = [
            box for box in boxes if min(box[2] - box[0], box[3] - box[1]) >= _LEAST_PICTURE and self._is_part(box, page)
        ]
        return [line for box in large[:20] if (line := self._draw(box, page, number)) is not None]

    @staticmethod
    def _is_part(box: tuple[int, int, int, int], page: Any) -> bool:
        covered = (box[2] - box[0]) * (box[3] - box[1]) / max(float(page.width * page.height), 1.0)
        inside = box[0] >= -5 and box[1] >= -5 and box[2] <= page.width + 5 and box[3] <= page.height + 5
        return inside and covered <= _LARGEST_PICTURE

    def _draw(self, box: tuple[int, int, int, int], page: Any, number: int) -> Line | None:
        import hashlib

        if len(self._kept) >= _MAX_PICTURES:
            return None
        try:
            data = self._png(box, page, number)
        except Exception:  # a picture that cannot be drawn is left out; the text does not depend on it
            return None
        name = f"{hashlib.sha256(data).hexdigest()[:12]}.png"
        self._kept[name] = data
        link = f"![Picture on page {number}](embedded:{name})"
        return Line("", box[0], box[2], box[1], box[3], 0.0, markdown=link)

    def _png(self, box: tuple[int, int, int, int], page: Any, number: int) -> bytes:
        import pypdfium2  # type: ignore[import-untyped]

        if self._document is None:
            self._document = pypdfium2.PdfDocument(self._data)
        width, height = float(page.width), float(page.height)
        crop = (max(box[0], 0), max(height - box[3], 0), max(width - box[2], 0), max(box[1], 0))
        image = self._document[number - 1].render(scale=_PICTURE_SCALE, crop=crop).to_pil()
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG", optimize=False)
        return buffer.getvalue()

    def close(self) -> None:
        """Let go of the document."""
        if self._document is not None:
            self._document.close()


def _title(marked: str, stated: object, fallback: str) -> str:
    text = re.sub("\ue000[^\ue001]*\ue001", "", marked)
    heading = re.match(r"#{1,6} (.+)", text)
    named = stated.strip() if isinstance(stated, str) else ""
    if heading:
        return heading.group(1).strip()
    usable = len(named) > 3 and not re.search(
        r"\.(?:docx?|indd|tex|dvi|pdf)$|^untitled|microsoft word", named, re.IGNORECASE
    )
    return tidy_text(named) if usable else fallback


def _ranges(numbers: Sequence[int]) -> str:
    """Return page numbers in short: 1, 4-6."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or "damaged"
