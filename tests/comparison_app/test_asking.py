"""Several arms asked at once: concurrently, stoppable, with sources as people read them, and to take along."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from comparison_app.asking import LONGEST_QUESTION, Asking, AskingDesk
from comparison_app.cli import build_parser
from comparison_app.errors import ComparisonError
from comparison_app.passages import passages, pictures_of, quoted
from comparison_app.predictions import CheckedSentence, LinkedPicture, Prediction, RetrievedSpan
from comparison_app.sharing import as_csv, as_json, as_markdown
from data_prep.corpus import load_corpus
from data_prep.questions import Question


class _Arm:
    """An arm that says its words, after waiting where it is told to."""

    def __init__(self, name: str, words: Sequence[str], gate: threading.Event | None = None) -> None:
        self.name, self.words, self.gate = name, words, gate

    def answer(self, questions: Sequence[Question]) -> Iterator[Prediction]:
        raise NotImplementedError

    def stream(self, question: Question) -> Iterator[str | Prediction]:
        for number, word in enumerate(self.words):
            if number and self.gate is not None:
                assert self.gate.wait(20)
            yield word
        yield Prediction(question.id, self.name, "".join(self.words), seconds=0.1)


def _failing(name: str) -> _Arm:
    raise ComparisonError(f"arm {name} cannot be built; train it")


def test_a_slow_and_a_failing_arm_do_not_hold_up_the_others() -> None:
    """The quick arm is done and the broken one has failed while the slow one still writes."""
    gate = threading.Event()
    arms = {"quick": _Arm("quick", ["It ", "glows."]), "slow": _Arm("slow", ["One ", "moment."], gate)}
    asking = Asking(Question("q", "What colour?"), ("slow", "broken", "quick"))
    asking.start(lambda name: arms[name] if name in arms else _failing(name))
    for columns in asking.watch(pause=0.01, limit=20):
        states = {column.arm: column.state for column in columns}
        if states == {"slow": "writing", "broken": "failed", "quick": "done"}:
            break
    assert states == {"slow": "writing", "broken": "failed", "quick": "done"}
    gate.set()
    assert asking.wait(20)
    slow, broken, quick = asking.columns
    assert (slow.text, quick.text) == ("One moment.", "It glows.")
    assert broken.prediction and "train it" in (broken.prediction.error or "")


def test_what_comes_while_the_rest_is_drawn_is_drawn_too() -> None:
    """However slow who watches is, the last columns that he sees are those of the end."""
    gate = threading.Event()
    asking = Asking(Question("q", "Why?"), ("slow",)).start(lambda name: _Arm(name, ["First", " second"], gate))
    seen = []
    for columns in asking.watch(pause=0, limit=20):
        seen.append(columns[0].text)
        if columns[0].state == "writing" and not gate.is_set():
            gate.set()  # the arm ends while this is drawn
            assert asking.wait(20)
    assert (seen[-1], asking.columns[0].state) == ("First second", "done")


def test_stopping_keeps_what_was_said_and_drops_what_comes_later() -> None:
    """After the stop the column is stopped at once; the arm's later words change nothing."""
    gate = threading.Event()
    asking = Asking(Question("q", "Why?"), ("slow",)).start(lambda name: _Arm(name, ["First", " second"], gate))
    while asking.columns[0].state != "writing":
        time.sleep(0.01)
    asking.stop()
    assert asking.done
    gate.set()
    time.sleep(0.1)
    assert (asking.columns[0].state, asking.columns[0].text) == ("stopped", "First")


def test_a_double_click_asks_once_but_the_same_may_be_asked_again() -> None:
    """While an answer is under way the same question to the same arms is not new; another is, and so is a later one."""
    gate = threading.Event()
    asking = Asking(Question("q", "What colour?"), ("slow",)).start(lambda _: _Arm("slow", ["One ", "moment."], gate))
    assert asking.is_asking(" What colour? ", ["slow"], None)
    assert not asking.is_asking("What shape?", ["slow"], None)
    assert not asking.is_asking("What colour?", ["slow", "quick"], None)
    assert not asking.is_asking("What colour?", ["slow"], "lamp")
    gate.set()
    assert asking.wait(20)
    assert not asking.is_asking("What colour?", ["slow"], None)


def test_questions_that_cannot_be_asked_are_refused() -> None:
    """Empty, 50,000 characters, no arm, six arms: each with its reason."""
    desk = AskingDesk()
    for text, arms, reason in (
        (" ", ["a"], "empty"),
        ("x" * 50_000, ["a"], f"{LONGEST_QUESTION:,}"),
        ("Why?", [], "0 were chosen"),
        ("Why?", list("abcdef"), "6 were chosen"),
    ):
        with pytest.raises(ComparisonError, match=reason):
            desk.ask(text, arms, "lamp", lambda name: _Arm(name, ["x"]))
    arguments = build_parser().parse_args(["ask", "x" * 50_000])
    with pytest.raises(ComparisonError, match="50,000 characters"):
        arguments.handler(arguments)


def test_an_asking_is_found_again_by_its_id_alone() -> None:
    """A reloaded page finds its answers; another id finds nothing."""
    desk = AskingDesk()
    asking = desk.ask("Why?", ["a", "a"], "lamp", lambda name: _Arm(name, ["So."]))
    assert desk.find(asking.id) is asking
    assert asking.arms == ("a",)
    assert desk.find("another") is None


