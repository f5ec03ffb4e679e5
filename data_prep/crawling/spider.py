"""The spider: takes addresses from the frontier, settles each there, and adds what it finds."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import scrapy
from scrapy import signals
from scrapy.exceptions import IgnoreRequest

from data_prep.converting.charsets import decode
from data_prep.crawl import CrawlConfig
from data_prep.crawling.addresses import clean, default_prefix, site_root, suffix
from data_prep.crawling.bodies import document_kind, page_links, sitemap_entries, unpacked
from data_prep.crawling.frontier import Frontier, Row
from data_prep.crawling.resolving import PRIVATE, refused
from data_prep.errors import DataError

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 522, 524})
_MOVED = frozenset({301, 302, 303, 307, 308})
_PAUSE = 0.05
_LONGEST_WAIT = 120.0
_MAX_REDIRECTS = 10
_MAX_PICTURES = 5_000
_MAX_SITEMAPS = 500


class FrontierSpider(scrapy.Spider):  # type: ignore[misc]
    """Crawls what the frontier holds; Scrapy fetches, throttles and obeys robots.txt."""

    name = "versus"

    def __init__(self, config: CrawlConfig, frontier: Frontier, tell: Any, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._config, self._frontier, self._tell = config, frontier, tell
        self._busy: dict[str, str] = {}
        counts = frontier.counts()
        self._asked_pages = counts.get(("page", "done"), 0) + counts.get(("page", "failed"), 0)
        self._crawl_delay = 0.0
        self._parent = os.getppid()
        self._prefix = frontier.fact("prefix") or config.prefix or ""

    @classmethod
    def from_crawler(cls, crawler: Any, *args: Any, **keywords: Any) -> FrontierSpider:
        """Make the spider; hears what robots.txt says of the pace."""
        spider: FrontierSpider = super().from_crawler(crawler, *args, **keywords)
        crawler.signals.connect(spider.robots_parsed, signal=signals.robots_parsed)
        return spider

    def robots_parsed(self, robotparser: Any) -> None:
        """Take over the Crawl-delay that robots.txt asks of us."""
        inner: Any = getattr(robotparser, "rp", None)
        wanted = inner.crawl_delay(self._config.robot_name) if hasattr(inner, "crawl_delay") else None
        self._crawl_delay = max(self._crawl_delay, min(float(wanted or 0), 60.0))

    async def start(self) -> AsyncIterator[Any]:
        """Yield a request for every address that is due, until none waits and none is under way."""
        told = 0.0
        while os.getppid() == self._parent:
            kinds = self._open_kinds()
            room = self._config.concurrency * 2 - len(self._busy)
            rows = self._frontier.due(time.time(), kinds, self._busy, room) if room > 0 else []
            for row in rows:
                if row.kind == "page" and self._asked_pages >= self._config.max_pages:
                    break
                yield self._request(row)
                if self._crawl_delay > self._config.delay:
                    await asyncio.sleep(self._crawl_delay)
            if not rows and not self._busy and not self._frontier.waiting(self._open_kinds()):
                self._frontier.finish()
                return
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                busy = sum(kind == "page" for kind in self._busy.values())
                self._tell(max(self._asked_pages - busy, 0), self._frontier.waiting(["page"]))
            await asyncio.sleep(_PAUSE)

    def _open_kinds(self) -> list[str]:
        kinds = ["sitemap", "picture"] if self._config.pictures else ["sitemap"]
        return [*kinds, "page"] if self._asked_pages < self._config.max_pages else kinds

    def _request(self, row: Row) -> Any:
        self._busy[row.url] = row.kind
        self._asked_pages += row.kind == "page"
        self._frontier.asked(row.url)
        headers = {"Accept-Encoding": "gzip"}
        if row.body and self._frontier.body_path(row.body).exists():
            headers |= {"If-None-Match": row.etag} if row.etag else {}
            headers |= {"If-Modified-Since": row.last_modified} if row.last_modified else {}
        return scrapy.Request(
            row.url,
            callback=self.answered,
            errback=self.broken,
            headers=headers,
            dont_filter=True,
            meta={"dont_redirect": True, "handle_httpstatus_all": True},
            cb_kwargs={"row": row},
        )

    def answered(self, response: Any, row: Row) -> None:
        """Settle an address that was answered, whatever the answer."""
        try:
            self._answer(response, row)
        except DataError as error:
            self._frontier.failed(row.url, str(error), status=response.status)
        finally:
            self._busy.pop(row.url, None)

    def broken(self, failure: Any) -> None:
        """Settle an address that gave no answer: another attempt later, or the reason why not."""
        row: Row = failure.request.cb_kwargs["row"]
        try:
            self._break(failure, row)
        finally:
            self._busy.pop(row.url, None)

    def _answer(self, response: Any, row: Row) -> None:
        status = response.status
        if status == 304 and row.body:
            self._frontier.done(row.url, status=status)
            self._follow(row, self._frontier.body_path(row.body).read_bytes(), row.content_type or "", row.charset)
        elif status in _MOVED:
            self._moved(response, row)
        elif status in _AGAIN:
            self._retry(row, f"HTTP {status}", _asked_wait(response))
        elif status != 200:
            self._frontier.failed(row.url, f"HTTP {status}", status=status)
        else:
            self._keep(response, row)

    def _keep(self, response: Any, row: Row) -> None:
        data = unpacked(response.body, _header(response, "Content-Encoding"), self._config.max_bytes)
        content_type = _header(response, "Content-Type")
        kind = _kind(row, content_type, data)
        if kind is None:
            name = content_type.split(";")[0] or "unnamed"
            self._frontier.skipped(row.url, f"is of the kind {name}, which is not read", status=200)
            return
        charset = content_type.partition("charset=")[2].split(";")[0].strip(" \"'") or None
        self._frontier.done(
            row.url,
            status=200,
            etag=_header(response, "ETag") or None,
            last_modified=_header(response, "Last-Modified") or None,
            content_type=kind,
            charset=charset,
            body=self._frontier.store(data),
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._follow(row, data, kind, charset)

    def _follow(self, row: Row, data: bytes, kind: str, charset: str | None) -> None:
        if kind == "sitemap":
            pages, maps = sitemap_entries(data, self._config.max_bytes)
            self._frontier.add((url, "page", 0) for url in pages if self._inside(url))
            if len(maps) <= _MAX_SITEMAPS:
                self._frontier.add((url, "sitemap", 0) for url in maps if url.startswith(site_root(row.url)))
        elif kind == "html":
            pages, pictures = page_links(decode(data, charset), row.url)
            if row.depth < self._config.max_depth:
                self._frontier.add((url, "page", row.depth + 1) for url in pages if self._inside(url))
            if self._config.pictures and self._frontier.counts().get(("picture", "done"), 0) < _MAX_PICTURES:
                same = [url for url in pictures if urlsplit(url).netloc == urlsplit(row.url).netloc]
                self._frontier.add((url, "picture", row.depth) for url in same)

    def _inside(self, url: str) -> bool:
        return url.startswith(self._prefix)

    def _moved(self, response: Any, row: Row) -> None:
        """Follow a redirect by way of the frontier, so that each of its steps is checked and asked for once."""
        target = clean(_header(response, "Location"), row.url)
        if target is None:
            self._frontier.failed(row.url, "redirects to no address that can be fetched", status=response.status)
            return
        if row.depth == 0 and row.kind == "page" and row.url == self._config.start and self._config.prefix is None:
            self._prefix = default_prefix(target)
            self._frontier.note("prefix", self._prefix)
        if self._loops(row.url, target):
            self._frontier.failed(row.url, "redirects in a loop, or too often", status=response.status, target=target)
        elif row.kind == "page" and not self._inside(target):
            self._frontier.skipped(row.url, f"redirects to {target}, outside the prefix", status=response.status)
        else:
            self._frontier.skipped(row.url, f"redirects to {target}", status=response.status, target=target)
            self._frontier.add([(target, row.kind, row.depth)])

    def _loops(self, url: str, target: str) -> bool:
        seen = {url}
        step: str | None = target
        while step is not None and len(seen) <= _MAX_REDIRECTS:
            if step in seen:
                return True
            seen.add(step)
            known = self._frontier.row(step)
            step = known.target if known is not None else None
        return len(seen) > _MAX_REDIRECTS

    def _retry(self, row: Row, reason: str, wait: float | None = None) -> None:
        if row.attempts + 1 >= self._config.attempts:
            self._frontier.failed(row.url, f"{reason}, after {row.attempts + 1} attempts")
            return
        pause = self._config.backoff * 2**row.attempts if wait is None else wait
        self._asked_pages -= row.kind == "page"
        self._frontier.again(row.url, time.time() + min(pause, _LONGEST_WAIT), reason)

    def _break(self, failure: Any, row: Row) -> None:
        error = failure.value
        name = type(error).__name__
        if urlsplit(row.url).hostname in refused:
            self._frontier.skipped(row.url, PRIVATE)
        elif isinstance(error, IgnoreRequest):
            reason = "robots.txt forbids it" if "robots.txt" in str(error) else str(error) or "refused"
            self._frontier.skipped(row.url, reason)
            self._asked_pages -= row.kind == "page"
        elif name in {"CancelledError", "DownloadCancelledError"}:
            self._frontier.failed(row.url, f"larger than {self._config.max_bytes // 1_000_000} MB")
        elif name in {"TimeoutError", "TCPTimedOutError", "DownloadTimeoutError"}:
            self._retry(row, f"no answer within {self._config.timeout:.0f} s")
        else:
            self._retry(row, f"{name}: {' '.join(str(error).split())[:160]}")


def _kind(row: Row, content_type: str, data: bytes) -> str | None:
    if row.kind == "sitemap":
        return "sitemap"
    if row.kind == "picture":
        return "picture" if content_type.startswith("image/") or suffix(row.url) else None
    return document_kind(content_type, row.url, data)


def _header(response: Any, name: str) -> str:
    value = response.headers.get(name)
    return value.decode("latin-1").strip() if value else ""


def _asked_wait(response: Any) -> float | None:
    """Return the seconds of a Retry-After header, given as a number or as a date."""
    value = _header(response, "Retry-After")
    if value.isdigit():
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0) if value else None
    except (ValueError, TypeError):
        return None
