"""A manual crawled over a kill, memory over many pages, and PDF pages a second: figures of real files.

    python benchmarks/crawling.py crawl FOLDER [--start index.html] [--kill-after 60]
    VERSUS_BENCH_DATA=… python benchmarks/crawling.py memory [--pages 800]
    python benchmarks/crawling.py pdf FILE...

`crawl` serves FOLDER (the HTML of a documentation package, say) on this machine, kills the crawl's process with
SIGKILL after so many requests, crawls again, and counts what is done, lost and asked for twice. `memory` puts the pages
of the data set `webpages` through the guarded process, which is not renewed meanwhile. `pdf` takes CPU time.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from data_prep.convert import Source
from data_prep.converting import guarded
from data_prep.converting.pdf import convert_pdf
from data_prep.crawl import CrawlConfig, crawl, take_pages
from data_prep.crawling.frontier import Frontier
from data_prep.errors import DataError
from data_prep.intake import Intake


def main(argv: Sequence[str] | None = None) -> int:
    """Run one part; returns 1 if its data is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    crawled = parts.add_parser("crawl")
    crawled.add_argument("folder", type=Path)
    crawled.add_argument("--start", default="index.html")
    crawled.add_argument("--kill-after", type=int, default=60)
    parts.add_parser("memory").add_argument("--pages", type=int, default=800)
    parts.add_parser("pdf").add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(argv)
    if options.part == "crawl":
        print(killed_crawl(options.folder, options.start, options.kill_after))
    elif options.part == "pdf":
        for path in options.files:
            print(pdf_speed(path))
    elif not os.environ.get("VERSUS_BENCH_DATA"):
        print("set VERSUS_BENCH_DATA to the folder that holds the benchmarks' data sets", file=sys.stderr)
        return 1
    else:
        for row in memory_rows(Path(os.environ["VERSUS_BENCH_DATA"]) / "webpages", options.pages):
            print(row)
    return 0


class _Handler(SimpleHTTPRequestHandler):
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def killed_crawl(folder: Path, start: str, kill_after: int) -> dict[str, object]:
    """Crawl, kill after so many requests, crawl again; returns what was done, skipped, asked twice and taken."""
    with served(folder) as url, tempfile.TemporaryDirectory() as work:
        config = CrawlConfig(f"{url}/{start}", Path(work) / "crawl", delay=0.0, allow_private=True)
        killed_at = _kill(config, kill_after)
        begun = time.perf_counter()
        crawl(config)
        seconds = time.perf_counter() - begun
        intake = Intake(Path(work) / "corpus")
        take_pages(intake, config)
        with Frontier(config.folder) as frontier:
            counts = {" ".join(kind): count for kind, count in frontier.counts().items()}
            twice = sum(count > 1 for count in frontier.requests().values())
        return {
            "requests when killed": killed_at,
            "addresses": counts,
            "asked twice": twice,
            "documents": len(intake.report.added),
            "passed over": len(intake.report.skipped),
            "second run, s": round(seconds, 1),
        }


def _kill(config: CrawlConfig, requests: int) -> int:
    command = [sys.executable, "-m", "data_prep.crawling.process"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    if process.stdin is None:
        raise RuntimeError("the process has no standard input")
    process.stdin.write(config.to_json() + "\n")
    process.stdin.flush()
    while process.poll() is None and _Handler.asked.total() < requests:
        time.sleep(0.01)
    asked = _Handler.asked.total()
    process.send_signal(signal.SIGKILL)
    process.wait()
    return asked


def memory_rows(folder: Path, pages: int) -> Iterator[dict[str, int]]:
    """Yield the resident memory of both processes, in MB, after every fifth of the pages."""
    paths = sorted(folder.glob("*/html/*.html"))
    guarded.FILES_A_PROCESS = pages + 1
    with guarded.GuardedConverter() as converter:
        refused = 0
        for number in range(1, pages + 1):
            try:
                converter.convert(paths[number % len(paths)], Source("html", "page"))
            except DataError:
                refused += 1
            if number % max(pages // 5, 1) == 0:
                here, there = resident(os.getpid()), resident(converter.process_id or os.getpid())
                yield {"pages": number, "refused": refused, "caller, MB": here, "converter, MB": there}


def resident(process: int) -> int:
    """Return the resident memory of a process in MB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


def pdf_speed(path: Path) -> dict[str, object]:
    """Return the pages of a PDF and how many of them are converted in a second of CPU time."""
    data = path.read_bytes()
    begun = time.process_time()
    pages = len(convert_pdf(data, path.stem).pages or ())
    return {"file": path.name, "pages": pages, "pages_per_s": round(pages / (time.process_time() - begun), 1)}


if __name__ == "__main__":
    sys.exit(main())
