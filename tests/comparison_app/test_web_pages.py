"""The pages' behaviour without a browser: what each shows, what it refuses, what it teaches when it is empty."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comparison_app.comparison import changes_between
from comparison_app.errors import ComparisonError
from comparison_app.leaderboard import leaderboard
from comparison_app.library import Library, copy_corpus, delete_document, write_document
from comparison_app.predictions import Prediction, write_predictions
from comparison_app.runner import open_run
from comparison_app.uploads import Upload
from comparison_app.votes import FILE_NAME, Vote, VoteStore, preference_pairs
from comparison_app.workspace import Workspace
from data_prep.drafts import Draft, drafts_path, write_drafts
from data_prep.questions import Evidence
from data_prep.review import load_drafts, review_counts
from rag.locking import writer_lock
from tests.comparison_app.chat_server import chat_server
from tests.comparison_app.pages import WEB, html_of, lamp_workspace, pages_of


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the lamp's manual in it."""
    return lamp_workspace(tmp_path_factory.mktemp("pages"))


@pytest.fixture(autouse=True)
def environment(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment that `versus app` gives its pages."""
    with pages_of(workspace, monkeypatch):
        yield


def _open(page: str, **query: str):  # type: ignore[no-untyped-def]
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(WEB / f"{page}.py"), default_timeout=300)
    for name, value in query.items():
        app.query_params[name] = value
    return app.run()


def _param(app, name: str) -> str:  # type: ignore[no-untyped-def]
    value = app.query_params[name]
    return value if isinstance(value, str) else value[0]


def test_a_question_in_the_address_is_asked_and_kept_there() -> None:
    """The answer stands on the page with its source marked; the address leads back to the same answer."""
    app = _open("ask", q="What do I clean the shade with?", arms="rag-extractive")
    assert not app.exception
    assert "damp cloth" in html_of(app)
    assert "<mark>" in html_of(app)
    again = _open("ask", a=_param(app, "a"), arms="rag-extractive")
    assert "damp cloth" in html_of(again)
    assert {"Markdown", "CSV", "JSON"} <= {button.label for button in app.get("download_button")}


def test_an_address_whose_answers_are_gone_asks_again() -> None:
    """After a restart the id in the address is unknown: the question is asked anew, once, under a new id."""
    app = _open("ask", q="What do I clean the shade with?", arms="rag-extractive", a="long-gone")
    assert not app.exception
    assert "damp cloth" in html_of(app)
    found = _param(app, "a")
    assert found != "long-gone"
    assert _param(app.run(), "a") == found


def test_an_answer_is_never_shown_under_another_corpus(workspace: Workspace) -> None:
    """Choosing another corpus takes the answer away and asks nothing; the history brings it back, corpus and all."""
    from comparison_app.web import session

    copy_corpus(workspace.corpus("lamp"), "lamp-other", workspace)
    session.known_corpora.clear()
    app = _open("ask", q="What do I clean the shade with?", arms="rag-extractive")
    first = _param(app, "a")
    app.text_input(key="question").set_value("How many brightness levels are there?")
    next(button for button in app.button if button.label == "Ask").click().run()
    app.selectbox[0].select("lamp-other").run()
    assert not app.exception
    assert "a" not in app.query_params and "v-card" not in html_of(app)
    app.text_input(key="question").set_value("What gives a red light?")
    next(button for button in app.button if button.label == "Ask").click().run()
    assert "<mark>" in html_of(app)
    next(button for button in app.button if button.key == f"again-{first}").click().run()
    assert not app.exception
    assert app.selectbox[0].value == "lamp"
    assert _param(app, "a") == first and "damp cloth" in html_of(app)


def test_a_choice_of_arms_stands_in_the_address_before_it_is_asked() -> None:
    """The address can be shared as it is; the usual choice needs no words in it."""
    app = _open("ask")
    assert "arms" not in app.query_params
    app.button_group[0].set_value(["base"]).run()
    assert not app.exception
    assert _param(app, "arms") == "base"


def test_an_answer_shows_what_nothing_supports_and_pictures_beside_their_source(tmp_path: Path) -> None:
    """Unsupported sentences are marked, all text is escaped; a blind vote shows neither marks nor sources."""
    from comparison_app.asking import Column
    from comparison_app.passages import Passage, Picture
    from comparison_app.predictions import CheckedSentence, Prediction
    from comparison_app.web import look

    file = tmp_path / "lamp.svg"
    file.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    said = "It glows. It <img src=x onerror=alert(1)> sings."
    checked = (CheckedSentence(0, 10, "uncited"), CheckedSentence(10, len(said), "unsupported"))
    column = Column("rag", "done", said, Prediction("q", "rag", said, sentences=checked))
    source = Passage("lamp", "<b>Lamp", "Use", 7, "https://a.example/m#use", 0, 9, 0.5, (("It glows.", True),),
                     (Picture('"><script>', file),))  # fmt: skip
    card = str(look.answer(column, [source], title="RAG"))
    assert '<span class="v-unsupported"' in card and card.count("not in the sources") == 1
    assert "&lt;img src=x" in card and "<script" not in card and "<b>Lamp" not in card
    assert "&lt;b&gt;Lamp › Use, page 7" in card
    assert 'href="https://a.example/m#use"' in card
    assert 'src="data:image/svg+xml;base64,' in card
    masked = str(look.answer(column, [source], title="A", plain=True))
    assert "v-unsupported" not in masked and "data:image" not in masked and "&lt;img src=x" in masked


def test_what_an_answer_costs_is_said_only_where_it_is_known(workspace: Workspace, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Local arms are free, an endpoint's answer costs its tokens in the currency given; without prices that is said."""
    file = tmp_path / "arms.toml"
    with chat_server(lambda text: "with a damp cloth") as (url, _):
        arms = "".join(
            f'[[arms]]\nname = "{name}"\nkind = "{kind}"\nmodel = "m"\nendpoint = "{url}"\n{prices}'
            for name, kind, prices in (
                ("priced", "rag", "input_price = 2.0\noutput_price = 10.0\n"),
                ("unpriced", "base", ""),
            )
        )
        file.write_text(
            f'name = "arms"\ncorpus = "lamp"\ncurrency = "EUR"\n{arms}'
            '[[arms]]\nname = "quotes"\nkind = "rag-extractive"\n'
        )
        monkeypatch.setenv("VERSUS_EXPERIMENT", str(file))
        app = _open("ask", q="What do I clean the shade with?", arms="priced,unpriced,quotes")
    assert not app.exception
    facts = [card.rpartition("</h3>")[2] for card in html_of(app).split('<article class="v-card"')[1:]]
    assert len(facts) == 3
    assert "11 + 4 tokens · cost 0.000062 EUR" in facts[0]
    assert "11 + 4 tokens · price not given" in facts[1]
    assert "local, no charge" in facts[2]


def test_passages_beyond_the_sources_shown_are_counted_and_listed() -> None:
    """What was retrieved is never fewer than it looks: the rest stands folded below, its titles as text."""
    from comparison_app.asking import Column
    from comparison_app.passages import Passage
    from comparison_app.predictions import RetrievedSpan
    from comparison_app.web import look

    spans = tuple(RetrievedSpan(f"d{n}", n, n + 9, 0.5, f"<b>Page {n}") for n in range(5))
    sources = [
        Passage(s.document, s.title, "", None, None, s.start, s.end, s.score, (("x", False),)) for s in spans[:3]
    ]
    for held, words in (
        (spans, "2 more passages retrieved"),
        (spans[:4], "1 more passage retrieved"),
        (spans[:3], None),
    ):
        column = Column("rag", "done", "x", Prediction("q", "rag", "x", documents=held))
        card = str(look.answer(column, sources, title="RAG"))
        assert (words in card) if words else ("more passage" not in card)
        assert "<b>Page" not in card and "more passage" not in str(look.answer(column, sources, title="A", plain=True))


def test_a_question_of_50_000_characters_is_cut_and_said_so() -> None:
    """The page stays usable."""
    app = _open("ask", q="why " * 12_500, arms="rag-extractive")
    assert not app.exception
    assert "50,000 characters" in app.warning[0].value


def test_a_suggestion_is_one_click_and_an_empty_question_is_said() -> None:
    """Clicking a suggestion asks it; asking nothing says what to do."""
    from comparison_app.web import look

    app = _open("ask", arms="rag-extractive")
    suggestion = next(button for button in app.button if button.icon == ":material/lightbulb:")
    suggestion.click().run()
    assert not app.exception
    assert look.plain(app.text_input(key="question").value) == suggestion.label
    assert look.plain(_param(app, "q")) == suggestion.label
    app.text_input(key="question").set_value("  ")
    next(button for button in app.button if button.label == "Ask").click().run()
    assert "question is empty" in app.warning[0].value


HOSTILE_TEXT = "![x](https://evil.example/a.png) [y](https://evil.example) $z$ :red[w] <img src=x> # 1. `v`"


def test_text_stays_text_where_streamlit_reads_markdown() -> None:
    """Read back as markdown, escaped text is one paragraph of exactly these words, whatever stands in it."""
    from markdown_it import MarkdownIt

    from comparison_app.web import look

    for text in (
        HOSTILE_TEXT,
        "# a",
        "1. a",
        "- a",
        "+ a",
        "> a",
        "=== a",
        "a_b_c *d*",
        "``` x",
        "a\\",
        "| a | b |",
        "~~a~~",
        "HTTPS://a.example www.a.example me@a.example",
    ):
        (opened, inline, _) = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(look.plain(text))
        assert opened.type == "paragraph_open"
        assert {child.type for child in inline.children or ()} <= {"text", "text_special"}
        shown = "".join(child.content for child in inline.children or ())
        assert shown.replace("\N{WORD JOINER}", "") == text
        assert not re.search(r"(?i)https?://|www\.|@\w", shown)  # what GitHub's markdown makes a link of
        assert not re.search(r"(?<!\\)[:$]", look.plain(text))


def test_questions_of_the_corpus_run_and_load_nothing_where_they_are_labels(workspace: Workspace) -> None:
    """A suggestion, a question asked before and an error hold a hostile question as text, not as markdown."""
    from comparison_app.web import look

    corpus = copy_corpus(workspace.corpus("lamp"), "lamp-hostile", workspace)
    path = corpus.path / "questions" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({**row, "question": f"{HOSTILE_TEXT} {n}"}) + "\n" for n, row in enumerate(rows))
    )
    app = _open("ask", corpus="lamp-hostile", arms="rag-extractive")
    for _ in range(2):
        next(button for button in app.button if button.icon == ":material/lightbulb:").click().run()
        assert not app.exception
    labels = [button.label for button in app.button if "evil" in button.label]
    assert len(labels) >= 4 and all(label.startswith(look.plain(HOSTILE_TEXT)) for label in labels)
    assert "<img" not in html_of(app)


