"""The page Vote: two arms masked and shuffled, a vote, then who they were; and the leaderboard of all votes."""

from __future__ import annotations

import random

import streamlit as st
from markupsafe import Markup

from comparison_app.asking import LONGEST_QUESTION
from comparison_app.ballots import Ballot, drawn
from comparison_app.errors import ComparisonError
from comparison_app.leaderboard import leaderboard
from comparison_app.votes import preference_pairs, preferences_jsonl
from comparison_app.web import look, session
from data_prep.corpus import Corpus

REASONS = ("right", "complete", "short", "well sourced", "wrong", "made up", "beside the point", "should have declined")
OUTCOMES = {"a": "A is better", "b": "B is better", "tie": "As good as each other", "both-bad": "Both bad"}


def new_ballot(text: str, arms: list[str], corpus: Corpus) -> None:
    """Ask two arms, drawn and shuffled, and note the ballot in the address."""
    try:
        asking = session.desk().ask(text, drawn(arms), corpus.name, lambda name: session.pool().arm(corpus, name))
    except ComparisonError as error:
        look.warn(error)
        return
    st.session_state["ballot"] = st.query_params["b"] = session.ballots().put(Ballot(asking))


def cast(ballot: Ballot, outcome: str) -> None:
    """Keep the vote."""
    ballot.cast(outcome, session.votes())


def show_ballot(ballot: Ballot, corpus: Corpus) -> None:
    """Show both answers masked, and once there is a vote, who gave them."""
    look.html(Markup("<h2>{}</h2>").format(ballot.asking.question.question))
    places: list[object] = [column.empty() for column in st.columns(2)]
    if ballot.outcome is None:
        titles = ["Answer A", "Answer B"]
        for number in (0, 1):
            session.show_column(places[number], ballot.asking, number, corpus, title=titles[number])
        if not ballot.asking.done:
            session.watch(ballot.asking, places, corpus, titles=titles)
        row = st.container(horizontal=True)
        for number, (outcome, words) in enumerate(OUTCOMES.items(), start=1):
            voted = session.guarded(cast)
            row.button(words, key=f"vote-{outcome}", on_click=voted, args=(ballot, outcome), shortcut=str(number))
        st.caption(
            "Keys 1 to 4 vote. Names, seconds, sources and why there was no answer are shown after the vote; an arm "
            "that gave none is judged like the others."
        )
        return
    for number in (0, 1):
        session.show_column(places[number], ballot.asking, number, corpus)
    better = {"a": 0, "b": 1}.get(ballot.outcome)
    said = OUTCOMES[ballot.outcome].lower() if better is None else f"{look.label(ballot.asking.arms[better])} is better"
    st.success(f"Your vote: {look.plain(said)}.", icon=":material/check:")
    with st.form("why"):
        reasons = st.pills("Why? (if you like)", REASONS, selection_mode="multi")
        text = st.text_input("In your words", max_chars=500)
        if st.form_submit_button("Add the reason"):
            session.votes().explain(ballot.asking.id, ", ".join(reasons), text)
            st.toast("Thank you: the reason stands beside your vote.")


def ask(corpus: Corpus) -> None:
    """Show how a ballot begins: a question of one's own, or one that is drawn."""
    arms = session.arm_names(corpus)
    if len(arms) < 2:
        look.empty("Two arms are needed", "Train an adapter, or start the app with an experiment of several arms.")
        return
    with st.form("blind", border=False):
        line, button = st.columns([7, 1], vertical_alignment="bottom")
        text = line.text_input("Question", max_chars=LONGEST_QUESTION, placeholder="Ask, and two arms answer masked")
        asked = button.form_submit_button("Ask", type="primary", width="stretch")
    pool = [item.question for item in session.questions(corpus) if item.about is None]
    random_one = bool(pool) and st.button("Draw a question", icon=":material/casino:", type="tertiary")
    if asked or random_one:
        new_ballot(random.choice(pool) if random_one else text, arms, corpus)
    known = st.query_params.get("b") or st.session_state.get("ballot") or ""
    ballot = session.ballots().find(known)
    if ballot is not None and ballot.asking.corpus == corpus.name:
        st.query_params["b"] = known
        show_ballot(ballot, corpus)
    else:
        look.empty(
            "Judge without knowing who speaks",
            "Two arms answer the same question; their names stay hidden until you have voted.",
            "Votes rank the arms, and become the pairs that `versus prefer` trains on.",
        )


def board(corpus: Corpus) -> None:
    """Show the leaderboard of one corpus, or of all, and the votes to take along."""
    cast_here = session.votes().votes()
    everything = st.toggle("Votes on all corpora", key="all", bind="query-params")
    votes = [vote for vote in cast_here if everything or vote.corpus == corpus.name]
    if cast_here and not votes:
        look.empty(f"No votes on {corpus.name} yet", f"{len(cast_here)} were cast on other corpora; show them above.")
        return
    if not votes:
        look.empty("No votes yet", "Each vote moves the ranking; about 200 tell apart two arms that win 60 to 40.")
        return
    look.standings(leaderboard(votes))
    st.caption(
        "Points after Bradley and Terry, 400 points are odds of ten to one; intervals, from ten votes on, by 1,000 "
        "resamples of the votes. Needed: further votes against the arm above until such a difference would be found."
    )
    row = st.container(horizontal=True)
    pairs = preference_pairs(votes)
    row.download_button(
        f"Preference pairs for DPO ({len(pairs)})",
        preferences_jsonl(votes),
        "preferences.jsonl" if everything else f"preferences-{corpus.name}.jsonl",
        "application/jsonl",
        icon=":material/download:",
        on_click="ignore",
        disabled=not pairs,
        help="What `versus prefer --data FILE` trains on: votes that prefer one of two different answers.",
    )
    recent = [
        (
            vote.when[:16].replace("T", " "),
            look.label(vote.arms[0]),
            look.label(vote.arms[1]),
            vote.corpus,
            OUTCOMES[vote.outcome],
            vote.question,
        )
        for vote in reversed(votes[-20:])
    ]
    with st.expander(f"Latest votes (of {len(votes)})"):
        look.table(("when", "A", "B", "corpus", "outcome", "question"), recent, wide=[5])


def main() -> None:
    """Lay out the page."""
    look.page_title("Vote", "Two masked answers, one judgement; the votes rank the arms.")
    where, what = st.columns([1, 3])
    with where:
        corpus = session.pick_corpus()
    tabs = ("Vote", "Leaderboard")
    wanted = st.query_params.get("tab")
    tab = what.segmented_control("Show", tabs, default=wanted if wanted in tabs else tabs[0], required=True)
    session.note("tab", str(tab), tabs[0])
    if tab == "Leaderboard":
        board(corpus)
    else:
        ask(corpus)


main()
