"""Crawls of a real local site: what is fetched, what is refused, what survives being killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.crawl import CrawlConfig, crawl, take_pages
from data_prep.crawling.addresses import clean, default_prefix, is_public, literal_address
from data_prep.crawling.bodies import page_links, sitemap_entries, unpacked
from data_prep.crawling.frontier import Frontier
from data_prep.errors import DataError
from data_prep.intake import Intake
from tests.data_prep import site_server
from tests.data_prep.site_server import Site, site


def _config(server: Site, folder: Path, start: str = "/docs/index.html", **options: object) -> CrawlConfig:
    values: dict[str, object] = {"delay": 0.0, "backoff": 0.1, "allow_private": True, "max_bytes": 300_000, **options}
    return CrawlConfig(start=f"{server.url}{start}", folder=folder, **values)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_site_becomes_a_corpus_and_is_asked_only_for_what_changed(tmp_path: Path) -> None:
    """Pages, a PDF and a picture come in; loops, forbidden, cut, large and missing pages are told with their reason."""
    with site() as server:
        config = _config(server, tmp_path / "crawl")
        crawl(config)
        intake = Intake(tmp_path / "corpus")
        take_pages(intake, config)
        report = intake.finish("site", language="en")
        assert sorted(report.added) == ["a", "b.html-x-1", "deep", "index", "manual", "slow-start", "target"]
        reasons = {url.removeprefix(f"{server.url}/docs/"): reason for url, reason in report.skipped.items()}
        assert "robots.txt forbids" in reasons["secret/x.html"]
        assert "loop" in reasons["loop2.html"]
        assert "redirects to" in reasons["moved.html"]
        assert "cut off" in reasons["cut.html"]
        assert "larger than 0 MB" in reasons["big.html"]
        assert "404" in reasons["gone.html"]
        assert "/docs/secret/x.html" not in server.asked
        assert "/outside.html" not in server.asked
        assert "/docs/film.mp4" not in server.asked
        assert server.asked["/docs/slow-start.html"] == 3
        assert all("rag-vs-finetune" in agent for agent in server.agents)
        text = (tmp_path / "corpus" / "documents" / "a.md").read_text(encoding="utf-8")
        assert "![The pump](../assets/" in text
        assert len(list((tmp_path / "corpus" / "assets").iterdir())) == 1

        server.pages["/docs/deep.html"] = ("text/html", b"<html><body><h1>Deeper</h1><p>New words.</p></body></html>")
        before, server.asked = server.unchanged, type(server.asked)()
        crawl(config)
        assert server.unchanged - before >= 5
        again = Intake(tmp_path / "corpus")
        take_pages(again, config)
        assert again.finish("site", language="en").changed == ["deep"]


@pytest.mark.slow
def test_a_killed_crawl_goes_on_where_it_was(tmp_path: Path) -> None:
    """After SIGKILL every page is there, and at most those under way were asked for twice."""
    with site() as server:
        links = "".join(f'<a href="p{number}.html">{number}</a>' for number in range(30))
        server.pages["/many/index.html"] = ("text/html", f"<html><body><p>Start</p>{links}</body></html>".encode())
        for number in range(30):
            page = f"<html><body><p>Page {number}</p></body></html>".encode()
            server.pages[f"/many/p{number}.html"] = ("text/html", page)
        server.pause = 0.1
        config = _config(server, tmp_path / "crawl", "/many/index.html", concurrency=2)
        process = subprocess.Popen(
            [sys.executable, "-m", "data_prep.crawling.process"], stdin=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        process.stdin.write(config.to_json() + "\n")
        process.stdin.flush()
        end = time.monotonic() + 60
        while server.asked.total() < 12 and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()
        with Frontier(config.folder) as frontier:
            done = frontier.counts().get(("page", "done"), 0)
            assert 0 < done < 31
        server.pause = 0.0
        crawl(config)
        with Frontier(config.folder) as frontier:
            assert frontier.counts() == {("page", "done"): 31}
            assert sum(count > 1 for count in frontier.requests().values()) <= 4


@pytest.mark.slow
def test_a_sitemap_gives_the_pages_and_the_budget_holds(tmp_path: Path) -> None:
    """A packed sitemap in an index; pages outside the prefix stay out; the budget leaves the rest waiting."""
    with site() as server:
        config = _config(server, tmp_path / "c", "/sitemap.xml", prefix=f"{server.url}/docs/", max_pages=1, max_depth=0)
        crawl(config)
        with Frontier(config.folder) as frontier:
            assert frontier.counts()["page", "done"] == 1
            assert frontier.counts()["page", "waiting"] == 1
        assert "/outside.html" not in server.asked


@pytest.mark.slow
def test_a_sitemap_that_cannot_be_read_is_told_with_its_reason(tmp_path: Path) -> None:
    """One that is missing, one that is cut off in its packing; the pages of the others come in."""
    import gzip

    with site() as server:
        maps = [f"{server.url}/{name}" for name in ("gone.xml", "cut.xml.gz", "s.xml.gz")]
        index = "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in maps)
        server.pages["/sitemap.xml"] = ("text/xml", f"<sitemapindex>{index}</sitemapindex>".encode())
        server.pages["/cut.xml.gz"] = ("application/gzip", gzip.compress(b"<urlset>" + bytes(range(256)) * 40)[:-20])
        told: list[tuple[int, int]] = []
        config = _config(server, tmp_path / "c", "/sitemap.xml", prefix=f"{server.url}/docs/", max_depth=0)
        crawl(config, lambda done, known: told.append((done, known)))
        intake = Intake(tmp_path / "corpus")
        take_pages(intake, config)
        report = intake.finish("site", language="en")
        assert sorted(report.added) == ["a", "deep"]
        assert "the sitemap: HTTP 404" in report.skipped[maps[0]]
        assert "the sitemap: " in report.skipped[maps[1]]
        assert maps[2] not in report.skipped
        assert all(done >= 0 and known >= done for done, known in told)


@pytest.mark.slow
def test_private_addresses_are_refused(tmp_path: Path) -> None:
    """Neither a number, in whatever notation, nor a name that resolves to this machine is asked."""
    from scrapy import Request
    from scrapy.exceptions import IgnoreRequest

    from data_prep.crawling.resolving import PrivateAddressMiddleware

    for url in ("http://127.0.0.1/", "http://[::1]/", "http://[::ffff:10.0.0.1]/", "http://169.254.169.254/latest"):
        with pytest.raises(IgnoreRequest, match="private"):
            PrivateAddressMiddleware().process_request(Request(url))
    with site() as server:
        port = server.url.rsplit(":", 1)[1]
        for place, host in enumerate(("2130706433", "localhost")):
            config = CrawlConfig(f"http://{host}:{port}/docs/", tmp_path / str(place), delay=0.0)
            crawl(config)
            with Frontier(config.folder) as frontier:
                row = next(frontier.rows())
                assert row.state == "skipped"
                assert "private" in (row.reason or "")
        assert not server.asked


@pytest.mark.slow
def test_a_redirect_to_a_private_address_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that may be asked sends on to one that may not: the second is refused, and not asked.

    In the process that crawls, 127.0.0.1 alone is made to count as public.
    """
    try:
        socket.create_server(("127.0.0.2", 0)).close()
    except OSError:
        pytest.skip("127.0.0.2 is no address of this machine")
    code = "from data_prep.crawling import process, resolving; resolving.is_public = lambda at: at == '127.0.0.1'; "
    with site() as server, site("127.0.0.2") as inner:
        target = f"{inner.url}/docs/a.html"
        monkeypatch.setitem(site_server.MOVED, "/docs/go.html", target)
        config = CrawlConfig(f"{server.url}/docs/go.html", tmp_path / "crawl", delay=0.0)
        command = [sys.executable, "-c", code + "raise SystemExit(process.main())"]
        subprocess.run(command, input=config.to_json() + "\n", text=True, check=True, capture_output=True)
        with Frontier(config.folder) as frontier:
            row = frontier.row(target)
            assert row is not None
            assert (row.state, "private" in (row.reason or "")) == ("skipped", True)
        assert server.asked["/docs/go.html"] == 1
        assert not inner.asked


