"""The page Chat: talk with a model as it is, under a system message of one's own, without documents."""

from __future__ import annotations

import streamlit as st
from markupsafe import Markup

from comparison_app.asking import LONGEST_QUESTION, Asking
from comparison_app.conversing import Conversation, Turn
from comparison_app.web import look, session
from data_prep.questions import Question


def said(turn: Turn) -> None:
    """Show one thing said, as text."""
    with st.chat_message(turn.role):
        look.html(Markup('<div class="v-answer" dir="auto">{}</div>').format(turn.text))


def reply(asking: Asking, turns: list[Turn]) -> None:
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
    column = asking.columns[0]
    if column.text.strip():
        turns.append(Turn("assistant", column.text.strip()))
    st.session_state.pop("chat_asking", None)


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
    name = which.selectbox("Model", names, format_func=lambda item: f"{look.label(item)} ({specs[item].generator})")
    with st.expander("System message", icon=":material/tune:"):
        system = st.text_area("System message", key="system", max_chars=2000, label_visibility="collapsed")
    turns: list[Turn] = st.session_state.setdefault("turns", [])
    if clear.button("New chat", icon=":material/add_comment:", width="stretch"):
        turns.clear()
        st.session_state.pop("chat_asking", None)
    for turn in turns:
        said(turn)
    if not turns:
        look.empty(
            "Say something",
            "The replies come from the model's memory alone. The bundled pocket model is tiny: it was made for short "
            "answers, not for talk. A larger model stands here once an experiment names it: `versus app --experiment`.",
        )
    text = st.chat_input("Message", max_chars=LONGEST_QUESTION)
    if text and text.strip():
        said(Turn("user", text))
        talk = Conversation(session.pool(), corpus, specs[name], system, turns)
        asking = Asking(Question("chat", text), (name,), corpus.name).start(lambda _: talk)
        turns.append(Turn("user", text))
        st.session_state["chat_asking"] = asking
    running = st.session_state.get("chat_asking")
    if running is not None:
        reply(running, turns)


main()
