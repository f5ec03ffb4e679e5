"""A site or a sitemap to raw pages on disk, and those into a corpus.

The crawl itself is Scrapy's, in a process of its own (`data_prep.crawling.process`); its state is a frontier in SQLite
that survives being killed. The same command goes on where it was stopped; a crawl that had come to its end is made
again with conditional requests, so that only what changed is sent.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from data_prep.convert import Source
from data_prep.converting.guarded import GuardedConverter
from data_prep.converting.profiles import Profile
from data_prep.crawling.addresses import PICTURE_SUFFIXES, clean
from data_prep.crawling.frontier import Frontier, Row
from data_prep.errors import DataError
from data_prep.intake import Intake, document_id

PROJECT = "rag-vs-finetune"
USER_AGENT = f"Versus/0.1 ({PROJECT}; makes a corpus of documentation; obeys robots.txt)"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CrawlConfig:
    """What a crawl fetches, and how politely.

    `prefix` is what every page's address begins with (None: the folder of the start page, or the site of a sitemap);
    `max_pages` is the budget of pages for one run, `max_depth` the number of links from the start; `delay` the least
    seconds between two requests; `attempts` and `backoff` say how often an address is tried and how many seconds pass
    before the second time, doubled each time; `timeout` in seconds and `max_bytes` limit each answer.
    """

    start: str
    folder: Path
    prefix: str | None = None
    max_pages: int = 1_000
    max_depth: int = 20
    delay: float = 0.5
    concurrency: int = 4
    attempts: int = 4
    backoff: float = 2.0
    timeout: float = 60.0
    max_bytes: int = 50_000_000
    pictures: bool = True
    allow_private: bool = False
    user_agent: str = USER_AGENT

    def __post_init__(self) -> None:
        faults = []
        start = clean(self.start)
        if start is None:
            faults.append(f"{self.start!r} is no http or https address")
        if self.prefix is not None and clean(self.prefix) is None:
            faults.append(f"the prefix {self.prefix!r} is no http or https address")
        least_one = ("max_pages", "concurrency", "attempts", "max_bytes")
        faults += [f"{name} must be at least 1" for name in least_one if getattr(self, name) < 1]
        faults += [
            f"{name} must not be negative" for name in ("max_depth", "delay", "backoff") if getattr(self, name) < 0
        ]
        if self.timeout <= 0:
            faults.append("timeout must be more than 0")
        if faults:
            raise DataError("; ".join(faults))
        object.__setattr__(self, "start", start)

    @property
    def is_sitemap(self) -> bool:
        """Whether the start is a sitemap, not a page."""
        path = urlsplit(self.start).path.lower()
        return path.endswith((".xml", ".xml.gz")) or "sitemap" in path.rsplit("/", 1)[-1]

    @property
    def robot_name(self) -> str:
        """The name that robots.txt may address."""
        return self.user_agent.split("/")[0]

    def to_json(self) -> str:
        """Return the configuration as one line of JSON."""
        return json.dumps({**asdict(self), "folder": str(self.folder.absolute())})

    @classmethod
    def from_json(cls, line: str) -> CrawlConfig:
        """Read what `to_json` wrote."""
        row = json.loads(line)
        return cls(**{**row, "folder": Path(row["folder"])})


def crawl(config: CrawlConfig, progress: Progress | None = None) -> None:
    """Crawl, or go on with a crawl; returns when nothing waits or the budget is spent.

    Raises `DataError` if the process that crawls ended before that; what it had fetched is kept.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "data_prep.crawling.process"]
    with (
        (config.folder / "log.txt").open("w", encoding="utf-8") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        if process.stdin is None or process.stdout is None:
            raise DataError("the crawl's process has no pipes")
        try:
            process.stdin.write(config.to_json() + "\n")
            process.stdin.flush()
            message = _listen(process.stdout, progress)
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
    if code or message:
        raise DataError(
            message or f"the crawl stopped ({code}); {config.folder / 'log.txt'} says more; the same command goes on"
        )


def _listen(lines: IO[str], progress: Progress | None) -> str | None:
    for line in lines:
        row = json.loads(line)
        if "error" in row:
            return str(row["error"])
        if progress is not None:
            progress(row["pages"], row["pages"] + row["waiting"])
    return None


def crawl_folder(corpus: Path, start: str) -> Path:
    """Return where a crawl of `start` into a corpus keeps its frontier and its raw pages."""
    host = re.sub(r"[^A-Za-z0-9.-]+", "-", urlsplit(start).netloc)[:60]
    return corpus / "crawl" / f"{host}-{hashlib.sha256(start.encode()).hexdigest()[:8]}"


def take_pages(
    intake: Intake, config: CrawlConfig, *, profiles: Sequence[Profile] = (), progress: Progress | None = None
) -> None:
    """Convert the pages that a crawl has fetched, and take them into a corpus; what was not taken is reported."""
    with Frontier(config.folder) as frontier, GuardedConverter() as converter:
        prefix = frontier.fact("prefix") or config.start
        seen: dict[str, str] = {}
        names: set[str] = set()
        pages = list(frontier.rows("page"))
        for number, row in enumerate(pages, start=1):
            if progress is not None:
                progress(number, len(pages))
            if row.state == "done" and row.body in seen:
                intake.skip(row.url, f"holds the same bytes as {seen[row.body]}")
            elif row.state == "done" and row.body:
                seen[row.body] = row.url
                _take(intake, frontier, converter, row, _name(row.url, prefix, names), tuple(profiles))
            elif row.state in {"failed", "skipped"}:
                intake.skip(row.url, row.reason or row.state)
        for row in frontier.rows("sitemap"):
            if row.state in {"failed", "skipped"}:
                intake.skip(row.url, f"the sitemap: {row.reason or row.state}")
        waiting = sum(row.state == "waiting" for row in pages)
        if waiting:
            intake.skip(f"{waiting} more pages of {prefix}", "wait: the page budget is spent; --pages raises it")


def _take(
    intake: Intake, frontier: Frontier, converter: GuardedConverter, row: Row, name: str, profiles: tuple[Profile, ...]
) -> None:
    source = Source(row.content_type or "html", name, url=row.url, charset=row.charset, profiles=profiles)
    try:
        documents = converter.convert(frontier.body_path(row.body or ""), source)
    except DataError as error:
        intake.skip(row.url, str(error))
        return
    if source.kind not in {"pdf", "epub", "docx"}:
        documents = [replace(document, part="") for document in documents]
    intake.take(name, row.url, documents, lambda target: _picture(frontier, target))


def _picture(frontier: Frontier, target: str) -> tuple[str, bytes] | None:
    address = clean(target)
    row = frontier.row(address) if address else None
    if row is not None and row.target is not None:
        row = frontier.row(row.target)
    if row is None or row.state != "done" or not row.body:
        return None
    path = frontier.body_path(row.body)
    name = unquote(urlsplit(row.url).path).rsplit("/", 1)[-1]
    return (name, path.read_bytes()) if path.exists() and Path(name).suffix.lower() in PICTURE_SUFFIXES else None


def _name(url: str, prefix: str, taken: set[str]) -> str:
    """Return a page's id: its path under the prefix, and its query; a number behind it if another page has it."""
    parts = urlsplit(url)
    path = unquote(url.split("?")[0].removeprefix(prefix) if url.startswith(prefix) else parts.path).strip("/")
    name = document_id((path or "index") + (f"-{parts.query}.html" if parts.query else ""))
    unique, number = name, 2
    while unique.casefold() in taken:
        unique, number = f"{name}-{number}", number + 1
    taken.add(unique.casefold())
    return unique