@pytest.mark.slow
def test_a_proxy_of_the_environment_is_no_way_round_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `http_proxy` set a private name is refused as well, and the proxy is not asked for it."""
    with site() as proxy, site() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        url = f"http://localhost:{server.url.rsplit(':', 1)[1]}/docs/a.html"
        config = CrawlConfig(url, tmp_path / "crawl", delay=0.0)
        crawl(config)
        with Frontier(config.folder) as frontier:
            assert [(row.state, "private" in (row.reason or "")) for row in frontier.rows()] == [("skipped", True)]
        assert not proxy.asked
        assert not server.asked


@pytest.mark.slow
def test_a_site_of_ipv6_is_fetched_if_private_addresses_are_allowed(tmp_path: Path) -> None:
    """A server on ::1 is crawled with `allow_private`, and not asked without."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with site("::1") as server:
        config = CrawlConfig(f"{server.url}/docs/deep.html", tmp_path / "refused", delay=0.0)
        crawl(config)
        with Frontier(config.folder) as frontier:
            assert [(row.state, "private" in (row.reason or "")) for row in frontier.rows()] == [("skipped", True)]
        assert not server.asked
        config = _config(server, tmp_path / "taken", "/docs/deep.html", max_pages=1)
        crawl(config)
        with Frontier(config.folder) as frontier:
            assert frontier.counts()["page", "done"] == 1


