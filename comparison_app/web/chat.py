"""The page Chat: talk with a model as it is, under a system message of one's own, without documents."""

from __future__ import annotations

import streamlit as st
from markupsafe import Markup

from comparison_app.asking import LONGEST_QUESTION, Asking
from comparison_app.conversing import Conversation, Talk, Turn
from comparison_app.experiment import ArmSpec
from comparison_app.web import look, session
from data_prep.corpus import Corpus
from data_prep.questions import Question


def said(turn: Turn) -> None:
    """Show one thing said, as text."""
    with st.chat_message(turn.role):
        look.html(Markup('<div class="v-answer" dir="auto">{}</div>').format(turn.text))


def reply(talk: Talk, asking: Asking) -> None:
    """Show a reply as it comes, with a way to stop it, and keep it."""
    with st.chat_message("assistant"):
        place = st.empty()
        stop = st.empty()
        stop.button("Stop", icon=":material/stop_circle:", on_click=asking.stop, shortcut="Escape")
        for columns in asking.watch():
            column = columns[0]
            error = column.prediction.error if column.prediction else None
            kind = "v-note bad" if error else "v-answer" + (" caret" if column.state == "writing" else "")
            body = Markup('<div class="{}" dir="auto">{}</div>').format(kind, error or column.text.strip())
            place.html(str(body))
        stop.empty()
    talk.settle(asking)


def current() -> Talk:
    """Return the conversation of the address, or of this session; a new one where there is none."""
    known = st.query_params.get("c") or st.session_state.get("talk") or ""
    talk = session.talks().find(known)
    if talk is None:
        st.query_params.pop("c", None)
        return Talk()
    st.query_params["c"] = known
    return talk


def say(text: str, talk: Talk, corpus: Corpus, spec: ArmSpec, system: str) -> None:
    """Say something, and keep the conversation under an id in the address."""
    if talk.asking is not None:  # what came of the last reply is kept
        talk.asking.stop()
        talk.settle(talk.asking)
    said(Turn("user", text))
    conversation = Conversation(session.pool(), corpus, spec, system, list(talk.turns))
    asking = Asking(Question("chat", text), (spec.name,), corpus.name).start(lambda _: conversation)
    talk.arm, talk.system = spec.name, system
    talk.say(text, asking)
    if "c" not in st.query_params:
        st.session_state["talk"] = st.query_params["c"] = session.talks().put(talk)


def main() -> None:
    """Lay out the page."""
    look.page_title("Chat", "Talk with a model as it is: no documents, a system message of your own.")
    corpus = session.workspace().corpus(session.default_corpus())
    specs = {spec.name: spec for spec in session.pool().specs(corpus) if spec.model is not None}
    if not specs:
        look.empty("No model to talk with", "The arms of this app only quote documents. Start it with other arms.")
        return
    which, clear = st.columns([4, 1], vertical_alignment="bottom")
    names = sorted(specs, key=lambda name: specs[name].kind != "base")
    talk = current()
    if clear.button("New chat", icon=":material/add_comment:", width="stretch"):
        st.session_state.pop("talk", None)
        st.query_params.pop("c", None)
        talk = Talk()
    place = names.index(talk.arm) if talk.arm in names else 0
    name = which.selectbox(
        "Model", names, index=place, format_func=lambda item: f"{look.label(item)} ({specs[item].generator})"
    )
    with st.expander("System message", icon=":material/tune:"):
        st.session_state.setdefault("system", talk.system)
        system = st.text_area("System message", key="system", max_chars=2000, label_visibility="collapsed")
    for turn in list(talk.turns):
        said(turn)
    if not talk.turns:
        look.empty(
            "Say something",
            "The replies come from the model's memory alone. The bundled pocket model is tiny: it was made for short "
            "answers, not for talk. A larger model stands here once an experiment names it: `versus app --experiment`.",
        )
    text = st.chat_input("Message", max_chars=LONGEST_QUESTION)
    if text and text.strip():
        say(text, talk, corpus, specs[name], system)
    if talk.asking is not None:
        reply(talk, talk.asking)


main()
