"""The page Ask: one question, several arms in columns as they write, each with its sources."""

from __future__ import annotations

import random

import streamlit as st

from comparison_app import sharing
from comparison_app.asking import LONGEST_QUESTION, MOST_ARMS, Asking
from comparison_app.errors import ComparisonError
from comparison_app.web import look, session
from data_prep.corpus import Corpus


def choose_arms(corpus: Corpus) -> list[str]:
    """Show the arms, those of the address chosen at first, and return the choice in a fixed order.

    A choice other than the usual stands in the address at once.
    """
    names = session.arm_names(corpus)
    wanted = [name for name in st.query_params.get("arms", "").split(",") if name in names]
    usual = [name for name in ("rag-extractive", "rag", "finetuned") if name in names] or names[:3]
    key, again = f"arms-{corpus.name}-{'-'.join(names)}", st.session_state.pop("arms_again", ())
    st.session_state[key] = [name for name in again if name in names] or st.session_state.get(key, wanted or usual)
    picked = st.pills(
        "Arms",
        names,
        selection_mode="multi",
        format_func=lambda name: look.plain(look.label(name)),
        key=key,
        help="\n".join(f"- **{look.label(name)}**: {look.EXPLAINED[name]}" for name in names if name in look.EXPLAINED),
    )
    chosen = [name for name in names if name in picked]
    if chosen != usual or "arms" in st.query_params:
        st.query_params["arms"] = ",".join(chosen)
    return chosen


def choose_listing(corpus: Corpus) -> str | None:
    """Show the choice of a listing where the corpus has any; returns its id, and shows it as a card."""
    found = {item.id: item for item in session.listings(corpus)}
    if not found:
        return None
    key = f"about-{corpus.name}"
    if st.session_state.get(key) is None and st.query_params.get("about") in found:
        st.session_state[key] = st.query_params["about"]
    pick, draw = st.columns([5, 1], vertical_alignment="bottom")
    draw.button(
        "Draw one",
        icon=":material/casino:",
        width="stretch",
        on_click=lambda: st.session_state.update({key: random.choice(list(found))}),
    )
    about = pick.selectbox(
        "About which listing?",
        list(found),
        index=None,
        key=key,
        format_func=lambda item: found[item].title,
        placeholder="all of them; type to search",
    )
    if about is None:
        st.query_params.pop("about", None)
        return None
    st.query_params["about"] = about
    look.html(look.listing_card(found[about]))
    return str(about)


def ask_bar(corpus: Corpus, about: str | None) -> str | None:
    """Show the question's line and the suggestions; returns the question if it is to be asked now."""
    given = st.query_params.get("q", "")
    if len(given) > LONGEST_QUESTION:
        st.warning(f"The question in the address has {len(given):,} characters; it was cut to {LONGEST_QUESTION:,}.")
    given = given[:LONGEST_QUESTION]
    linked = given if given.strip() and "a" not in st.query_params and st.session_state.get("linked") != given else None
    st.session_state["linked"] = given
    if linked:
        st.session_state["question"] = linked
    st.session_state.setdefault("question", given)
    with st.form("ask", border=False):
        line, button = st.columns([7, 1], vertical_alignment="bottom")
        text = line.text_input("Question", key="question", max_chars=LONGEST_QUESTION, placeholder="Ask your documents")
        asked = button.form_submit_button("Ask", type="primary", width="stretch")
    for number, suggestion in enumerate(session.suggestions(corpus, about)):
        if number == 0:
            row = st.container(horizontal=True, gap="small")
        row.button(
            look.plain(suggestion),
            key=f"try-{suggestion}",
            type="tertiary",
            icon=":material/lightbulb:",
            on_click=_try,
            args=(suggestion,),
        )
    tried = st.session_state.pop("tried", None)
    return tried or (text if asked else None) or linked


def _try(suggestion: str) -> None:
    st.session_state.update(question=suggestion, tried=suggestion)


def start(text: str, arms: list[str], corpus: Corpus, about: str | None) -> Asking | None:
    """Ask, note it in the address and the history; returns None, with the reason on the page, if it cannot be."""
    try:
        asking = session.desk().ask(text, arms, corpus.name, lambda name: session.pool().arm(corpus, name), about=about)
    except ComparisonError as error:
        look.warn(error)
        return None
    st.query_params.update(q=text, arms=",".join(arms), a=asking.id)
    st.session_state["linked"] = text
    st.session_state["shown"] = asking.id
    remember(asking)
    return asking


def remember(asking: Asking) -> None:
    """Put an asking on top of this session's history, if it is not in it; after a reload it begins with the page's."""
    asked = st.session_state.setdefault("history", [])
    if asking.id not in {known for known, _ in asked}:
        asked.insert(0, (asking.id, asking.question.question))
        del asked[20:]