@pytest.mark.parametrize(
    ("hosts", "left"),
    [
        (["10.0.0.1", "fd00::1", "::1"], []),
        (["2606:4700:4700::1111", "192.168.0.7"], ["2606:4700:4700::1111"]),
        (["2606:4700:4700::1111", "1.1.1.1"], ["2606:4700:4700::1111", "1.1.1.1"]),
    ],
)
def test_a_name_leads_only_to_public_addresses_of_either_kind(hosts: list[str], left: list[str]) -> None:
    """The addresses that are handed on, from the network and from the cache; a host with no other is noted."""
    from scrapy.resolver import dnscache
    from twisted.internet.address import IPv4Address, IPv6Address

    from data_prep.crawling.resolving import CheckingResolver, refused

    class Names:
        """Stands in for the reactor and for its resolver, at the seam where Twisted asks the system."""

        def __init__(self) -> None:
            self.nameResolver, self.found = self, []

        def resolveHostName(self, receiver, name, *rest):  # noqa: N802 # type: ignore[no-untyped-def]
            """Tell the addresses as Twisted does."""
            receiver.resolutionBegan(None)
            for host in hosts:
                receiver.addressResolved((IPv6Address if ":" in host else IPv4Address)("TCP", host, 80))
            receiver.resolutionComplete()

        def resolutionBegan(self, resolution: object) -> None:  # noqa: N802
            """Begin."""
            self.found = []

        def addressResolved(self, address) -> None:  # noqa: N802 # type: ignore[no-untyped-def]
            """Note an address."""
            self.found.append(address.host)

        def resolutionComplete(self) -> None:  # noqa: N802
            """End."""

    refused.clear()
    names = Names()
    resolver = CheckingResolver(names, 100)
    try:
        for _ in range(2):
            resolver.resolveHostName(names, "made.example", 80)
            assert names.found == left
            assert ("made.example" in refused) == (not left)
    finally:
        dnscache.pop("made.example", None)
        refused.clear()


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2001:4860:4860::8888", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False),
        ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:10.0.0.1", False), ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False), ("no address", False),
    ],
)  # fmt: skip
def test_public_addresses_are_told_from_private_ones(address: str, public: bool) -> None:
    """Also those that an IPv6 address carries inside."""
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("../b.html#part", "https://docs.example/b.html"),
        ("?b=2&a=1", "https://docs.example/a/x.html?a=1&b=2"),
        ("ftp://docs.example/x", None), ("file:///etc/passwd", None), ("javascript:x()", None), ("http://[", None),
        ("https://user:secret@docs.example/", None), ("http://x:99999/", None), ("mailto:x@y", None),
    ],
)  # fmt: skip
def test_links_become_one_form_or_none(link: str, expected: str | None) -> None:
    """Only http and https, without fragment, without credentials."""
    assert clean(link, "https://docs.example/a/x.html") == expected


def test_the_folder_of_the_start_is_the_prefix() -> None:
    """A page's neighbours belong to it, its parents do not; a host given as a number is recognised."""
    assert default_prefix("https://x.example/docs/a.html") == "https://x.example/docs/"
    assert literal_address("http://[::1]:80/") == "::1"
    assert literal_address("http://docs.example/") is None


def test_bodies_are_unpacked_strictly() -> None:
    """A cut or damaged body is no page, nor is one that unpacks beyond the limit."""
    import gzip

    packed = gzip.compress(b"a" * 100_000)
    assert unpacked(packed, "gzip", 200_000) == b"a" * 100_000
    for data, encoding, reason in (
        (packed[:-9], "gzip", "cut off"),
        (b"no", "gzip", "damaged"),
        (b"x", "br", "not asked"),
    ):
        with pytest.raises(DataError, match=reason):
            unpacked(data, encoding, 200_000)
    with pytest.raises(DataError, match="more than"):
        unpacked(packed, "gzip", 50_000)


def test_links_that_a_page_asks_not_to_follow_are_left() -> None:
    """`nofollow` of one link and of the page; a sitemap's entity is not resolved."""
    page = '<html><body><a href="a.html">a</a><a rel="nofollow" href="b.html">b</a>'
    page += '<iframe src="c.html"></iframe></body></html>'
    assert page_links(page, "https://x.example/")[0] == ["https://x.example/a.html", "https://x.example/c.html"]
    marked = page.replace("<html>", '<html><head><meta name="robots" content="noindex, nofollow"></head>')
    assert page_links(marked, "https://x.example/")[0] == []
    bomb = b'<!DOCTYPE x [<!ENTITY a "https://evil.example/">]><urlset><url><loc>&a;</loc></url></urlset>'
    assert sitemap_entries(bomb, 10_000) == ([], [])


def test_what_is_wrong_in_a_configuration_is_said_at_once(tmp_path: Path) -> None:
    """Every fault in one message."""
    with pytest.raises(DataError) as caught:
        CrawlConfig("ftp://x.example", tmp_path, max_pages=0, delay=-1)
    for part in ("no http", "max_pages", "delay"):
        assert part in str(caught.value)
