"""The report: complete, self-contained, escaped, and readable in a real browser."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from comparison_app.costs import SetupTimes
from comparison_app.evaluation import Evaluation, evaluate
from comparison_app.predictions import CheckedSentence, LinkedPicture, Prediction
from comparison_app.report import render_csv, render_html, render_markdown, write_report
from comparison_app.report.examples import LONGEST, disagreements
from comparison_app.summary import summarise
from data_prep.corpus import Corpus, ManifestEntry
from tests.comparison_app.browser import CHROMIUM, keep_picture
from tests.comparison_app.synthetic import (
    bag_of_words,
    made_arms,
    made_documents,
    made_experiment,
    made_predictions,
    made_questions,
    made_texts,
    with_answers,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DOCUMENTS = made_documents()
QUESTIONS = made_questions(DOCUMENTS)
PREDICTIONS = made_predictions(made_arms(DOCUMENTS), QUESTIONS)


def _evaluate(predictions: list[Prediction]) -> Evaluation:
    return evaluate(made_experiment(), QUESTIONS, predictions, made_texts(DOCUMENTS))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """The made-up run, evaluated once."""
    return evaluate(made_experiment(), QUESTIONS, PREDICTIONS, made_texts(DOCUMENTS), bag_of_words)


@pytest.fixture(scope="module")
def html(evaluation: Evaluation) -> str:
    """Its page."""
    setup = {"finetuned": SetupTimes(150.0), "rag": SetupTimes(None, 9.0, 0.8, 8)}
    return render_html(evaluation, summarise("run-1", evaluation, {"started": "2030-01-02T03:04:05"}, setup))


class _Outline(HTMLParser):
    """Collects what a check needs: tags, attributes, links inside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def _tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    outline = _Outline()
    outline.feed(html)
    return outline.tags


def test_the_page_holds_every_section_arm_and_figure(html: str, evaluation: Evaluation) -> None:
    """Verdict, scores, pairs, cost, examples, refusals, retrieval, provenance."""
    anchors = {attrs["id"] for _, attrs in _tags(html) if attrs.get("id")}
    assert {"verdict", "scores", "pairs", "cost", "examples", "refusals", "retrieval", "provenance"} <= anchors
    links = {(attrs.get("href") or "") for tag, attrs in _tags(html) if tag == "a"}
    assert links and all(link.startswith("#") and link[1:] in anchors for link in links)
    assert html.count('class="chart"') == 1 + 6 + 2
    assert html.count('class="bar"') == len(evaluation.experiment.comparisons)
    assert "2.5 min" in html and "2030-01-02" in html
    assert "ConnectionError: the endpoint closed the connection &lt;b&gt;early&lt;/b&gt;" in html


def test_the_page_loads_nothing_and_runs_nothing(html: str) -> None:
    """No script, no address, no outside style, and a policy that forbids them."""
    names = {tag for tag, _ in _tags(html)}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html


