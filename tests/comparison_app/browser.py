"""A real browser and a real `versus app` for tests: one process of each serves many checks."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page


def find_chromium() -> str | None:
    """Return a Chromium: the system's, else the one that `playwright install chromium` fetched; None without either."""
    system = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if system:
        return system
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        return None
    try:
        with sync_playwright() as playwright:
            own = playwright.chromium.executable_path
    except Error:
        return None
    return own if Path(own).is_file() else None


CHROMIUM = find_chromium()
if CHROMIUM is None and os.environ.get("VERSUS_NEEDS_BROWSER"):
    raise RuntimeError("VERSUS_NEEDS_BROWSER is set, and no Chromium was found: `playwright install chromium`")


PICTURES = Path(os.environ.get("VERSUS_SCREENSHOTS") or Path(__file__).parents[2] / ".artifacts" / "screenshots")


DRAWN = """!document.querySelector('[data-testid=stSkeleton], [data-stale=true]')
    && document.querySelector('.stApp')?.dataset.testScriptState !== 'running'"""
TALLEST = 4_000
"""Pixels of a page that a picture shows."""


def keep_picture(page: Page, name: str) -> None:
    """Keep a picture of the whole page, scrolled parts included, once nothing on it is still being drawn."""
    page.wait_for_function(DRAWN)
    window = page.viewport_size
    height = page.evaluate("document.querySelector('[data-testid=stMain]')?.scrollHeight ?? 0")
    if window and height > window["height"]:
        page.set_viewport_size({"width": window["width"], "height": min(height, TALLEST)})
        page.wait_for_function(DRAWN)
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
    if window:
        page.set_viewport_size(window)


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def running_app(
    workspace: Path, log: Path, *options: str, path: str = "", port: int = 0, home: Path | None = None
) -> Iterator[str]:
    """Run `versus app` over a workspace; yields its address.

    `path`: the base path among `options`. `port`: where it listens; 0: on a free one. `home`: the home of somebody who
    lets it open a browser, which does nothing here; None: it opens none.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "comparison_app.cli", "app", "--workspace", str(workspace)]
    command += ["--port", str(port), "--host", "127.0.0.1", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if home is None:
        command.append("--no-browser")
    else:
        environment |= {"HOME": str(home), "BROWSER": "true"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
    try:
        _wait_for(f"http://127.0.0.1:{port}/{path + '/' if path else ''}_stcore/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            assert process.poll() is None, log.read_text(errors="replace")
            time.sleep(0.1)
    raise AssertionError(f"the app did not start: {log.read_text(errors='replace')}")


@contextmanager
def slow_model(words: str, pause: float) -> Iterator[str]:
    """Serve an OpenAI-compatible model that streams `words` one by one, `pause` seconds apart; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for word in words.split():
                self._send({"delta": {"content": word + " ", "role": "assistant"}, "index": 0, "finish_reason": None})
                time.sleep(pause)
            self._send({"delta": {}, "index": 0, "finish_reason": "stop"})
            self.wfile.write(b"data: [DONE]\n\n")

        def _send(self, choice: dict[str, object]) -> None:
            chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
