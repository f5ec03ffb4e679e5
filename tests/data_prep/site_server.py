"""A small site on 127.0.0.1 with everything that a crawl must cope with; it counts what it is asked for."""

from __future__ import annotations

import gzip
import socket
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.data_prep.made_files import paragraph, pdf

PNG = b"\x89PNG\r\n\x1a\n" + b"1" * 60
WORDS = "The pump moves water from the well to the house, and it must be filled before the first start. "


def _page(title: str, body: str) -> bytes:
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1><p>{WORDS}</p>{body}</body></html>".encode()


LINKS = (
    "a.html", "b.html?x=1#part", "loop1.html", "moved.html", "gone.html", "slow-start.html", "secret/x.html",
    "cut.html", "big.html", "manual.pdf", "film.mp4", "../outside.html", "mailto:x@example.org", "javascript:x()",
    "http://example.invalid/",
)  # fmt: skip
INSIDE = '<img src="pump.png" alt="The pump"><a href="index.html">up</a><a href="deep.html">deep</a>'
PAGES: dict[str, tuple[str, bytes]] = {
    "/docs/index.html": ("text/html", _page("Start", "".join(f'<a href="{link}">{link}</a> ' for link in LINKS))),
    "/docs/a.html": ("text/html", _page("A", INSIDE)),
    "/docs/b.html?x=1": ("text/html; charset=utf-8", _page("Größe", "")),
    "/docs/deep.html": ("text/html", _page("Deep", "")),
    "/docs/target.html": ("text/html", _page("Target", "")),
    "/docs/pump.png": ("image/png", PNG),
    "/docs/secret/x.html": ("text/html", _page("Secret", "")),
    "/docs/big.html": ("text/html", _page("Big", "x" * 400_000)),
    "/docs/manual.pdf": ("application/pdf", pdf([paragraph(50, 700, WORDS)])),
    "/outside.html": ("text/html", _page("Outside", "")),
    "/robots.txt": ("text/plain", b"User-agent: *\nDisallow: /docs/secret/\n"),
}  # fmt: skip
MOVED = {
    "/docs/moved.html": "/docs/target.html",
    "/docs/loop1.html": "/docs/loop2.html",
    "/docs/loop2.html": "/docs/loop1.html",
}


class Site(ThreadingHTTPServer):
    """The server; `asked` counts requests by path, `agents` holds the user agents, `unchanged` the answers 304."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.unchanged = 0
        self.pause = 0.0
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}"
        pages = "".join(f"<url><loc>{self.url}/docs/{name}.html</loc></url>" for name in ("a", "deep"))
        inner = f"<urlset>{pages}<url><loc>{self.url}/outside.html</loc></url></urlset>".encode()
        index = f"<sitemapindex><sitemap><loc>{self.url}/s.xml.gz</loc></sitemap></sitemapindex>"
        self.pages = {
            **PAGES,
            "/sitemap.xml": ("text/xml", index.encode()),
            "/s.xml.gz": ("application/gzip", gzip.compress(inner)),
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer one request."""
        site = self.server
        site.asked[self.path] += 1
        site.agents.add(self.headers.get("User-Agent", ""))
        if site.pause:
            threading.Event().wait(site.pause)
        if self.path in MOVED:
            self._answer(302, b"", {"Location": MOVED[self.path]})
        elif self.path == "/docs/slow-start.html":
            self._answer(
                *((503, b"", {"Retry-After": "0"}) if site.asked[self.path] < 3 else (200, _page("Slow", ""), {}))
            )
        elif self.path == "/docs/cut.html":
            self._answer(200, gzip.compress(_page("Cut", "y" * 5000))[:60], {"Content-Encoding": "gzip"})
        elif self.path not in site.pages:
            self._answer(404, b"no", {})
        else:
            kind, data = site.pages[self.path]
            tag = f'"{zlib.crc32(data)}"'
            known = self.headers.get("If-None-Match") == tag
            site.unchanged += known
            self._answer(304 if known else 200, b"" if known else data, {"Content-Type": kind, "ETag": tag})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def site(host: str = "127.0.0.1") -> Iterator[Site]:
    """Run the site while the context lasts."""
    server = Site(host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
