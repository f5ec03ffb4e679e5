"""The app in a real browser, as people use it: one app and one Chromium serve all checks.

A picture of every page is kept in `.artifacts/screenshots`, or in the folder that VERSUS_SCREENSHOTS names.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data_prep.corpus import load_corpus
from data_prep.drafts import Draft, drafts_path, write_drafts
from data_prep.questions import Evidence
from tests.comparison_app.browser import CHROMIUM, keep_picture, running_app, slow_model
from tests.small_corpus import write_small_corpus

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    pytest.mark.timeout(900),
]
SLOW_WORDS = "The lamp wants four hours of patience before it gives any light at all to its reader tonight"
HOSTILE = "<script>window.pwned=1</script><img src=x onerror=window.pwned=2> [x](javascript:window.pwned=3) $5 :red[x]"
PICTURE = "![x](https://evil.example/a.png)"
"""Markdown that makes a browser ask another host, wherever it is not taken as text."""
PAGES = ("", "vote", "chat", "documents", "train", "compare")
CUT_OFF = """[...document.querySelectorAll('[data-testid=stButtonGroup] *, [data-testid=stBaseButton-tertiary] *')]
    .filter(item => getComputedStyle(item).overflowX !== 'visible' && item.scrollWidth > item.clientWidth + 1)
    .map(item => item.innerText)"""
"""Words of choices and suggestions that are cut off or have to be scrolled to."""
LONG = 120_000
"""Milliseconds to wait for what takes a second on a quiet machine."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the app's workspace."""
    return tmp_path_factory.mktemp("app") / "workspace"


