"""Browser tests are not skipped where a browser is installed."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.comparison_app import browser


def test_a_browser_that_playwright_fetched_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With none on PATH, Playwright's own is taken where it was installed, and none where it was not."""
    own = tmp_path / "chrome"

    @contextmanager
    def playwright():  # type: ignore[no-untyped-def]
        yield SimpleNamespace(chromium=SimpleNamespace(executable_path=str(own)))

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("playwright.sync_api.sync_playwright", playwright)
    assert browser.find_chromium() is None
    own.write_text("")
    assert browser.find_chromium() == str(own)