def test_the_leaderboard_shows_votes_and_teaches_when_there_are_none(workspace: Workspace) -> None:
    """Empty it says how many votes tell two arms apart; with votes it ranks."""
    assert "No votes yet" in html_of(_open("vote", tab="Leaderboard"))
    store = VoteStore(workspace.path / FILE_NAME)
    for number in range(12):
        cast = Vote(f"<b>q{number}</b>", ("rag", "base"), "a", answers=("yes", "no"), corpus="lamp", id=str(number))
        store.add(cast)
    app = _open("vote", tab="Leaderboard")
    assert "1. RAG" in html_of(app)
    assert "<b>q1</b>" not in html_of(app)
    assert leaderboard(store.votes())[0].arm == "rag"


def test_votes_are_ranked_and_exported_by_corpus_unless_all_are_asked_for(workspace: Workspace) -> None:
    """The same arm on another corpus is another system: its votes stand apart, and say where they were cast."""
    store = VoteStore(workspace.path / FILE_NAME)
    store.path.unlink(missing_ok=True)
    for number, (corpus, outcome) in enumerate(
        [("lamp", "a"), ("lamp", "a"), ("kettle", "b"), ("kettle", "b"), ("kettle", "b")]
    ):
        store.add(Vote(f"q{number}", ("rag", "base"), outcome, answers=("yes", "no"), corpus=corpus, id=f"c{number}"))
    try:
        app = _open("vote", tab="Leaderboard")
        assert "1. RAG" in html_of(app) and "kettle" not in html_of(app)
        assert "(2)" in app.get("download_button")[0].label
        assert not app.get("download_button")[0].disabled
        app.toggle(key="all").set_value(True).run()
        assert not app.exception
        assert "1. Base model" in html_of(app) and "<td>kettle</td>" in html_of(app)
        assert "(5)" in app.get("download_button")[0].label
        store.add(Vote("q9", ("rag", "base"), "tie", answers=("yes", "no"), corpus="lamp-tied", id="c9"))
        copy_corpus(workspace.corpus("lamp"), "lamp-tied", workspace)
        assert _open("vote", tab="Leaderboard", corpus="lamp-tied").get("download_button")[0].disabled
        copy_corpus(workspace.corpus("lamp"), "lamp-voteless", workspace)
        assert "No votes on lamp-voteless yet" in html_of(_open("vote", tab="Leaderboard", corpus="lamp-voteless"))
    finally:
        store.path.unlink(missing_ok=True)


