"""The app in a real browser behind a reverse proxy, with hostile text wherever text can come from, and a lost endpoint.

One app serves all checks: it is shown under a path of the proxy, as in production, and may ask no other host anything.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest

from comparison_app.evaluation import evaluate
from comparison_app.predictions import Prediction
from comparison_app.report import write_report
from comparison_app.summary import summarise, write_summary
from tests.comparison_app.browser import CHROMIUM, keep_picture, running_app
from tests.comparison_app.chat_server import chat_server
from tests.comparison_app.synthetic import (
    made_arms,
    made_documents,
    made_experiment,
    made_predictions,
    made_questions,
    made_texts,
)
from tests.small_corpus import write_small_corpus

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.timeout(900),
]
HOSTILE = (
    "<script>window.pwned=1</script><img src=x onerror=window.pwned=2> [x](javascript:window.pwned=3) $5 :red[x] "
    "![x](https://evil.example/a.png)"
)
LONG = 120_000
PATH = "versus"


@contextmanager
def reverse_proxy(port: int) -> Iterator[str]:
    """Show what listens on `port` under /versus of another port, WebSockets included; nothing else is passed on."""
    listening = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def pass_on(visitor: socket.socket) -> None:
        with suppress(OSError):
            first = visitor.recv(65536)
            if not re.match(rb"[A-Z]+ /versus[/? ]", first):
                visitor.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                visitor.close()
                return
            app = socket.create_connection(("127.0.0.1", port))
            app.sendall(first)
            threading.Thread(target=pump, args=(app, visitor), daemon=True).start()
            pump(visitor, app)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=pass_on, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/{PATH}"
    finally:
        listening.close()


def _hostile_run(folder: Path) -> None:
    """Write a finished run in which questions, answers and errors are hostile."""
    documents = made_documents()
    questions = [replace(item, question=f"{item.question} {HOSTILE}") for item in made_questions(documents, 2)]
    arms = made_arms(documents)[:2]
    names = [arm.name for arm in arms]
    declared = [{"name": name, "kind": name} | ({"adapter": "a"} if name == "finetuned" else {}) for name in names]
    said = [replace(item, answer=HOSTILE) for item in made_predictions(arms, questions)]
    said[0] = Prediction(said[0].question_id, said[0].arm, error=HOSTILE)
    experiment = made_experiment(arms=declared, comparisons=[{"a": names[0], "b": names[1]}])
    found = evaluate(experiment, questions, said, made_texts(documents))
    summary = summarise("hostile", found)
    folder.mkdir(parents=True)
    write_report(folder, found, summary)
    write_summary(folder / "summary.json", summary)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The proxy's address of an app with a model that repeats what it is asked and a lost one; what it was sent."""
    folder = tmp_path_factory.mktemp("hostile")
    write_small_corpus(folder / "workspace" / "corpora" / "lamp")
    _hostile_run(folder / "workspace" / "runs" / "hostile")
    with chat_server(lambda text: text) as (address, seen):
        experiment = folder / "arms.toml"
        experiment.write_text(
            'name = "arms"\ncorpus = "lamp"\n'
            f'[[arms]]\nname = "echo"\nkind = "base"\nmodel = "m"\nendpoint = "{address}"\n'
            '[[arms]]\nname = "lost"\nkind = "base"\nmodel = "m"\nendpoint = "http://127.0.0.1:9/v1"\n'
            '[[arms]]\nname = "quotes"\nkind = "rag-extractive"\n'
        )
        options = ("--corpus", "lamp", "--experiment", str(experiment), "--base-path", f"/{PATH}/")
        with (
            running_app(folder / "workspace", folder / "app.log", *options, path=PATH) as url,
            reverse_proxy(urlsplit(url).port or 0) as shown,
        ):
            yield shown, seen


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all checks."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, app: tuple[str, object]) -> Iterator[Page]:
    """A page of a visitor whose browser asked nothing of any host but the proxy."""
    visitor = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    visitor.set_default_timeout(LONG)
    asked: list[str] = []
    visitor.on("request", lambda request: asked.append(request.url))
    yield visitor.new_page()
    visitor.close()
    assert asked
    assert not [url for url in asked if not url.startswith((app[0], "data:", "blob:", "about:"))]


def _harmless(page: Page, place: str) -> None:
    """No script ran, none stands on the page, and no link runs one."""
    page.wait_for_timeout(300)
    for frame in page.frames:
        assert frame.evaluate("window.pwned") is None, place
        assert frame.locator("a[href^='javascript' i], img[src=x], img[src*='evil.example']").count() == 0, place
    assert page.locator("[data-testid=stMain] script").count() == 0, place


def _until(page: Page, text: str) -> None:
    page.get_by_text(re.compile(text)).first.wait_for(timeout=LONG)


def test_a_model_that_answers_with_scripts_and_one_that_is_lost(
    page: Page, app: tuple[str, list[dict[str, Any]]]
) -> None:
    """The echo is text, the lost arm says so, the third answers; all the same after a reload."""
    url, _ = app
    page.goto(f"{url}/?arms=echo,lost,quotes")
    page.get_by_label("Question", exact=True).fill(f"What do I clean the shade with? {HOSTILE}")
    page.get_by_role("button", name="Ask", exact=True).click()
    _until(page, "damp cloth")
    _until(page, "No answer.")
    _until(page, "pwned=1")
    page.locator("article.v-card summary").first.click()
    _harmless(page, "ask")
    page.reload()
    _until(page, "damp cloth")
    _harmless(page, "ask, loaded again")
    keep_picture(page, "ask-hostile")


def test_hostile_words_in_a_vote_and_in_a_talk(page: Page, app: tuple[str, list[dict[str, Any]]]) -> None:
    """They stand there as they were written, in the question, both answers and the latest votes."""
    url, _ = app
    page.goto(f"{url}/vote")
    page.get_by_label("Question", exact=True).fill(HOSTILE)
    page.get_by_label("Question", exact=True).press("Enter")
    page.get_by_role("button", name="Both bad").click()
    _until(page, "Your vote")
    _harmless(page, "vote")
    page.goto(f"{url}/vote?tab=Leaderboard")
    page.get_by_text(re.compile("Latest votes")).click()
    _until(page, "pwned=1")
    _harmless(page, "leaderboard")
    page.goto(f"{url}/chat")
    page.locator("[data-testid=stChatInput] textarea").fill(HOSTILE)
    page.keyboard.press("Enter")
    page.locator("[data-testid=stChatMessage]").nth(1).get_by_text(re.compile("pwned=1")).wait_for()
    _harmless(page, "chat")


def test_a_run_full_of_scripts_is_read_question_by_question(page: Page, app: tuple[str, list[dict[str, Any]]]) -> None:
    """Neither the table of questions nor the report in its frame runs anything."""
    url, _ = app
    page.goto(f"{url}/compare?run=hostile&tab=Questions")
    _until(page, r"of \d+ questions")
    page.locator("[data-testid=stExpander] summary").first.click()
    _until(page, "Expected:")
    _harmless(page, "questions")
    page.goto(f"{url}/compare?run=hostile&tab=Report")
    page.frame_locator("iframe").get_by_text(re.compile("pwned=1")).first.wait_for(state="attached")
    _harmless(page, "report")


def test_the_proxy_passes_nothing_but_its_path(app: tuple[str, object]) -> None:
    """The pages above were all served under it: beside it there is nothing."""
    import urllib.error
    import urllib.request

    beside = app[0].removesuffix(PATH) + quote("_stcore/health")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(beside, timeout=10)
