"""The app's pages run by Streamlit's AppTest, for tests: opened, read, clicked; and jobs that no process does."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from comparison_app.workspace import Workspace
from tests.small_corpus import write_small_corpus

WEB = Path(__file__).resolve().parents[2] / "comparison_app" / "web"


_AS_THE_APP_DOES = """
import runpy
from comparison_app.web import look
from data_prep.errors import VersusError
try:
    runpy.run_path({page!r})
except VersusError as error:
    look.mend(error)
"""


def opened(page: str, **query: str) -> Any:
    """Open a page with what stands in its address; `app` is the whole app, which opens its first page."""
    from streamlit.testing.v1 import AppTest

    path = str(WEB / f"{page}.py")
    whole = page == "app"
    script = _AS_THE_APP_DOES.format(page=path)
    app = AppTest.from_file(path, default_timeout=300) if whole else AppTest.from_string(script, default_timeout=120)
    for name, value in query.items():
        app.query_params[name] = value
    return app.run()


def html_of(app: Any) -> str:
    """Return all HTML that a page shows."""
    return "\n".join(item.proto.body for item in app.get("html"))


def labelled(elements: Any, label: str) -> Any:
    """Return the one element with this label."""
    (found,) = [item for item in elements if item.label == label]
    return found


def press(app: Any, label: str) -> Any:
    """Click the one button with this label; nothing but what the page says may go wrong."""
    labelled(app.button, label).click().run()
    assert not app.exception, app.exception
    return app


def two_endpoints(path: Path, address: str) -> str:
    """Write an experiment of two arms that an endpoint answers, named one and two; returns its path."""
    arms = "".join(
        f'[[arms]]\nname = "{name}"\nkind = "base"\nmodel = "{name}-model"\nendpoint = "{address}"\n'
        for name in ("one", "two")
    )
    path.write_text(f'name = "two"\ncorpus = "lamp"\n{arms}')
    return str(path)


def lamp_workspace(folder: Path) -> Workspace:
    """Return a workspace with the lamp's manual in it."""
    found = Workspace(folder / "workspace")
    write_small_corpus(found.corpora / "lamp")
    return found


@contextmanager
def pages_of(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give pages the environment that `versus app` gives them; torch stays importable for the tests that follow."""
    import streamlit as st

    monkeypatch.setenv("VERSUS_WORKSPACE", str(workspace.path))
    monkeypatch.setenv("VERSUS_CORPUS", "lamp")
    monkeypatch.setattr("rag.torchfree.block_torch", lambda: False)
    st.cache_resource.clear()
    st.cache_data.clear()
    yield
    st.cache_resource.clear()
    st.cache_data.clear()


@contextmanager
def job_at_work(workspace: Workspace, kind: str, steps: list[dict[str, Any]]) -> Iterator[Path]:
    """Make a job that some process is at, as its held lock tells; yields its folder."""
    folder = workspace.path / "jobs" / f"20260101-000000-{kind}-aaaaaa"
    folder.mkdir(parents=True)
    record: dict[str, Any] = {"id": folder.name, "kind": kind, "title": "the first", "started": "2026-01-01T00:00:00"}
    record["arguments"] = {"name": "first"}
    (folder / "job.json").write_text(json.dumps(record))
    (folder / "running.json").write_text("{}")
    (folder / "progress.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