@pytest.fixture(scope="module")
def app(workspace: Path) -> Iterator[str]:
    """An app over the lamp's manual, one page of which is hostile, with a quick, a slow and a broken arm."""
    folder = workspace.parent
    lamp = write_small_corpus(workspace / "corpora" / "lamp")
    text = f"# Hostile page\n\nThe hostile gadget weighs 77 grams. {HOSTILE} {PICTURE}\n"
    (lamp / "documents" / "hostile.md").write_text(text)
    tests = lamp / "questions" / "test.jsonl"
    tests.write_text(tests.read_text().replace('"question": "', f'"question": "{PICTURE} '))
    with slow_model(SLOW_WORDS, 0.8) as address:
        experiment = folder / "arms.toml"
        experiment.write_text(
            'name = "arms"\ncorpus = "lamp"\n'
            '[[arms]]\nname = "quotes"\nkind = "rag-extractive"\n'
            f'[[arms]]\nname = "slow"\nkind = "base"\nmodel = "m"\nendpoint = "{address}"\n'
            f'[[arms]]\nname = "broken"\nkind = "base"\nmodel = "m"\nendpoint = "{address}"\napi_key_env = "NO_KEY"\n'
            '[[arms]]\nname = "quotes-2"\nkind = "rag-extractive"\n[arms.rag]\ntop_k = 2\n'
        )
        options = ("--corpus", "lamp", "--experiment", str(experiment))
        with running_app(workspace, folder / "app.log", *options) as url:
            yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all checks."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser, app: str) -> Iterator[BrowserContext]:
    """A visitor of his own; nothing he opens may ask anything of another host."""
    visitor = browser.new_context(viewport={"width": 1280, "height": 900})
    visitor.set_default_timeout(LONG)
    asked: list[str] = []
    visitor.on("request", lambda request: asked.append(request.url))
    yield visitor
    assert not [url for url in asked if not url.startswith((app, app.replace("http", "ws"), "data:", "blob:"))]
    visitor.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page of that visitor."""
    return context.new_page()


def _card(page: Page, arm: str) -> str:
    return page.locator("article.v-card", has=page.locator("h3", has_text=re.compile(rf"^{arm}\b(?!-)"))).inner_text()


def _until(page: Page, text: str | re.Pattern[str]) -> None:
    from playwright.sync_api import Error

    try:
        page.get_by_text(text).first.wait_for(timeout=LONG)
    except Error as error:
        raise AssertionError(
            f"{text} never stood on the page:\n{page.locator('[data-testid=stMain]').inner_text()[-2000:]}"
        ) from error


def test_asked_side_by_side_while_one_arm_is_slow_and_one_is_broken(page: Page, app: str) -> None:
    """The quick arm has answered and the broken one has failed while the slow one writes; a reload finds all again."""
    page.goto(f"{app}/?arms=quotes,slow,broken")
    page.get_by_label("Question", exact=True).wait_for()
    keep_picture(page, "ask-empty")
    page.get_by_label("Question", exact=True).fill("How long must the lamp charge before its first use?")
    page.get_by_label("Question", exact=True).press("Enter")
    _until(page, re.compile("hours of patience"))
    assert "tonight" not in _card(page, "slow")
    _until(page, re.compile("Charge the lamp for 4 hours"))
    _until(page, re.compile("NO_KEY is not set"))
    page.reload()
    _until(page, re.compile("Charge the lamp for 4 hours"))
    assert "a=" in page.url
    _until(page, re.compile("reader tonight"))
    summary = page.locator("article.v-card summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert "4 hours" in page.locator(".v-passage mark").first.inner_text()
    keep_picture(page, "ask")
    page.emulate_media(color_scheme="dark")
    page.reload()
    _until(page, re.compile("reader tonight"))
    keep_picture(page, "ask-dark")


def test_stopped_and_asked_again(page: Page, app: str) -> None:
    """Escape stops the slow arm at once; the next question is answered."""
    page.goto(f"{app}/?arms=slow&q=Why%20is%20it%20dark%3F")
    _until(page, re.compile("wants four"))
    page.locator(".st-key-stop button").wait_for()
    page.wait_for_timeout(500)  # a shortcut is bound after its button is drawn
    page.keyboard.press("Escape")
    _until(page, "Stopped here.")
    assert "tonight" not in _card(page, "slow")
    page.goto(f"{app}/?arms=quotes&q=How%20many%20brightness%20levels%20does%20the%20lamp%20have%3F")
    _until(page, re.compile("5 brightness levels"))


def test_a_vote_is_cast_blind_and_moves_the_leaderboard(page: Page, app: str) -> None:
    """No name is shown before the vote; a double click is one vote."""
    page.goto(f"{app}/vote")
    page.get_by_label("Question", exact=True).fill("What do I clean the shade with?")
    page.get_by_label("Question", exact=True).press("Enter")
    button = page.get_by_role("button", name="A is better")
    button.wait_for()
    shown = page.locator("[data-testid=stMain]").inner_text()
    assert not re.search(r"quotes|slow|broken", shown)
    keep_picture(page, "vote")
    button.dblclick()
    _until(page, re.compile("Your vote"))
    assert re.search(r"quotes|slow|broken", page.locator("[data-testid=stMain]").inner_text())
    keep_picture(page, "vote-revealed")
    page.goto(f"{app}/vote?tab=Leaderboard")
    _until(page, "votes still needed")
    assert page.locator(".v-table").first.locator("tr").count() == 3
    assert page.locator(".v-table").first.locator("tr").nth(1).locator("td").nth(3).inner_text() == "1"
    keep_picture(page, "leaderboard")


def test_a_ballot_survives_a_reload(page: Page, app: str) -> None:
    """Question and answers stand where they stood, still masked, and can be voted on."""
    page.goto(f"{app}/vote")
    page.get_by_label("Question", exact=True).fill("How long does the warranty last?")
    page.get_by_label("Question", exact=True).press("Enter")
    page.get_by_role("button", name="Both bad").wait_for()
    before = page.locator("article.v-card").all_inner_texts()
    page.reload()
    page.get_by_role("button", name="Both bad").wait_for()
    assert page.locator("article.v-card").all_inner_texts() == before
    assert page.get_by_role("heading", name="How long does the warranty last?").count() == 1
    page.get_by_role("button", name="Both bad").click()
    _until(page, re.compile("Your vote"))


def test_a_conversation_survives_a_reload_in_the_middle_of_a_reply(page: Page, app: str) -> None:
    """What was said stands there once, and the reply goes on to its end."""
    page.goto(f"{app}/chat")
    page.locator("[data-testid=stChatInput] textarea").fill("Does it glow?")
    page.keyboard.press("Enter")
    _until(page, re.compile("hours of patience"))
    page.reload()
    _until(page, re.compile("reader tonight"))
    page.locator("[data-testid=stChatMessage]").nth(1).wait_for()
    assert page.get_by_text("Does it glow?").count() == 1
    assert page.get_by_text(re.compile("reader tonight")).count() == 1
    keep_picture(page, "chat")


def test_an_uploaded_document_is_indexed_and_answers(page: Page, app: str) -> None:
    """A zip is dropped in, the index follows by itself, and a question about it is answered."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("guide/remote.md", "# Remote control\n\nThe remote control reaches 9 metres through open air.\n")
        files.writestr("guide/bad.exe", "MZ")
    page.goto(f"{app}/documents?tab=Add")
    upload = {"name": "guide.zip", "mimeType": "application/zip", "buffer": archive.getvalue()}
    page.locator("input[type=file]").set_input_files(upload)
    _until(page, "guide.zip")
    page.get_by_role("button", name="Add the files").click()
    _until(page, re.compile("1 added"))
    _until(page, re.compile("passage embedded"))
    keep_picture(page, "documents-add")
    page.goto(f"{app}/?arms=quotes&q=How%20far%20does%20the%20remote%20control%20reach%3F")
    _until(page, re.compile("reaches 9 metres"))