def test_drawings_and_tables_can_be_read_aloud(html: str) -> None:
    """Every drawing has a title and a description in words; every table header a scope; headings do not skip."""
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert all("<title>" in item and "<desc>" in item and 'role="img"' in item for item in drawings)
    assert "<desc>base " in drawings[0]
    assert all(attrs.get("scope") for tag, attrs in _tags(html) if tag == "th")
    levels = [int(tag[1]) for tag, _ in _tags(html) if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">"&\'</style></svg>{{ 7 * 7 }}'


@pytest.fixture(scope="module")
def hostile_evaluation() -> Evaluation:
    """Arms that answer with scripts, 100 kB, right-to-left overrides, nothing, and control characters."""
    ids = [question.id for question in QUESTIONS if question.slice == "unseen-page"]
    bad = [HOSTILE, "long " * 20_000, "\u202eשלום עולם\u0000\u0007", "", "=cmd|' /C calc'!A1\n|x|"]
    answers = {("finetuned", question_id): bad[place % 5] for place, question_id in enumerate(ids)}
    predictions = with_answers(PREDICTIONS, answers)
    predictions = [replace(p, error=HOSTILE) if p.arm == "base" and p.question_id == ids[0] else p for p in predictions]
    return _evaluate(predictions)


def test_hostile_answers_are_text(hostile_evaluation: Evaluation) -> None:
    """Escaped, cut to a readable length, and without control characters."""
    page = render_html(hostile_evaluation, summarise("run", hostile_evaluation))
    names = {tag for tag, _ in _tags(page)}
    assert not names & {"script", "img"}
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page
    assert "\x00" not in page and "\x07" not in page
    assert "long " * (LONGEST // 5 + 2) not in page
    assert len(page) < 2_000_000


def test_the_questions_table_has_a_row_per_answer_and_runs_no_formula(hostile_evaluation: Evaluation) -> None:
    """A spreadsheet shows the text as text."""
    rows = list(csv.DictReader(io.StringIO(render_csv(hostile_evaluation))))
    assert len(rows) == len(QUESTIONS) * 6
    assert not [row for row in rows if row["answer"].startswith(("=", "+", "-", "@"))]
    assert any(row["answer"].startswith("'=cmd") for row in rows)
    assert {row["error"] for row in rows if row["arm"] == "base"} == {"", HOSTILE}


def test_markdown_has_the_verdict_and_a_row_per_slice_and_pair(evaluation: Evaluation) -> None:
    """Tables keep their columns."""
    around = {"started": "2030-01-02", "code": "abc", "arms": {"rag": {"max_new_tokens": 64, "rag": {"top_k": 5}}}}
    summary = summarise("run", evaluation, around)
    text = render_markdown(evaluation, summary)
    assert summary["verdict"] in text
    counts = summary["arms"]["rag"]["refusals"]
    assert f"| rag | {counts['declined']} | {counts['rightly']} of 34 | {counts['wrongly']} of 170 |" in text
    last = text.split("## Provenance")[1]
    assert "| started | 2030-01-02 |" in last and "| code | abc |" in last
    assert "| arms.rag.max_new_tokens | 64 |" in last
    assert "report.html" in last and "top_k" not in last
    tables = [[line for line in part.split("\n") if line.startswith("|")] for part in text.split("## ")[1:-1]]
    assert "## The judge\n\nNo judge model was asked: every score follows from the texts by rule.\n" in text
    found = [len(table) - 2 for table in tables]
    assert found == [7, len(evaluation.experiment.comparisons), 6, len(evaluation.arms), -2]
    assert all(len({line.count("|") for line in table}) == 1 for table in tables if table)


def test_examples_are_the_largest_differences_both_ways(evaluation: Evaluation) -> None:
    """By rule: no example of a group shows a smaller gap than one left out, and all agreements agree."""
    groups = {group.heading: group.examples for group in disagreements(evaluation)}
    shown = groups["finetuned far better than rag"]
    gaps = [(item.replies[0].credit or 0) - (item.replies[1].credit or 0) for item in shown]
    a, b = evaluation.arms.index("finetuned"), evaluation.arms.index("rag")
    best = sorted(evaluation.credit[:, a] - evaluation.credit[:, b], reverse=True)[: len(gaps)]
    assert sorted(gaps, reverse=True) == [round(100 * gap) for gap in best]
    for item in groups["finetuned-rag and rag alike (drawn at random)"]:
        credits = [reply.credit or 0 for reply in item.replies]
        assert max(credits) - min(credits) <= 6


def test_sources_mark_the_evidence(evaluation: Evaluation) -> None:
    """The marked characters are those of the evidence span."""
    groups = disagreements(evaluation)
    marked = [
        (item.question, str(source.text))
        for group in groups
        for item in group.examples
        for reply in item.replies
        for source in reply.sources
        if "<mark" in source.text and item.question.evidence[0].document == source.document
    ]
    assert marked
    for question, text in marked:
        evidence = question.evidence[0]
        words = DOCUMENTS[evidence.document][evidence.start : evidence.end]
        assert f">{words}</mark>" in text


def test_sources_come_with_place_and_pictures_and_unsupported_sentences_are_marked(tmp_path: Path) -> None:
    """The page of the source, a link to it, its pictures as data; hostile text stays text and nothing is loaded."""
    entries = []
    (tmp_path / "documents").mkdir()
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "assets" / "huge.svg").write_text("<svg>" + " " * 100_000 + "</svg>")
    for name, text in DOCUMENTS.items():
        (tmp_path / "documents" / f"{name}.md").write_text(text)
        entries.append(
            ManifestEntry(name, f"T {name}", "p", source=f"https://a.example/{name}.pdf", page_offsets=(0, 120))
        )
    corpus = Corpus(tmp_path, "made", manifest={entry.id: entry for entry in entries})
    said = "It sings <script>alert(1)</script> at noon."
    changed = [
        replace(
            each,
            answer=said,
            sentences=(CheckedSentence(0, len(said), "unsupported"),),
            pictures=tuple(
                LinkedPicture(each.documents[0].document, 3, f"assets/{file}", f"{file} <i>")
                for file in ("a.svg", "huge.svg")
            ),
        )
        if each.arm == "finetuned-rag" and each.documents
        else each
        for each in PREDICTIONS
    ]
    texts = replace(made_texts(DOCUMENTS), corpus=corpus)
    page = render_html(found := evaluate(made_experiment(), QUESTIONS, changed, texts), summarise("run", found))
    assert '<span class="unsupported">It sings &lt;script&gt;' in page and "<script" not in page
    images = [attrs for tag, attrs in _tags(page) if tag == "img"]
    assert images and all((each["src"] or "").startswith("data:image/svg+xml") for each in images)
    assert {each["alt"] for each in images} == {"a.svg <i>"} and "huge.svg &lt;i&gt;" in page
    links = [attrs for tag, attrs in _tags(page) if tag == "a" and (attrs["href"] or "").startswith("https://")]
    assert links and all("noreferrer" in (each["rel"] or "") for each in links)
    assert re.search(r"T page-\d\d › ?|T page-\d\d, page [12]", page)
    assert re.search(r"https://a.example/page-\d\d.pdf#page=[12]", page)


@pytest.mark.slow
def test_the_report_of_a_large_run_stays_small_and_quick(tmp_path: Path) -> None:
    """2,000 questions and six arms: at most 5 MB."""
    questions = made_questions(DOCUMENTS, per_slice=334)
    predictions = made_predictions(made_arms(DOCUMENTS), questions)
    found = evaluate(made_experiment(), questions, predictions, made_texts(DOCUMENTS))
    started = time.process_time()
    page = write_report(tmp_path, found, summarise("large", found))
    assert time.process_time() - started < 20
    assert page.stat().st_size < 5_000_000
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.md", "questions.csv"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium; the tests that need one are skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


def _open(browser: Browser, path: Path, width: int, scheme: str = "light") -> tuple[Page, list[str]]:
    page = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme).new_page()  # type: ignore[arg-type]
    trouble: list[str] = []
    page.on("request", lambda request: trouble.append(request.url))
    page.on("console", lambda message: trouble.append(message.text))
    page.on("dialog", lambda dialog: trouble.append(dialog.message))
    page.goto(path.as_uri())
    return page, trouble


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_and_asks_for_nothing(
    browser: Browser, tmp_path: Path, hostile_evaluation: Evaluation, width: int
) -> None:
    """No sideways scrolling, no request but the page's own, no dialog, with hostile answers opened."""
    path = write_report(tmp_path, hostile_evaluation, summarise("run", hostile_evaluation))
    page, trouble = _open(browser, path, width)
    for summary in page.query_selector_all("summary"):
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert trouble == [path.as_uri()]


