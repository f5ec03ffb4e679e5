"""The side-by-side app: run by `versus app` through Streamlit."""

from __future__ import annotations

import logging

import streamlit as st

from comparison_app.web import gate, look, session
from data_prep.errors import VersusError

st.set_page_config(page_title="Versus", page_icon="⚖️", layout="wide", initial_sidebar_state="collapsed")
st.html(look.STYLE)
gate.pass_or_stop()
session.warm_up()
page = st.navigation(
    [
        st.Page("ask.py", title="Ask", icon=":material/compare_arrows:", default=True),
        st.Page("vote.py", title="Vote", icon=":material/how_to_vote:"),
        st.Page("chat.py", title="Chat", icon=":material/forum:"),
        st.Page("documents.py", title="Documents", icon=":material/library_books:"),
        st.Page("train.py", title="Train", icon=":material/model_training:"),
        st.Page("compare.py", title="Compare", icon=":material/lab_profile:"),
    ],
    position="top",
)
try:
    page.run()
except VersusError as error:
    look.mend(error)
except Exception:  # Streamlit's own words for it speak of its cloud; what leads out of a page is no Exception
    logging.getLogger("versus").exception("the page %s failed", page.title)
    look.mend(
        f"The page {page.title} met a mistake of Versus itself. Nothing that was kept is lost: load the page again, or "
        "go on with another one. What happened stands where `versus app` was started."
    )