def test_sources_mark_what_the_answer_says(small_corpus: Path) -> None:
    """The passage names title and section, and the sentence that the answer rests on is marked."""
    corpus = load_corpus(small_corpus)
    text = (small_corpus / "documents" / "battery.md").read_text()
    said = Prediction("q", "a", "It glows amber while it charges.", documents=(RetrievedSpan("battery", 0, len(text)),))
    (passage,) = passages(said, corpus, lambda name: text)
    assert (passage.title, passage.section, passage.where) == ("Battery", "Charging", "Battery › Charging")
    assert (passage.page, passage.link) == (None, None)
    marked = "".join(piece for piece, is_marked in passage.pieces if is_marked)
    assert "glows amber" in marked
    assert "Store the lamp" not in marked
    assert passage.text == text
    assert quoted("The seal keeps out splashes.", "Nothing of that kind.") == []


def test_a_checked_answer_marks_the_spans_that_carry_it_and_no_others(small_corpus: Path) -> None:
    """An unsupported sentence marks nothing, though it is worded as the source is."""
    text = (small_corpus / "documents" / "battery.md").read_text()
    start = text.index("The charging light")
    span = RetrievedSpan("battery", 5, len(text))
    carries = CheckedSentence(0, 4, "supported", (1,), ("battery", start, start + 8))
    said = Prediction("q", "a", "It glows red while it charges.", documents=(span,), sentences=(carries,))
    (passage,) = passages(said, load_corpus(small_corpus), lambda name: text)
    assert [piece for piece, marked in passage.pieces if marked] == ["The char"]
    wrong = replace(said, sentences=(CheckedSentence(0, 30, "unsupported"),))
    (passage,) = passages(wrong, load_corpus(small_corpus), lambda name: text)
    assert not any(marked for _, marked in passage.pieces)


def test_sources_name_the_page_and_the_link_leads_to_the_section(small_corpus: Path) -> None:
    """The place is that of what the answer rests on; an odd anchor cannot break out of the link."""
    text = (small_corpus / "documents" / "battery.md").read_text()
    start = text.index("The charging light")
    (small_corpus / "manifest.json").write_text(
        json.dumps(
            [
                {"id": "battery", "title": "Battery", "path": "documents/battery.md", "source": "https://a.example/m#top",
                 "page_offsets": [0, 3, start + 500], "anchors": [[0, "top"], [start - 2, 'charge "it" <b>']]},
            ]
        )
    )  # fmt: skip
    said = Prediction("q", "a", "It glows amber while it charges.", documents=(RetrievedSpan("battery", 0, len(text)),))
    (passage,) = passages(said, load_corpus(small_corpus), lambda name: text)
    assert (passage.page, passage.where) == (2, "Battery › Charging, page 2")
    assert passage.link == "https://a.example/m#charge%20%22it%22%20%3Cb%3E"


def test_pictures_stand_beside_the_source_of_their_section(small_corpus: Path) -> None:
    """A picture of the section, linked outside what was retrieved, comes with the source of its section."""
    (small_corpus / "assets").mkdir()
    (small_corpus / "assets" / "lamp.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    text = "# Lamp\n\n## Care\n\nWipe it.\n\n## Use\n\nPress it.\n\n![The lamp](../assets/lamp.svg)\n"
    care, use = text.index("Wipe"), text.index("Press")
    spans = (RetrievedSpan("lamp", care, care + 8), RetrievedSpan("lamp", use, use + 9))
    linked = (
        LinkedPicture("lamp", text.index("!["), "assets/lamp.svg", "The lamp"),
        LinkedPicture("lamp", text.index("!["), "https://example.com/x.png", "elsewhere"),
        LinkedPicture("lamp", text.index("!["), "../secret.png", "outside"),
    )
    said = Prediction("q", "a", "Press it.", documents=spans, pictures=linked)
    first, second = passages(said, load_corpus(small_corpus), lambda name: text)
    assert first.pictures == ()
    assert [picture.words for picture in second.pictures] == ["The lamp"]


def test_pictures_are_shown_only_from_the_corpus(small_corpus: Path) -> None:
    """A picture in `assets/` is embedded; one of the network, or outside the corpus, is not touched."""
    (small_corpus / "assets").mkdir()
    (small_corpus / "assets" / "lamp.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (small_corpus.parent / "secret.png").write_bytes(b"secret")
    text = "![The lamp](../assets/lamp.svg) ![x](https://example.com/x.png) ![y](../../secret.png)"
    (picture,) = pictures_of(text, load_corpus(small_corpus))
    assert picture.words == "The lamp"
    assert picture.address.startswith("data:image/svg+xml;base64,")


def test_an_asking_is_taken_along_as_markdown_json_and_csv() -> None:
    """Hostile text stays text: headings are quoted in markdown, formulas defused in CSV."""
    answer = "=HYPERLINK(1)\n# not a heading <script>"
    asking = Asking(Question("q", "Why\n# this?"), ("a",), "lamp").start(lambda name: _Arm(name, [answer]))
    assert asking.wait(20)
    markdown = as_markdown(asking)
    assert "\n> # not a heading" in markdown
    assert markdown.startswith("## Why # this?\n")
    assert json.loads(as_json(asking))["answers"][0]["prediction"]["answer"] == answer
    (row,) = csv.DictReader(io.StringIO(as_csv(asking)))
    assert row["answer"].startswith("'=HYPERLINK")
