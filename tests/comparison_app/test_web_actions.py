"""What people do on the pages, without a browser: pick a listing, talk, vote with reasons, change documents."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comparison_app.library import copy_corpus, read_document, write_document
from comparison_app.passages import excerpt
from comparison_app.votes import FILE_NAME, VoteStore
from comparison_app.workspace import Workspace
from data_prep.corpus import load_corpus
from data_prep.drafts import Draft, drafts_path, write_drafts
from data_prep.questions import Evidence
from data_prep.review import load_drafts, review_counts
from tests.comparison_app.chat_server import chat_server
from tests.comparison_app.pages import html_of, labelled, lamp_workspace, opened, pages_of, press, two_endpoints

LISTINGS = (
    {
        "id": "l1",
        "title": "Desk lamp <b>new</b>",
        "description": "Bright ![x](https://evil.example/a.png)",
        "category": "lamps",
        "price": 40.0,
        "currency": "EUR",
        "attributes": {"colour": "<i>red</i>"},
        "rating": 4.5,
        "reviews": 12,
    },
    {"id": "l2", "title": "Floor lamp", "description": "Tall", "category": "lamps"},
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the lamp's manual in it."""
    return lamp_workspace(tmp_path_factory.mktemp("actions"))


@pytest.fixture(autouse=True)
def environment(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment that `versus app` gives its pages."""
    with pages_of(workspace, monkeypatch):
        yield


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Two arms behind an endpoint that repeats what it was asked; what it was sent."""
    with chat_server(lambda text: f"You said: {text[-60:]}") as (address, seen):
        monkeypatch.setenv("VERSUS_EXPERIMENT", two_endpoints(tmp_path / "two.toml", address))
        yield seen


def test_a_listing_is_picked_shown_as_a_card_and_asked_about(workspace: Workspace, said: list[dict[str, Any]]) -> None:
    """The card holds price and attributes as text; the address names the listing; a draw picks one of them."""
    from comparison_app.web import session

    corpus = copy_corpus(workspace.corpus("lamp"), "lamp-shop", workspace)
    (corpus.path / "listings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LISTINGS))
    app = opened("ask", corpus="lamp-shop", arms="one")
    assert "v-price" not in html_of(app)
    labelled(app.selectbox, "About which listing?").select("l1").run()
    card = html_of(app)
    assert "40 EUR" in card and "★ 4.5 (12)" in card and "colour: &lt;i&gt;red&lt;/i&gt;" in card
    assert "<b>new</b>" not in card and "<img" not in card
    assert app.query_params["about"] == ["l1"] or app.query_params["about"] == "l1"
    app.text_input(key="question").set_value("Which colour does it have?")
    press(app, "Ask")
    asking = session.desk().find(str(app.session_state["history"][0][0]))
    assert asking is not None and asking.question.about == "l1"
    assert "You said:" in html_of(app)
    press(app, "Draw one")
    assert labelled(app.selectbox, "About which listing?").value in {"l1", "l2"}
    assert "v-price" in html_of(opened("ask", corpus="lamp-shop", about="l2"))


def test_a_chat_turn_carries_the_system_message_and_what_was_said(said: list[dict[str, Any]]) -> None:
    """The endpoint sees system message and turns in order; a new chat forgets the turns."""
    app = opened("chat")
    app.text_area(key="system").set_value("Answer as a sailor.")
    app.chat_input[0].set_value("Ahoy <b>there</b>").run()
    assert not app.exception
    assert "You said: Ahoy &lt;b&gt;there&lt;/b&gt;" in html_of(app)
    app.chat_input[0].set_value("And now?").run()
    assert [row["role"] for row in said[0]["body"]["messages"]] == ["system", "user"]
    assert said[0]["body"]["messages"][0]["content"] == "Answer as a sailor."
    assert [row["role"] for row in said[1]["body"]["messages"]] == ["system", "user", "assistant", "user"]
    press(app, "New chat")
    assert "You said" not in html_of(app)
    app.chat_input[0].set_value("Who is there?").run()
    assert [row["content"] for row in said[2]["body"]["messages"]][1:] == ["Who is there?"]


@pytest.mark.usefixtures("said")
def test_a_vote_is_cast_with_reasons(workspace: Workspace) -> None:
    """A drawn question, a vote, its reasons and words: all stand in the file; who they were is shown after it."""
    (workspace.path / FILE_NAME).unlink(missing_ok=True)
    app = press(opened("vote"), "Draw a question")
    assert "Answer A" in html_of(app) and "Answer B" in html_of(app)
    assert "<h3>one" not in html_of(app) and "<h3>two" not in html_of(app)
    press(app, "A is better")
    assert "<h3>one" in html_of(app) and "<h3>two" in html_of(app)
    next(group for group in app.button_group if "Why?" in group.label).set_value(["right", "short"])
    labelled(app.text_input, "In your words").set_value("<b>clear</b>")
    press(app, "Add the reason")
    (vote,) = VoteStore(workspace.path / FILE_NAME).votes()
    assert (vote.outcome, vote.reason, vote.text) == ("a", "right, short", "<b>clear</b>")
    assert set(vote.arms) == {"one", "two"} and vote.corpus == "lamp"
    (workspace.path / FILE_NAME).unlink()


def test_a_document_is_edited_and_deleted_and_the_last_one_stays(workspace: Workspace) -> None:
    """What is saved or deleted is so on disk; an empty text is refused in words and loses nothing."""
    corpus = copy_corpus(workspace.corpus("lamp"), "lamp-own", workspace)
    app = opened("documents", corpus="lamp-own", document="cleaning")
    app.toggle(key="edit-cleaning").set_value(True).run()
    labelled(app.text_area, "Markdown").set_value("  ")
    press(app, "Save")
    assert "a document needs text" in app.error[0].value
    assert "damp cloth" in read_document(corpus, "cleaning")
    labelled(app.text_area, "Markdown").set_value("# Cleaning\n\nDust it with a brush.\n")
    press(app, "Save")
    assert read_document(corpus, "cleaning") == "# Cleaning\n\nDust it with a brush.\n"
    assert "Dust it with a brush" in html_of(app)
    app.button(key="delete-cleaning").click().run()
    assert not app.exception
    assert "cleaning" not in load_corpus(corpus.path).document_ids()


@pytest.mark.parametrize("page", ["ask", "vote", "chat", "documents", "train", "compare"])
def test_a_page_that_only_opens_leaves_its_address_alone(page: str) -> None:
    """A change would be one more step for the back button, and nobody could go back past it."""
    app = opened(page)
    assert not app.exception and not app.query_params
    assert not app.run().query_params


def test_the_question_of_the_answers_shown_stands_in_its_line_after_going_back(said: list[dict[str, Any]]) -> None:
    """Question and arms follow the address; what is typed and asked next stays."""
    app = opened("ask", arms="one", q="What glows?")
    first = dict(app.query_params)
    app.button_group[0].set_value(["one", "two"])
    app.text_input(key="question").set_value("What charges?")
    press(app, "Ask")
    assert app.text_input(key="question").value == "What charges?"
    for name, value in first.items():
        app.query_params[name] = value
    app.run()
    assert app.text_input(key="question").value == "What glows?" and app.button_group[0].value == ["one"]
    assert html_of(app).count("<article") == 1
    app.text_input(key="question").set_value("What next?")
    press(app, "Ask")
    assert app.text_input(key="question").value == "What next?" and html_of(app).count("<article") == 1


def test_a_mistake_in_one_form_leaves_the_other_there(workspace: Workspace) -> None:
    """No file, and no address: each is said in its form, before anything is started."""
    app = press(opened("documents", tab="Add"), "Add the files")
    assert "no file was given" in app.error[0].value
    labelled(app.text_input, "Address").set_value("ftp://example.com/x")
    press(app, "Fetch the pages")
    assert "begins with http" in app.error[0].value and "Add the files" in {button.label for button in app.button}
    assert not (workspace.path / "jobs").exists()


def test_links_of_a_document_lead_to_its_neighbours_or_into_a_tab_of_their_own(workspace: Workspace) -> None:
    """A page beside it is opened in the app; what is not there, or is no address of the web, is words and no link."""
    corpus = copy_corpus(workspace.corpus("lamp"), "lamp-links", workspace)
    write_document(
        corpus,
        "links",
        "# Links\n\nSee [care](../documents/cleaning.md#shade), [web](https://a.example/?x=1&y=2), [none](none.md), "
        "[up](../../secret.md), [mail](mailto:a@b.example), [js](javascript:alert(1)).\n",
    )
    shown = html_of(opened("documents", corpus="lamp-links", document="links"))
    assert '<a href="?corpus=lamp-links&amp;document=cleaning" target="_self">care</a>' in shown
    assert '<a href="https://a.example/?x=1&amp;y=2" target="_blank" rel="noopener noreferrer">web</a>' in shown
    assert "<a>none</a>, <a>up</a>, <a>mail</a>" in shown and shown.count("href=") == 2


def test_an_excerpt_ends_with_a_whole_word() -> None:
    """Short passages stay whole; one without a space is cut where it must be."""
    assert excerpt("## Head\n\nThe lamp glows.") == "The lamp glows."
    assert excerpt("The lamp glows amber.", 15) == "The lamp …"
    assert excerpt("x" * 30, 15) == "x" * 15 + " …"


def test_a_corpus_that_ships_is_copied_before_it_is_changed(workspace: Workspace) -> None:
    """It offers no way to edit it; the copy is opened and can be edited; a name that is taken is refused."""
    app = opened("documents", corpus="tern-manual")
    assert not app.toggle
    press(app, "Copy")
    assert (workspace.corpora / "my-tern-manual" / "corpus.toml").is_file()
    assert app.selectbox[0].value == "my-tern-manual" and app.toggle
    app = press(opened("documents", corpus="tern-manual"), "Copy")
    assert "already" in app.error[0].value
    shutil.rmtree(workspace.corpora / "my-tern-manual")


def test_drafts_are_rejected_edited_and_opened_again(workspace: Workspace) -> None:
    """Each decision is on disk; what was edited is what counts."""
    corpus = copy_corpus(workspace.corpus("lamp"), "lamp-review", workspace)
    start = (corpus.path / "documents" / "cleaning.md").read_text().index("Wipe the shade")
    evidence = (Evidence("cleaning", start, start + 34),)
    drafts = [Draft(f"d{n}", "cleaning", (f"What {n}?",), answers=("Wipe it.",), evidence=evidence) for n in (1, 2)]
    write_drafts(drafts_path(corpus.path), drafts)
    app = opened("documents", tab="Review", corpus="lamp-review")
    app.button(key="no-d1").click().run()
    assert review_counts(corpus.path)["rejected"] == 1
    labelled(app.text_area, "Wordings, one a line").set_value("How is it wiped?\n\nWhat wipes it?")
    press(app, "Save and accept")
    assert review_counts(corpus.path) == {"accepted": 0, "edited": 1, "rejected": 1, "open": 0}
    edited = next(item for item in load_drafts(corpus.path) if item.id == "d2")
    assert edited.draft.wordings == ("How is it wiped?", "What wipes it?")
    assert "Nothing here" in html_of(app)
    labelled(app.button_group, "Drafts").set_value("rejected").run()
    app.button(key="open-d1").click().run()
    assert not app.exception
    assert review_counts(corpus.path)["open"] == 1


def test_a_source_shows_its_tables_as_tables() -> None:
    """Whole ones with head and rows, their text escaped; of one that the mark cuts no pipe is left, and every cell."""
    from comparison_app.web import look

    table = "Before.\n\n| Level | Output |\n|---|:--|\n| 1 | <b>40</b> lm |\n| 5 | |\n\nAfter it\ncomes this."
    shown = str(look.flowing(table))
    assert "<tr><th>Level</th><th>Output</th></tr><tr><td>1</td><td>&lt;b&gt;40&lt;/b&gt; lm</td></tr>" in shown
    assert "<tr><td>5</td><td></td></tr></table>" in shown
    assert "After it comes this." in shown and "|" not in shown and "---" not in shown
    cut = [
        str(look.flowing(piece)) for piece in ("| Level | Output |\n|---|---|\n| 1 | ", "40 lm", " |\n| 5 | 800 lm |")
    ]
    assert "|" not in "".join(cut)
    assert re.sub(r"<[^>]*>", " ", "".join(cut)).split() == ["Level", "Output", "1", "40", "lm", "5", "·", "800", "lm"]
