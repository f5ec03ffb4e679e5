"""Who may come in: everybody on this machine, those who know the password, or those whom OpenID Connect vouches for."""

from __future__ import annotations

import hmac
import os
import time

import streamlit as st

from comparison_app.errors import ComparisonError
from comparison_app.web import look, session

PASSWORD = "VERSUS_APP_PASSWORD"
LOGIN = "VERSUS_APP_LOGIN"
"""Environment variables that `versus app --password-env` and `--login` set for this process."""


def pass_or_stop() -> None:
    """Let a visitor pass, or show how to log in and stop the page."""
    if os.environ.get(LOGIN):
        _login()
    elif os.environ.get(PASSWORD):
        _password(os.environ[PASSWORD])


def _login() -> None:
    if getattr(st.user, "is_logged_in", False):
        st.sidebar.button("Log out", on_click=st.logout)
        return
    look.page_title("Versus", "Log in to ask, vote and compare.")
    st.button("Log in", type="primary", on_click=session.guarded(_to_provider))
    st.stop()


def _to_provider() -> None:
    from streamlit.errors import StreamlitAuthError

    try:
        st.login()
    except StreamlitAuthError as error:
        raise ComparisonError(f"the login cannot start: {error}") from error


def _password(secret: str) -> None:
    if st.session_state.get("passed"):
        return
    look.page_title("Versus", "This app asks for a password.")
    with st.form("password", border=False):
        given = st.text_input("Password", type="password", autocomplete="current-password")
        sent = st.form_submit_button("Log in", type="primary")
    if sent:
        time.sleep(0.5)  # slows guessing down
        if hmac.compare_digest(given.encode(), secret.encode()):
            st.session_state["passed"] = True
            st.rerun()
        st.error("That is not the password. Whoever started the app can tell it.")
    st.stop()
