"""Text for pretraining, read as a stream: folders of text, markdown and JSONL files, packed or not, of any size.

Nothing is held but the document at hand, so the text may be larger than memory.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from finetune.errors import TrainingDataError
from finetune.json_lines import json_value

TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown")
LINE_SUFFIXES = (".jsonl", ".ndjson")
PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
LONGEST = 50_000
"""Characters of a document; a text file that holds more is read as several, cut at an empty line where there is one."""

OnBytes = Callable[[int, int], None]
"""Called with the bytes of the files read so far, and of all of them."""


def find_shards(paths: Sequence[str | Path]) -> list[Path]:
    """Return the files to read, those of folders sorted by name. Raises TrainingDataError naming all that is wrong."""
    found: list[Path] = []
    problems = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.is_file() and _kind(each))
            problems += [] if inside else [f"{path} holds no text ({_known()})"]
            found += inside
        elif not path.is_file():
            problems.append(f"{path}: there is no such file or folder")
        elif _kind(path) is None:
            problems.append(f"{path}: only {_known()} can be read")
        else:
            found.append(path)
    if not paths:
        problems.append("no text is named")
    if problems:
        raise TrainingDataError("; ".join(problems))
    return list(dict.fromkeys(found))


def read_shards(shards: Sequence[Path], *, field: str = "text", on_bytes: OnBytes | None = None) -> Iterator[str]:
    """Yield the documents of `shards` in order; `field` holds the text in a line of JSONL. Empty ones are left out.

    Raises TrainingDataError that names the file, and the line of JSONL, which cannot be read.
    """
    total, before = sum(path.stat().st_size for path in shards), 0
    for path in shards:
        try:
            with path.open("rb") as raw:
                for text in _documents(path, raw, field):
                    if on_bytes is not None:
                        on_bytes(before + raw.tell(), total)
                    if text.strip():
                        yield text
        except UnicodeDecodeError as error:
            raise TrainingDataError(f"{path}: not UTF-8 text ({error.reason}); convert it") from error
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise TrainingDataError(f"{path}: cannot be read ({error}); it may be cut off or damaged") from error
        before += path.stat().st_size
    if on_bytes is not None:
        on_bytes(total, total)


def _documents(path: Path, raw: IO[bytes], field: str) -> Iterator[str]:
    """Yield the documents of one opened file."""
    unpack = PACKED.get(path.suffix.lower())
    if unpack is None:
        lines: Any = codecs.iterdecode(raw, "utf-8-sig")
    else:
        lines = unpack(raw, "rt", encoding="utf-8-sig")
    yield from _of_lines(path, lines, field) if _kind(path) == "lines" else _of_text(lines)


def _of_lines(path: Path, lines: Iterator[str], field: str) -> Iterator[str]:
    """Yield the text of each line of JSONL."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json_value(line)
        except ValueError as error:
            raise TrainingDataError(f"{path}, line {number}: {error}") from error
        text = row.get(field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise TrainingDataError(f"{path}, line {number}: no text in the field {field!r}; name the right field")
        yield text


def _of_text(lines: Iterator[str]) -> Iterator[str]:
    """Yield a text file as documents of about LONGEST characters at most."""
    held: list[str] = []
    size = 0
    for line in lines:
        if size + len(line) > LONGEST or (size > LONGEST // 2 and not line.strip()):
            yield "".join(held)
            held, size = [], 0
        held.append(line)
        size += len(line)
    yield "".join(held)


def _kind(path: Path) -> str | None:
    """Return `text` or `lines`; None for a file that is neither."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return "text" if last in TEXT_SUFFIXES else "lines" if last in LINE_SUFFIXES else None


def _known() -> str:
    return f"{', '.join((*TEXT_SUFFIXES, *LINE_SUFFIXES))}, also packed as {', '.join(PACKED)}"