def test_every_view_of_the_documents_is_drawn(page: Page, app: str, workspace: Path) -> None:
    """A document, what was found for a query with its scores, the index brought up to date, a draft to decide on."""
    corpus = load_corpus(workspace / "corpora" / "lamp")
    start = (corpus.path / "documents" / "cleaning.md").read_text().index("Wipe the shade")
    evidence = (Evidence("cleaning", start, start + 34),)
    drafts = [Draft("d1", "cleaning", ("What cleans the shade?",), answers=("A damp cloth.",), evidence=evidence)]
    write_drafts(drafts_path(corpus.path), drafts)
    for view, seen in (
        ("document=cleaning", "damp cloth"),
        ("tab=Search&query=How%20long%20is%20the%20warranty%3F", "3 years"),
        ("tab=Review", "A damp cloth."),
        ("tab=Index", "Only what changed is embedded"),
    ):
        page.goto(f"{app}/documents?{view}")
        _until(page, re.compile(re.escape(seen)))
        if "Index" in view:
            page.get_by_role("button", name="Bring the index up to date").click()
            _until(page, re.compile("0 documents added"))
        name = re.search(r"tab=(\w+)", view)
        keep_picture(page, f"documents-{name[1].lower() if name else 'read'}")


def test_an_upload_of_200_mb_is_refused_in_the_browser(page: Page, app: str, tmp_path: Path) -> None:
    """It is not sent; the limit is said."""
    with (tmp_path / "huge.md").open("wb") as file:
        file.truncate(200_000_000)
    page.goto(f"{app}/documents?tab=Add")
    page.locator("input[type=file]").set_input_files(tmp_path / "huge.md")
    _until(page, re.compile(r"50\.?0? ?MB or smaller"))


def test_no_script_of_a_document_a_question_or_an_answer_runs(page: Page, app: str) -> None:
    """Hostile text is shown as text: asked, quoted, suggested, read, searched; no other host is asked anything."""
    from urllib.parse import quote

    for place, seen in (
        (f"?arms=quotes,quotes-2&q={quote('What does the hostile gadget weigh? ' + HOSTILE)}", "77 grams"),
        ("?arms=quotes", r"!\[x\]\(https:.?//evil"),
        ("documents?document=hostile", "Hostile page"),
        ("documents?tab=Search&query=hostile%20gadget", "77 grams"),
    ):
        page.goto(f"{app}/{place}")
        _until(page, re.compile(seen))
        page.wait_for_timeout(300)
        assert page.evaluate("window.pwned") is None, place
        assert page.locator("a[href^=javascript]").count() == 0
        assert page.locator("[data-testid=stMain] script, [data-testid=stMain] img[src=x]").count() == 0


def test_a_small_training_is_started_watched_and_stopped(page: Page, app: str) -> None:
    """A double click starts one; steps and loss appear, stop ends it, and resumed it goes on."""
    page.goto(f"{app}/train")
    page.get_by_role("button", name="Start training").dblclick()
    _until(page, re.compile(r"Step \d+ of"))
    keep_picture(page, "train")
    page.locator(".st-key-stop-training button").click()
    _until(page, re.compile("lamp-pocket-live: stopped"))
    page.get_by_text("lamp-pocket-live: stopped").click()
    assert page.get_by_text(re.compile("lamp-pocket-live: ")).count() == 1
    page.locator(".stApp[data-test-script-state=notRunning]").wait_for()
    page.get_by_role("button", name="Resume").click()
    _until(page, re.compile(r"Step \d+ of"))
    page.locator(".st-key-stop-training button").click()
    page.get_by_text(re.compile("lamp-pocket-live: stopped")).nth(1).wait_for()


