"""What the pages share: the workspace, the arms built once for all visitors, and the state that stands in the URL."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from comparison_app.arm_pool import ArmPool
from comparison_app.asking import Asking, AskingDesk
from comparison_app.ballots import Ballot
from comparison_app.conversing import Talk
from comparison_app.jobs import Job, Jobs
from comparison_app.keeping import Kept
from comparison_app.library import Library
from comparison_app.prices import charge_in_words
from comparison_app.votes import FILE_NAME, VoteStore
from comparison_app.web import look
from comparison_app.workspace import Workspace
from data_prep.corpus import SAMPLE_CORPUS, Corpus
from data_prep.errors import VersusError
from data_prep.listings import Listing, read_listings
from data_prep.questions import Question

WATCHED = "watched"
"""Where in the session the job stands whose end this visitor waits for."""


def workspace() -> Workspace:
    """Return the workspace that `versus app` was started with."""
    return Workspace.resolve(None)


@st.cache_resource(show_spinner=False)
def pool() -> ArmPool:
    """Return the arms, shared by all visitors."""
    found = ArmPool(workspace(), os.environ.get("VERSUS_EXPERIMENT") or None)
    found.spare_torch()
    return found


@st.cache_resource(show_spinner=False)
def library() -> Library:
    """Return the documents, shared by all visitors; arms are renewed when a corpus was indexed again."""
    return Library(workspace(), pool().renew)


@st.cache_resource(show_spinner=False)
def warm_up() -> None:
    """Get the first answer ready in the background, once for this process: the index, and the arm that quotes."""
    warmed, corpus = pool(), workspace().corpus(default_corpus())
    if not library().is_indexed(corpus):
        library().reindex(corpus)
    first = warmed.specs(corpus)[0].name
    threading.Thread(target=_warm, args=(warmed, corpus, first), name="warm-up", daemon=True).start()


def _warm(warmed: ArmPool, corpus: Corpus, arm: str) -> None:
    with contextlib.suppress(Exception):  # who asks is told what is wrong
        next(iter(warmed.arm(corpus, arm).answer([Question("warm-up", "Is anybody there?")])))


@st.cache_resource(show_spinner=False)
def desk() -> AskingDesk:
    """Return where questions are asked; answers are found again by the id in the page's address."""
    return AskingDesk()


@st.cache_resource(show_spinner=False)
def ballots() -> Kept[Ballot]:
    """Return the ballots; one is found again by the id in the page's address."""
    return Kept()


@st.cache_resource(show_spinner=False)
def talks() -> Kept[Talk]:
    """Return the conversations; one is found again by the id in the page's address."""
    return Kept()


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """Return the long jobs of the workspace."""
    return Jobs(workspace())


def votes() -> VoteStore:
    """Return the votes of the workspace."""
    return VoteStore(workspace().path / FILE_NAME)


def guarded(action: Callable[..., object]) -> Callable[..., None]:
    """Return a widget's callback that keeps what the user can mend for `look.page_title` to show.

    Callbacks run before the page does, so that no page can catch what they raise.
    """

    def run(*arguments: object) -> None:
        try:
            action(*arguments)
        except VersusError as error:
            st.session_state[look.FAILED] = str(error)

    return run


def resuming(job: Job) -> Callable[..., None]:
    """Return a button's callback that resumes a job.

    As a callback it is done whatever happens to the page: a click that is looked at only where the button stands is
    lost when the page begins anew before it came that far.
    """

    def resume() -> None:
        st.session_state[WATCHED] = jobs().resume(job).id

    return guarded(resume)


def default_corpus() -> str:
    """Return the corpus that `versus app` was started with."""
    return os.environ.get("VERSUS_CORPUS") or SAMPLE_CORPUS


@st.cache_data(ttl=5, show_spinner=False)
def known_corpora(path: str) -> dict[str, str]:
    """Return the corpora that can be chosen, name to folder; looked up anew after a few seconds."""
    return {item.name: str(item.path) for item in library().corpora()}


def note(name: str, value: str, usual: str | None) -> None:
    """Note a choice in the address, unless it is the usual one and the address is silent about it.

    Each change of the address is a step for the browser's back button: a page that only opens must not make one, or
    nobody could go back past it.
    """
    if st.query_params.get(name, usual) != value:
        st.query_params[name] = value