@pytest.fixture
def two_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two arms that quote, so that a ballot can be drawn."""
    arms = "".join(f'[[arms]]\nname = "{name}"\nkind = "rag-extractive"\n' for name in ("quotes", "quotes-2"))
    (tmp_path / "two.toml").write_text(f'name = "two"\ncorpus = "lamp"\n{arms}[arms.rag]\ntop_k = 2\n')
    monkeypatch.setenv("VERSUS_EXPERIMENT", str(tmp_path / "two.toml"))


def _ballot():  # type: ignore[no-untyped-def]
    app = _open("vote")
    app.text_input[0].set_value("What do I clean the shade with?")
    return next(button for button in app.button if button.label == "Ask").click().run()


@pytest.mark.usefixtures("two_arms")
def test_a_ballot_is_found_again_by_its_address(workspace: Workspace) -> None:
    """Another session with the same address sees the same ballot; one that is gone leaves the empty page."""
    (workspace.path / FILE_NAME).unlink(missing_ok=True)
    app = _ballot()
    again = _open("vote", b=_param(app, "b"))
    assert not again.exception
    assert "<h2>What do I clean the shade with?</h2>" in html_of(again) and "Answer B" in html_of(again)
    again.button(key="vote-tie").click().run()
    assert "Your vote" in again.success[0].value
    app.run()  # the ballot is one: voted on there, it is voted on here
    assert "Your vote" in app.success[0].value
    assert "Judge without knowing" in html_of(_open("vote", b="long-gone"))
    (workspace.path / FILE_NAME).unlink()


def test_a_conversation_is_found_again_by_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said and the system message stand in another session too, and the model is told all of it."""
    with chat_server(lambda text: f"You said {text}") as (url, seen):
        (tmp_path / "one.toml").write_text(
            f'name = "one"\ncorpus = "lamp"\n[[arms]]\nname = "m"\nkind = "base"\nmodel = "m"\nendpoint = "{url}"\n'
        )
        monkeypatch.setenv("VERSUS_EXPERIMENT", str(tmp_path / "one.toml"))
        app = _open("chat")
        assert "Say something" in html_of(app)
        app.text_area(key="system").set_value("Be brief.").run()
        app.chat_input[0].set_value("one").run()
        assert "You said one" in html_of(app)
        again = _open("chat", c=_param(app, "c"))
        assert "You said one" in html_of(again) and again.text_area(key="system").value == "Be brief."
        again.chat_input[0].set_value("two").run()
        assert not again.exception
    roles = [(message["role"], message["content"]) for message in seen[-1]["body"]["messages"]]
    said = [("system", "Be brief."), ("user", "one"), ("assistant", "You said one"), ("user", "two")]
    assert roles == said
    assert html_of(again).count("You said two") == 1
    next(button for button in again.button if button.label == "New chat").click().run()
    assert "c" not in again.query_params and "You said" not in html_of(again)