def test_a_small_comparison_is_run_and_its_report_opened(page: Page, app: str, workspace: Path) -> None:
    """Two arms that quote; the report, the questions and their filters, and what changed since an earlier run."""
    page.goto(f"{app}/compare?tab=New%20comparison")
    page.get_by_role("button", name="Start the comparison").wait_for()
    keep_picture(page, "compare-form")
    for arm in ("slow", "broken"):
        page.get_by_role("button", name=arm, exact=True).click()
    page.get_by_role("button", name="quotes-2", exact=True).click()
    page.get_by_role("button", name="Start the comparison").dblclick()
    page.get_by_role("button", name="Stop").wait_for()
    keep_picture(page, "compare-running")
    _until(page, re.compile("Mean token_f1 by slice"))
    assert "run=lamp-check" in page.url
    page.frame_locator("iframe").get_by_text(re.compile("quotes-2")).first.wait_for()
    keep_picture(page, "compare")
    page.goto(f"{page.url.split('?')[0]}?tab=Questions")
    _until(page, re.compile(r"of \d+ questions"))
    page.locator("[data-testid=stExpander] summary").first.click()
    _until(page, re.compile("Expected:"))
    keep_picture(page, "questions")
    run = next((workspace / "runs").glob("lamp-check-*"))
    _run_that_knew_nothing(run, run.with_name("lamp-before"))
    page.goto(f"{app}/compare?tab=Against%20another%20run&run={run.name}&against=lamp-before")
    _until(page, re.compile("paired by question"))
    changes = page.locator(".v-table").first.inner_text()
    assert "quotes-2" in changes and re.search(r"\+\d", changes)
    keep_picture(page, "against")


def _run_that_knew_nothing(run: Path, copy: Path) -> None:
    """Copy a run, with answers that are wrong."""
    shutil.copytree(run, copy)
    said = [json.loads(line) | {"answer": "No idea."} for line in (run / "predictions.jsonl").read_text().splitlines()]
    (copy / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))


def test_every_page_fits_a_phone_and_the_dark(browser: Browser, app: str) -> None:
    """At 400 pixels nothing scrolls sideways; with a dark system the page is dark."""
    visitor = browser.new_context(viewport={"width": 400, "height": 850}, color_scheme="dark")
    visitor.set_default_timeout(LONG)
    phone = visitor.new_page()
    for name in PAGES:
        phone.goto(f"{app}/{name}")
        phone.locator("h1").first.wait_for()
        phone.wait_for_timeout(700)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 400, name
        assert not phone.evaluate(CUT_OFF), name
        colour = phone.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        assert max(map(int, re.findall(r"\d+", colour)[:3])) < 80, (name, colour)
        keep_picture(phone, f"phone-{name or 'ask'}")
    phone.goto(f"{app}/?arms=quotes,broken&q=How%20many%20brightness%20levels%20does%20the%20lamp%20have%3F")
    phone.locator("article.v-card summary").first.click()
    phone.locator(".v-passage mark").first.wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 400
    keep_picture(phone, "phone-ask-answered")
    visitor.close()


def test_two_sessions_do_not_see_each_other(browser: Browser, app: str) -> None:
    """Both ask at once, each has his own answer; neither finds the other's question, ballot or talk."""
    visitors = [browser.new_context(), browser.new_context()]
    pages = [visitor.new_page() for visitor in visitors]
    questions = ("How long does the warranty of the lamp last?", "What do I clean the shade with?")
    for page, question in zip(pages, questions, strict=True):
        page.set_default_timeout(LONG)
        page.goto(f"{app}/?arms=quotes")
        page.get_by_label("Question", exact=True).fill(question)
    for page in pages:
        page.get_by_label("Question", exact=True).press("Enter")
    _until(pages[0], re.compile("lasts 3 years"))
    _until(pages[1], re.compile("damp cloth"))
    assert "damp cloth" not in _card(pages[0], "quotes")
    fresh = visitors[1].new_page()
    fresh.set_default_timeout(LONG)
    fresh.goto(app)
    fresh.get_by_label("Question", exact=True).wait_for()
    assert fresh.get_by_label("Question", exact=True).input_value() == ""
    for visitor in visitors:
        visitor.close()