def show(asking: Asking, corpus: Corpus) -> None:
    """Show the answers side by side as they come, then what can be done with them."""
    _, stop = st.columns([7, 1])
    stop_place = stop.empty()
    if not asking.done:
        stop_place.button(
            "Stop", icon=":material/stop_circle:", width="stretch", on_click=asking.stop, shortcut="Escape", key="stop"
        )
    places: list[object] = [column.empty() for column in st.columns(len(asking.arms))]
    for number in range(len(places)):
        session.show_column(places[number], asking, number, corpus)
    if not asking.done:
        session.watch(asking, places, corpus)
    stop_place.empty()
    share(asking)


def share(asking: Asking) -> None:
    """Show how to take the answers along."""
    row = st.container(horizontal=True)
    markdown = sharing.as_markdown(asking)
    with row.popover("Copy", icon=":material/content_copy:"):
        st.caption("The address of this page holds question and arms. As markdown:")
        st.code(markdown, language="markdown", wrap_lines=True, height=300)
    for name, data, kind in (
        ("Markdown", markdown, "text/markdown"),
        ("CSV", sharing.as_csv(asking), "text/csv"),
        ("JSON", sharing.as_json(asking), "application/json"),
    ):
        file = f"versus-answers.{'md' if name == 'Markdown' else name.lower()}"
        row.download_button(name, data, file, kind, icon=":material/download:", on_click="ignore")


def history() -> None:
    """Show the questions of this session, each a click away."""
    asked = [(key, text) for key, text in st.session_state.get("history", []) if session.desk().find(key)]
    if len(asked) < 2:
        return
    with st.expander(f"Asked before ({len(asked)})", icon=":material/history:"):
        for key, text in asked:
            st.button(look.plain(text[:120]), key=f"again-{key}", type="tertiary", on_click=_again, args=(key,))


def _again(key: str) -> None:
    """Go back to an answered question: its corpus, its arms, the listing that it was asked of."""
    asking = session.desk().find(key)
    if asking is None:
        return
    about = asking.question.about
    st.query_params.update(a=key, q=asking.question.question, corpus=asking.corpus, arms=",".join(asking.arms))
    st.session_state.update(
        {"question": asking.question.question, "arms_again": asking.arms, f"about-{asking.corpus}": about}
    )


def _show_what_was_asked(asking: Asking) -> None:
    """Let question, arms and listing be those of the answers shown, where the browser went back or on to others."""
    before, st.session_state["shown"] = st.session_state.get("shown"), asking.id
    if before == asking.id:
        return
    st.session_state["question"] = asking.question.question
    if before is not None:
        st.session_state["arms_again"] = asking.arms
        st.session_state[f"about-{asking.corpus}"] = asking.question.about


def answered(corpus: Corpus) -> Asking | None:
    """Return the asking of the address; one that is gone, or was asked of another corpus, leaves the address."""
    asking = session.desk().find(st.query_params.get("a", ""))
    if asking is not None and asking.corpus == corpus.name:
        remember(asking)
        _show_what_was_asked(asking)
        return asking
    st.query_params.pop("a", None)
    return None


def getting_ready(corpus: Corpus) -> None:
    """Say how far the first index is, where it is being made; questions can be asked meanwhile, and wait for it."""
    if session.first_index(corpus):
        _getting_ready(corpus)


@st.fragment(run_every=0.7)
def _getting_ready(corpus: Corpus) -> None:
    far = session.first_index(corpus)
    if far is None:
        st.rerun()
    else:
        st.progress(*far)


def main() -> None:
    """Lay out the page."""
    look.page_title("Ask", "One question to every arm, side by side: from documents, from memory, and both combined.")
    where, which = st.columns([1, 3])
    with where:
        corpus = session.pick_corpus()
    asking = answered(corpus)
    with which:
        arms = choose_arms(corpus)
    about = choose_listing(corpus)
    if len(arms) > MOST_ARMS:
        st.warning(f"At most {MOST_ARMS} arms stand side by side; the first {MOST_ARMS} are asked.")
        arms = arms[:MOST_ARMS]
    text = ask_bar(corpus, about)
    if text is not None and not (asking is not None and asking.is_asking(text, arms, about)):
        asking = start(text, arms, corpus, about)
    if asking is not None:
        show(asking, corpus)
        history()
    else:
        getting_ready(corpus)
    missing = set(look.LABELS) - set(session.kinds(corpus).values())
    if missing and asking is None:
        look.empty(
            "More arms to compare",
            "Fine-tuned arms appear here once an adapter was trained on this corpus: on the page Train, or with "
            f"`versus train pocket-live --corpus {corpus.name}`.",
        )


main()