def pick_corpus() -> Corpus:
    """Show the choice of corpus, kept in the address, and return the corpus chosen."""
    own = workspace().corpus(default_corpus())
    wanted = st.query_params.get("corpus") or st.session_state.get("corpus_name") or own.name
    known = {own.name: str(own.path), **known_corpora(str(workspace().path))}
    if wanted not in known:  # it may be new
        known_corpora.clear()
        known.update(known_corpora(str(workspace().path)))
    names = sorted(known, key=lambda name: (name != own.name, name))
    if wanted not in known and "corpus" in st.query_params:
        st.warning(look.plain(f"There is no corpus {wanted[:80]} here (any more); this is {own.name}."))
    place = names.index(wanted) if wanted in names else 0
    chosen = st.selectbox("Corpus", names, index=place, key=f"corpus-{'/'.join(names)}-{wanted}")
    st.session_state["corpus_name"] = chosen
    note("corpus", chosen, own.name)
    return workspace().corpus(known[chosen])


def arm_names(corpus: Corpus) -> list[str]:
    """Return the names of the arms that can be asked about a corpus."""
    return [spec.name for spec in pool().specs(corpus)]


def kinds(corpus: Corpus) -> dict[str, str]:
    """Return each arm's kind."""
    return {spec.name: spec.kind for spec in pool().specs(corpus)}


def questions(corpus: Corpus) -> list[Question]:
    """Return the corpus's test questions that its documents answer; none if it has none."""
    path = corpus.path / "questions" / "test.jsonl"
    stamp = path.stat().st_mtime if path.exists() else 0.0
    return _questions(str(corpus.path), stamp)


@st.cache_resource(show_spinner=False, max_entries=8)  # not copied for every look: questions cannot be changed
def _questions(path: str, stamp: float) -> list[Question]:
    from data_prep.questions import read_questions

    file = Path(path) / "questions" / "test.jsonl"
    found = read_questions(file) if stamp else []
    return [question for question in found if question.answerable and question.slice != "new-document"]


def listings(corpus: Corpus) -> list[Listing]:
    """Return the corpus's listings; none if it has none."""
    path = corpus.path / "listings.jsonl"
    return _listings(str(path), path.stat().st_mtime) if path.exists() else []


@st.cache_resource(show_spinner=False, max_entries=4)
def _listings(path: str, stamp: float) -> list[Listing]:
    return read_listings(Path(path))


def suggestions(corpus: Corpus, about: str | None, count: int = 4) -> list[str]:
    """Return a few of the corpus's questions, the same ones for a session; of one listing where it is given."""
    fitting = [item.question for item in questions(corpus) if (item.about == about if about else True)]
    if not about and any(item.about for item in questions(corpus)):
        return []
    seed = st.session_state.setdefault("seed", random.randrange(10**6))
    return random.Random(f"{seed} {corpus.name} {about}").sample(fitting, min(count, len(fitting)))


def show_column(place: object, asking: Asking, number: int, corpus: Corpus, *, title: str = "") -> None:
    """Draw one arm's card into a placeholder; with `title` it is masked, as in a blind vote."""
    from comparison_app.passages import passages

    column = asking.columns[number]
    masked = bool(title)
    found = []
    if column.prediction is not None and not masked:
        texts = library()
        found = passages(column.prediction, corpus, lambda name: texts.text(corpus, name), most=3)
    spec = {spec.name: spec for spec in pool().specs(corpus)}.get(column.arm)
    cost = column.prediction.cost if column.prediction is not None else None
    card = look.answer(
        column,
        found,
        title=title or look.label(column.arm),
        note="" if masked or spec is None else look.note_of(spec.kind),
        charge="" if spec is None else charge_in_words(cost, spec, pool().currency),
        shade="#888" if masked else look.colour(column.arm, asking.arms),
        plain=masked,
    )
    place.html(str(card))  # type: ignore[attr-defined]


def watch(asking: Asking, places: list[object], corpus: Corpus, *, titles: list[str] | None = None) -> None:
    """Draw the answers as they come, until all are there; while they wait for the first index, how far that is."""
    drawn: list[object] = [None] * len(places)
    bar = st.empty()
    for columns in asking.watch():
        if far := first_index(corpus):
            bar.progress(*far)
        for number, column in enumerate(columns):
            if drawn[number] != column:
                show_column(places[number], asking, number, corpus, title=titles[number] if titles else "")
                drawn[number] = column
    bar.empty()


def first_index(corpus: Corpus) -> tuple[float, str] | None:
    """Return how far a corpus's first index is, as a share and in words; None where there is one to answer from."""
    task = library().reindexing(corpus)
    if task is None or task.finished.is_set() or not task.first:
        return None
    share = task.done / task.total if task.total else 0.0
    return share, f"{look.plain(task.corpus)} is being made ready: {task.stage[:1].lower()}{task.stage[1:]}"
