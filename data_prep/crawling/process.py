"""The crawl's own process: `python -m data_prep.crawling.process` with the configuration on standard input.

A process of its own, because Scrapy runs once in a process, and because a crawl may then be killed without harm to
whoever asked for it. Standard output carries one JSON object a line: `{"pages", "waiting"}`, or `{"error"}`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from data_prep.crawl import CrawlConfig
from data_prep.crawling.frontier import Frontier
from data_prep.errors import DataError


def settings(config: CrawlConfig) -> dict[str, Any]:
    """Return Scrapy's settings for a crawl; what is unsafe or loud by default is set otherwise."""
    guards: dict[str, Any] = {"TWISTED_DNS_RESOLVER": "scrapy.resolver.CachingHostnameResolver"}
    if not config.allow_private:
        guards = {
            "TWISTED_DNS_RESOLVER": "data_prep.crawling.resolving.CheckingResolver",
            "DOWNLOADER_MIDDLEWARES": {"data_prep.crawling.resolving.PrivateAddressMiddleware": 50},
            "HTTPPROXY_ENABLED": False,
        }
    return {
        "USER_AGENT": config.user_agent,
        "ROBOTSTXT_OBEY": True,
        "ROBOTSTXT_USER_AGENT": config.robot_name,
        "DOWNLOAD_DELAY": config.delay,
        "RANDOMIZE_DOWNLOAD_DELAY": False,
        "AUTOTHROTTLE_ENABLED": config.delay > 0,
        "AUTOTHROTTLE_START_DELAY": config.delay,
        "CONCURRENT_REQUESTS": config.concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": config.concurrency,
        "DOWNLOAD_TIMEOUT": config.timeout,
        "DOWNLOAD_MAXSIZE": config.max_bytes,
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_HANDLERS": {"file": None, "ftp": None, "s3": None, "data": None},
        "COMPRESSION_ENABLED": False,
        "COOKIES_ENABLED": False,
        "RETRY_ENABLED": False,
        "METAREFRESH_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        "REFERER_ENABLED": False,
        "LOG_LEVEL": "ERROR",
        **guards,
    }


def main() -> int:
    """Run the crawl; returns 1 if it could not."""
    import fcntl

    config = CrawlConfig.from_json(sys.stdin.readline())
    config.folder.mkdir(parents=True, exist_ok=True)
    with (config.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return _fail(f"another crawl into {config.folder} is under way")
        try:
            with Frontier(config.folder) as frontier:
                _run(config, frontier)
        except DataError as error:
            return _fail(str(error))
    return 0


def _run(config: CrawlConfig, frontier: Frontier) -> None:
    from scrapy.crawler import CrawlerProcess

    from data_prep.crawling.addresses import default_prefix, site_root
    from data_prep.crawling.spider import FrontierSpider

    frontier.begin()
    if frontier.fact("prefix") is None or config.prefix is not None:
        frontier.note("prefix", config.prefix or (site_root if config.is_sitemap else default_prefix)(config.start))
    frontier.add([(config.start, "sitemap" if config.is_sitemap else "page", 0)])
    process = CrawlerProcess(settings(config))
    process.crawl(FrontierSpider, config=config, frontier=frontier, tell=_tell)
    process.start()


def _tell(pages: int, waiting: int) -> None:
    sys.stdout.write(json.dumps({"pages": pages, "waiting": waiting}) + "\n")
    sys.stdout.flush()


def _fail(message: str) -> int:
    sys.stdout.write(json.dumps({"error": message}) + "\n")
    sys.stdout.flush()
    return 1


if __name__ == "__main__":
    sys.exit(main())
