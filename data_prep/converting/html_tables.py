"""HTML tables: those of data as markdown tables, those of layout as the blocks inside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data_prep.converting.html_inline import Context, children, classes, collapse, inline

Element = Any
_MAX_SPAN = 50
_MAX_COLUMNS = 60
_LAYOUT = frozenset({"h1", "h2", "h3", "article", "section", "form", "nav"})
_LAYOUT_WITHOUT_HEADER = frozenset({"table", "pre", "blockquote"})


def table_blocks(element: Element, context: Context, cell_blocks: Callable[[Element], list[str]]) -> list[str]:
    """Return a table as blocks: its caption, then a markdown table; a table of layout gives its cells' blocks."""
    rows = _rows(element)
    if not rows:
        return []
    if _line_numbered(element):
        return [part for cell in element.iter("td") if not _is_gutter(cell) for part in cell_blocks(cell)]
    if _is_layout(element, rows):
        return [part for row in rows for cell in row for part in cell_blocks(cell)]
    grid = _grid(rows, context)
    if not any(any(row) for row in grid):
        return []
    caption = element.find("caption")
    title = collapse(inline(caption, context)).strip() if caption is not None else ""
    return ([title] if title else []) + [_markdown(grid, _header_rows(element, rows))]


def markdown_table(grid: list[list[str]]) -> str:
    """Return rows of cells as a markdown table whose first row is the header; ragged rows are filled up."""
    return _markdown(grid, 1)


def is_data(element: Element) -> bool:
    """Tell whether a table holds data, and not the layout of a page."""
    rows = _rows(element)
    return bool(rows) and not _line_numbered(element) and not _is_layout(element, rows)


def _rows(element: Element) -> list[list[Element]]:
    """Return the cells of a table row by row; tables inside its cells are not entered."""
    rows = []
    for child in children(element):
        lines = [child] if child.tag == "tr" else children(child) if child.tag in {"thead", "tbody", "tfoot"} else []
        rows += [[cell for cell in children(line) if cell.tag in {"td", "th"}] for line in lines if line.tag == "tr"]
    return [row for row in rows if row]


def _is_layout(element: Element, rows: list[list[Element]]) -> bool:
    if element.get("role") in {"presentation", "none"} or max(len(row) for row in rows) == 1:
        return True
    headed = any(cell.tag == "th" for row in rows for cell in row)
    signs = _LAYOUT if headed else _LAYOUT | _LAYOUT_WITHOUT_HEADER
    return any(inner.tag in signs for inner in element.iterdescendants() if isinstance(inner.tag, str))


def _line_numbered(element: Element) -> bool:
    return any(_is_gutter(cell) for cell in element.iter("td"))


def _is_gutter(cell: Element) -> bool:
    return bool(classes(cell) & {"linenos", "gutter", "rouge-gutter", "hljs-ln-numbers"})


def _grid(rows: list[list[Element]], context: Context) -> list[list[str]]:
    """Return the cells' texts; a cell over several rows stands in each, one over several columns in the first."""
    grid: list[list[str]] = []
    open_cells: dict[int, tuple[int, str]] = {}
    for row in rows:
        line: list[str] = []
        cells = iter(row)
        cell = next(cells, None)
        while (cell is not None or len(line) in open_cells) and len(line) < _MAX_COLUMNS:
            if len(line) in open_cells:
                left, text = open_cells.pop(len(line))
                if left > 1:
                    open_cells[len(line)] = (left - 1, text)
                line.append(text)
                continue
            text = cell_text(cell, context)
            for place in range(_span(cell, "colspan")):
                if (down := _span(cell, "rowspan")) > 1:
                    open_cells[len(line)] = (down - 1, text if place == 0 else "")
                line.append(text if place == 0 else "")
            cell = next(cells, None)
        grid.append(line[:_MAX_COLUMNS])
    return grid


def cell_text(cell: Element, context: Context) -> str:
    """Return a cell's text on one line; its paragraphs and list items are set apart by semicolons."""
    parts = [collapse(inline(part, context)).strip() for part in cell.iter("li")]
    if not parts:
        paragraphs = [child for child in children(cell) if child.tag == "p"]
        parts = [collapse(inline(part, context)).strip() for part in paragraphs] if len(paragraphs) > 1 else []
    whole = collapse(inline(cell, context)).strip()
    joined = "; ".join(part for part in parts if part)
    same = "".join(joined.replace(";", "").split()) == "".join(whole.replace(";", "").split())
    return (joined if parts and same else whole).replace("|", "\\|")


def _span(cell: Element, name: str) -> int:
    value = (cell.get(name) or "1").strip()
    return min(max(int(value), 1), _MAX_SPAN) if value.isdigit() and len(value) < 7 else 1


def _header_rows(element: Element, rows: list[list[Element]]) -> int:
    """Return 1 if the first row heads the columns, else 0 (an empty header is written then)."""
    if element.find("thead") is not None or all(cell.tag == "th" for cell in rows[0]):
        return 1
    heads_of_rows = all(row[0].tag == "th" for row in rows)
    return 0 if heads_of_rows or len(rows) == 1 else 1


def _markdown(grid: list[list[str]], header: int) -> str:
    width = max(len(row) for row in grid)
    filled = [row + [""] * (width - len(row)) for row in grid]
    head, body = (filled[0], filled[1:]) if header else ([""] * width, filled)
    lines = [head, ["---"] * width, *body]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines)
