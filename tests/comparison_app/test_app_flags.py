"""What `versus app` and `versus serve` hand to Streamlit and to the pages: where they listen, and who may come in."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from comparison_app.cli import build_parser
from comparison_app.commands import app as command
from comparison_app.errors import ComparisonError
from comparison_app.workspace import Workspace
from tests.comparison_app.browser import running_app


def _arguments(*options: str) -> Namespace:
    return build_parser().parse_args(["app", *options])


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ((), {"server.address=localhost", "server.port=8501", "server.headless=false", "server.baseUrlPath="}),
        (("--host", "0.0.0.0", "--port", "80"), {"server.address=0.0.0.0", "server.port=80"}),
        (("--base-path", "/versus/"), {"server.baseUrlPath=versus"}),
        (("--base-path", "a/b"), {"server.baseUrlPath=a/b"}),
        (("--no-browser",), {"server.headless=true"}),
    ],
)
def test_streamlit_listens_where_it_is_told_and_on_this_machine_alone_by_default(
    options: tuple[str, ...], flags: set[str]
) -> None:
    """No usage is told, uploads are limited and errors show no code, whatever else is set."""
    found = command._flags(_arguments(*options))
    always = {"server.maxUploadSize=50", "browser.gatherUsageStats=false", "client.showErrorDetails=none"}
    assert {f"--{flag}" for flag in flags | always} <= set(found)
    assert len({flag.partition("=")[0] for flag in found}) == len(found)


@pytest.mark.slow
def test_who_never_ran_streamlit_is_asked_nothing(tmp_path: Path) -> None:
    """The first start in a new home comes up; Streamlit would ask for an e-mail address, and wait."""
    log, home = tmp_path / "app.log", tmp_path / "home"
    home.mkdir()
    with running_app(tmp_path / "workspace", log, home=home):
        assert "email" not in log.read_text().lower()


def test_the_endpoint_listens_on_this_machine_alone_by_default() -> None:
    """Other addresses are a choice."""
    assert build_parser().parse_args(["serve"]).host == "127.0.0.1"


def test_only_what_this_start_says_decides_who_may_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password comes from the variable named, and one left from another start is dropped."""
    workspace = Workspace(tmp_path / "workspace")
    monkeypatch.setenv("VERSUS_APP_PASSWORD", "left over")
    monkeypatch.setenv("VERSUS_APP_LOGIN", "1")
    monkeypatch.setenv("MY_SECRET", "open sesame")
    free = command._environment(_arguments(), workspace)
    assert "VERSUS_APP_PASSWORD" not in free and "VERSUS_APP_LOGIN" not in free
    assert free["VERSUS_WORKSPACE"] == str(workspace.path.resolve())
    guarded = command._environment(_arguments("--password-env", "MY_SECRET", "--corpus", "lamp"), workspace)
    assert guarded["VERSUS_APP_PASSWORD"] == "open sesame" and guarded["VERSUS_CORPUS"] == "lamp"
    assert "open sesame" not in " ".join(command._flags(_arguments("--password-env", "MY_SECRET")))


@pytest.mark.parametrize("value", [None, ""])
def test_a_password_that_is_not_set_starts_no_open_app(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a missing nor an empty variable lets everybody in: the app does not start."""
    monkeypatch.delenv("MY_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_SECRET", value)
    with pytest.raises(ComparisonError, match="MY_SECRET is not set"):
        command._environment(_arguments("--password-env", "MY_SECRET"), Workspace(tmp_path))


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ((), False),
        (("--host", "127.0.0.1"), False),
        (("--host", "0.0.0.0"), True),
        (("--host", "0.0.0.0", "--password-env", "MY_SECRET"), False),
    ],
)
def test_an_open_app_is_warned_of(
    options: tuple[str, ...],
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only where others can reach it and nothing is asked of them."""
    started: list[list[str]] = []
    monkeypatch.setenv("MY_SECRET", "open sesame")
    monkeypatch.setattr(command.os, "execve", lambda path, line, environment: started.append(line))
    arguments: Any = _arguments(*options, "--workspace", str(tmp_path), "--no-browser")
    command.run(arguments)
    assert len(started) == 1 and started[0][1:4] == ["-m", "streamlit", "run"]
    assert ("anybody who reaches this address" in " ".join(capsys.readouterr().err.split())) is warned
