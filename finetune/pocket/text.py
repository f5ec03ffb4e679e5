"""Read pages of the pretraining text as sections, passages and sentences, for the instruction stage."""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import FinetuneError

SHARDS = ("manuals-00.jsonl.xz", "manuals-01.jsonl.xz", "manuals-02.jsonl.xz", "manuals-03.jsonl.xz")
VALIDATION = "validation.jsonl.xz"

_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*$")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[A-Z0-9\"'(`\[])")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|approx|No|Fig|Dr|Mr|Ms|St|cf)\.$")
LIST_MARK = re.compile(r"^\s*(?:[-*+•]|\d{1,2}[.)]|[a-z][.)])\s+")
STEP_MARK = re.compile(r"^\s*(?:\d{1,2}[.)]|[a-z][.)])\s+")


@dataclass(frozen=True)
class Sentence:
    """One sentence and where it stands in its passage's body: `body[start:end] == text`."""

    text: str
    start: int
    end: int
    step: bool = False


@dataclass(frozen=True)
class Passage:
    """A run of lines of one section: what retrieval would hand over, with the heading that it stands under."""

    title: str
    section: str
    body: str
    sentences: tuple[Sentence, ...]
    opens_section: bool

    def text(self, *, header: bool = True) -> str:
        """Return the passage as retrieval quotes it: a line with title and section, then the body."""
        if not header:
            return self.body
        heading = f"{self.title} › {self.section}" if self.section else self.title
        return f"{heading}\n{self.body}"


def read_pages(path: Path) -> Iterator[dict[str, str]]:
    """Yield the JSON objects (source, licence, text) of one shard. Raises FinetuneError if it is missing or broken."""
    if not path.is_file():
        raise FinetuneError(f"{path} is missing: point --data at the folder that holds the pretraining text")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                page = json.loads(line)
            except json.JSONDecodeError as error:
                raise FinetuneError(f"{path}:{number}: not JSON ({error.msg}); fetch the file again") from error
            yield page


def page_title(page: dict[str, str]) -> str:
    """Return the page's first heading, else its file name in words."""
    first = _HEADING.match(page["text"].lstrip().split("\n", 1)[0])
    if first:
        return first[2][:80]
    stem = Path(page["source"].rsplit(":", 1)[-1])
    name = stem.parent.name if stem.stem in {"index", "_index", "README", "readme"} else stem.stem
    return re.sub(r"[-_]+", " ", name).strip().capitalize()[:80]


def passages(page: dict[str, str], words: int) -> list[Passage]:
    """Cut a page into passages of about `words` words that do not cross a heading, code and one-word lines left out."""
    title = page_title(page)
    cut: list[Passage] = []
    for section, lines in _sections(page["text"], title):
        opens = True
        for block in _blocks(lines, words):
            body = "\n".join(block)
            cut.append(Passage(title, section, body, tuple(sentences(body)), opens))
            opens = False
    return [passage for passage in cut if len(passage.body.split()) >= 12]


def _sections(text: str, title: str) -> Iterator[tuple[str, list[str]]]:
    """Yield heading path and lines of every section; fenced code is skipped."""
    path: list[tuple[int, str]] = []
    lines: list[str] = []
    fenced = False
    for line in text.split("\n"):
        if line.startswith("```"):
            fenced = not fenced
            continue
        heading = None if fenced else _HEADING.match(line)
        if heading is None:
            if line.strip() and not fenced:
                lines.append(line.rstrip())
            continue
        yield _section_name(path, title), lines
        level = len(heading[1])
        path = [*[(depth, name) for depth, name in path if depth < level], (level, heading[2])]
        lines = []
    yield _section_name(path, title), lines


def _blocks(lines: list[str], words: int) -> Iterator[list[str]]:
    """Group lines until a block has about `words` words; a single longer line is cut between sentences."""
    block: list[str] = []
    size = 0
    for line in lines:
        for piece in _pieces(line, words):
            length = len(piece.split())
            if block and size + length > words:
                yield block
                block, size = [], 0
            block.append(piece)
            size += length
    if block:
        yield block


def _pieces(line: str, words: int) -> list[str]:
    """Cut a line of more than `words` words between sentences."""
    if len(line.split()) <= words:
        return [line]
    pieces: list[str] = []
    current = ""
    for sentence in _SENTENCE_END.split(line):
        if current and len((current + sentence).split()) > words:
            pieces.append(current)
            current = ""
        current = f"{current} {sentence}" if current else sentence
    return [*pieces, current]


def sentences(body: str) -> Iterator[Sentence]:
    """Yield the sentences of a passage's body with their places, list marks left outside."""
    start = 0
    for line in body.split("\n"):
        mark = LIST_MARK.match(line)
        step = STEP_MARK.match(line) is not None
        begin = start + (mark.end() if mark else 0)
        yield from _line_sentences(body, begin, start + len(line), step)
        start += len(line) + 1


def _line_sentences(body: str, begin: int, end: int, step: bool) -> Iterator[Sentence]:
    """Yield the sentences of one line; a break after an abbreviation is no break."""
    here = begin
    for match in _SENTENCE_END.finditer(body, begin, end):
        if _ABBREVIATION.search(body, here, match.start()):
            continue
        yield Sentence(body[here : match.start()].rstrip(), here, here + len(body[here : match.start()].rstrip()), step)
        here = match.end()
    text = body[here:end].rstrip()
    if text:
        yield Sentence(text, here, here + len(text), step)


def _section_name(path: list[tuple[int, str]], title: str) -> str:
    """Join the last two headings of a path, the page's own title left out."""
    return " › ".join([name for _, name in path if name != title][-2:])