@pytest.mark.usefixtures("two_arms")
def test_a_vote_that_cannot_be_kept_is_said_and_can_be_cast_again(workspace: Workspace) -> None:
    """With a damaged file the page names the file and shows no name of an arm; mended, the same ballot is voted on."""
    path = workspace.path / FILE_NAME
    path.unlink(missing_ok=True)
    path.write_bytes(b"no database " * 100)
    try:
        app = _ballot()
        app.button(key="vote-a").click().run()
        assert not app.exception
        assert f"{FILE_NAME}: votes cannot be read or written" in app.error[0].value.replace("\\", "")
        assert "quotes" not in html_of(app)
        path.unlink()
        app.button(key="vote-a").click().run()
        assert not app.exception and not app.error
        assert "Your vote" in app.success[0].value
        assert [vote.outcome for vote in VoteStore(path).votes()] == ["a"]
    finally:
        path.unlink(missing_ok=True)


def test_why_an_arm_failed_is_told_after_the_vote(workspace: Workspace, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Before it neither model nor address stands on the page; the vote counts as any other, but is no pair for DPO."""
    (tmp_path / "two.toml").write_text(
        'name = "two"\ncorpus = "lamp"\n[[arms]]\nname = "quotes"\nkind = "rag-extractive"\n[[arms]]\nname = "lost"\n'
        'kind = "base"\nmodel = "secret-model"\nendpoint = "http://127.0.0.1:9/v1"\napi_key_env = "NO_SUCH_KEY"\n'
    )
    monkeypatch.setenv("VERSUS_EXPERIMENT", str(tmp_path / "two.toml"))
    path = workspace.path / FILE_NAME
    path.unlink(missing_ok=True)
    try:
        app = _ballot()
        assert "<b>No answer.</b></div>" in html_of(app)
        assert not re.search("NO_SUCH_KEY|127.0.0.1|lost|secret-model|quotes", html_of(app))
        app.button(key="vote-a" if "No answer" in html_of(app).partition("Answer B")[2] else "vote-b").click().run()
        assert "NO_SUCH_KEY is not set" in html_of(app) and "lost" in html_of(app)
        votes = VoteStore(path).votes()
        assert len(leaderboard(votes)) == 2 and leaderboard(votes)[0].arm == "quotes"
        assert preference_pairs(votes) == []
    finally:
        path.unlink(missing_ok=True)


def test_documents_are_read_searched_and_changed(workspace: Workspace) -> None:
    """Search shows each stage's score; what is saved is on disk."""
    app = _open("documents", document="cleaning")
    assert "<h1>Cleaning</h1>" in html_of(app)
    found = html_of(_open("documents", tab="Search", query="night mode"))
    assert "Brightness" in found
    assert "meaning" in found
    assert "Level · Output · Runs for; 1 · 40 lm · 60 h;" in found and not re.search(r"[>\s]#+ |\|--", found)
    corpus = workspace.corpus("lamp")
    write_document(corpus, "extra", "# Extra\n\n<script>alert(1)</script> ![x](https://example.com/x.png) $5\n")
    shown = html_of(_open("documents", document="extra"))
    assert "<script>" not in shown
    assert "<img" not in shown
    delete_document(corpus, "extra")
    assert "extra" not in corpus.document_ids()


def test_added_files_are_indexed_and_found(workspace: Workspace) -> None:
    """Files make a corpus that answers without another step; a name that leads out of the workspace is refused."""
    library = Library(workspace)
    report = library.add("added", [Upload("knob.md", b"# Knob\n\nTurn the knob 17 times.\n")])
    assert report.added == ["knob"]
    corpus = workspace.corpus("added")
    task = library.reindexing(corpus)
    assert task is not None and task.finished.wait(60) and task.error is None
    assert library.search(corpus, "turn the knob")[0].meta["document"] == "knob"
    with pytest.raises(ComparisonError):
        library.add("../out", [])


def test_a_workspace_that_another_process_indexes_is_said(workspace: Workspace) -> None:
    """Re-indexing meanwhile names the process; the app goes on answering from the index as it was."""
    library, corpus = Library(workspace), workspace.corpus("lamp")
    found = library.search(corpus, "night mode")
    with writer_lock(library.retriever(corpus).store.path):
        task = library.reindex(corpus)
        assert task.finished.wait(60)
        assert str(os.getpid()) in (task.error or "")
        assert library.search(corpus, "night mode")[0].id == found[0].id
    again = library.reindex(corpus)
    assert again.finished.wait(60)
    assert again.report is not None and again.report.unchanged == 4


def test_drafts_are_reviewed_beside_their_evidence(workspace: Workspace) -> None:
    """Accepting the first leaves the other open; without drafts the page says how to get some."""
    assert "versus questions draft" in html_of(_open("documents", tab="Review"))
    corpus = copy_corpus(workspace.corpus("lamp"), "lamp-drafts", workspace)
    text = (corpus.path / "documents" / "cleaning.md").read_text()
    start = text.index("Wipe the shade")
    evidence = (Evidence("cleaning", start, start + 34),)
    drafts = [Draft(f"d{n}", "cleaning", (f"What now {n}?",), answers=("Wipe it.",), evidence=evidence) for n in (1, 2)]
    write_drafts(drafts_path(corpus.path), drafts)
    app = _open("documents", tab="Review", corpus="lamp-drafts")
    assert "<mark>Wipe the shade with a damp cloth." in html_of(app)
    app.button(key="yes-d1").click().run()
    assert not app.exception
    assert review_counts(corpus.path) == {"accepted": 1, "edited": 0, "rejected": 0, "open": 1}
    fields = {area.label.split(",")[0]: area for area in app.text_area}
    assert fields["Evidence"].value.startswith("Wipe the shade")
    fields["Evidence"].input("Words that stand nowhere in it.")
    app.button[[button.label for button in app.button].index("Save and accept")].click().run()
    assert "stands nowhere" in " ".join(error.value for error in app.error)
    assert review_counts(corpus.path)["edited"] == 0
    fields = {area.label.split(",")[0]: area for area in app.text_area}
    fields["Evidence"].input("Wipe the shade")
    fields["Paraphrases"].input("How is the shade cleaned?")
    app.button[[button.label for button in app.button].index("Save and accept")].click().run()
    assert not app.exception
    edited = next(item for item in load_drafts(corpus.path) if item.state == "edited")
    assert (edited.evidence, edited.draft.paraphrases) == ("Wipe the shade", ("How is the shade cleaned?",))


@pytest.mark.parametrize(
    ("page", "words"),
    [("compare", "No run yet"), ("chat", "Say something"), ("vote", "Judge without knowing"), ("train", "adapter")],
)
def test_empty_pages_teach(page: str, words: str) -> None:
    """Each says what would stand there and how to get it."""
    app = _open(page, **({"tab": "Report"} if page == "compare" else {}))
    assert not app.exception
    assert words in html_of(app)


def test_a_corpus_without_questions_can_neither_be_trained_nor_compared(workspace: Workspace) -> None:
    """Both pages name the command that brings questions."""
    write_document(copy_corpus(workspace.corpus("lamp"), "bare", workspace), "more", "# More\n\nText.\n")
    for split in ("train", "dev", "test"):
        (workspace.corpora / "bare" / "questions" / f"{split}.jsonl").unlink()
    for page, query in (("train", {}), ("compare", {"tab": "New comparison"})):
        assert "versus questions import" in html_of(_open(page, corpus="bare", **query))


def test_a_password_is_asked_for_and_a_wrong_one_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the page is shown before; sessions pass one by one."""
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("VERSUS_APP_PASSWORD", "open sesame")

    def gated() -> None:
        import streamlit as st

        from comparison_app.web import gate

        gate.pass_or_stop()
        st.write("inside")

    app = AppTest.from_function(gated, default_timeout=60).run()
    assert not app.markdown or "inside" not in app.markdown[0].value
    app.text_input[0].set_value("guess")
    app.button[0].click().run()
    assert "not the password" in app.error[0].value
    started = time.monotonic()
    app.text_input[0].set_value("open sesame")
    app.button[0].click().run()
    assert app.markdown[0].value == "inside"
    assert time.monotonic() - started > 0.4


def test_a_login_that_is_not_set_up_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clicking it without secrets names what is missing, and nobody is let in."""
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("VERSUS_APP_LOGIN", "1")

    def gated() -> None:
        import streamlit as st

        from comparison_app.web import gate

        gate.pass_or_stop()
        st.write("inside")

    app = AppTest.from_function(gated, default_timeout=60).run()
    app.button[0].click().run()
    assert not app.exception
    assert "the login cannot start" in app.error[0].value
    assert not [item for item in app.markdown if "inside" in item.value]


def test_two_runs_are_set_against_each_other_with_a_test(workspace: Workspace, tmp_path: Path) -> None:
    """The figures are those of `versus report --against`; runs of two experiments are refused in words."""
    questions = [
        replace(question, id=f"{question.id}-{copy}", about=f"page-{copy}", evidence=(), slice="trained")
        for question in workspace.corpus("lamp").questions("test")
        if question.answers
        for copy in range(3)
    ]
    experiment = tmp_path / "gate.toml"
    experiment.write_text('name = "gate"\ncorpus = "lamp"\n[[arms]]\nname = "quotes"\nkind = "rag-extractive"\n')
    other = tmp_path / "other.toml"
    other.write_text(experiment.read_text().replace("gate", "other"))
    for name, right, path in (("bad", False, experiment), ("good", True, experiment), ("odd", True, other)):
        run = open_run(workspace.runs / name, path, questions)
        said = [Prediction(q.id, "quotes", q.answers[0] if right else "no idea at all") for q in questions]
        write_predictions(run.predictions_path, said)
        (run.folder / "summary.json").write_text("{}")
    try:
        app = _open("compare", tab="Against another run", run="bad")
        app.selectbox[1].select("good").run()
        assert not app.exception
        wanted = changes_between(workspace, "good", "bad")
        assert all(f"<td>{cell}</td>" in html_of(app) for cell in wanted.changes[0].in_words[2:8])
        assert wanted.outcome in html_of(app)
        shared = _open("compare", tab="Against another run", run="bad", against="good")
        assert shared.selectbox(key="against").value == "good" and wanted.outcome in html_of(shared)
        app.selectbox[1].select("odd").run()
        assert "cannot be compared" in html_of(app) and "compare runs of one experiment" in html_of(app)
    finally:
        for name in ("bad", "good", "odd"):
            shutil.rmtree(workspace.runs / name)