@pytest.mark.slow
def test_light_and_dark_have_contrast(browser: Browser, tmp_path: Path, evaluation: Evaluation) -> None:
    """Text on its ground reaches 4.5 to 1 in both schemes (WCAG 1.4.3)."""
    path = write_report(tmp_path, evaluation, summarise("run", evaluation))
    for scheme in ("light", "dark"):
        page, _ = _open(browser, path, 1280, scheme)
        keep_picture(page, f"report-{scheme}")
        for ink, ground in (
            ("--ink", "--ground"),
            ("--soft", "--ground"),
            ("--soft", "--card"),
            ("--good", "--goodtint"),
        ):
            assert _contrast(page, ink, ground) >= 4.5, (scheme, ink, ground)


def _contrast(page: Page, ink: str, ground: str) -> float:
    """Return the contrast ratio of two style variables."""
    shades = [
        page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{v}')") for v in (ink, ground)
    ]
    lights = sorted(_luminance(shade.strip()) for shade in shades)
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.slow
def test_printed_all_that_is_folded_is_open(browser: Browser, tmp_path: Path, evaluation: Evaluation) -> None:
    """On paper nobody unfolds an example: its answers and sources are there, and the navigation is not."""
    path = tmp_path / "report.html"
    path.write_text(render_html(evaluation, summarise("run", evaluation)), encoding="utf-8")
    page, _ = _open(browser, path, 800)
    shown = "node => node.checkVisibility({contentVisibilityAuto: true}) && node.getBoundingClientRect().height > 0"
    answer, nav = page.locator("details.example dd").first, page.locator("nav").first
    assert not answer.evaluate(shown)
    assert nav.evaluate(shown)
    page.emulate_media(media="print")
    assert answer.evaluate(shown)
    assert page.locator("#provenance details td").first.evaluate(shown)
    assert not nav.evaluate(shown)
