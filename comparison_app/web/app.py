"""The side-by-side app: run by `versus app` through Streamlit."""

from __future__ import annotations

import streamlit as st

st.set_page_config(page_title="Versus", page_icon="⚖️", layout="wide")
st.navigation(
    [
        st.Page("ask.py", title="Ask", icon=":material/compare_arrows:", default=True),
        st.Page("reports.py", title="Reports", icon=":material/lab_profile:"),
    ]
).run()
