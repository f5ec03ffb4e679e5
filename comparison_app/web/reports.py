"""The page Reports: the runs of the workspace, and the report of the chosen one."""

from __future__ import annotations

import streamlit as st

from comparison_app.summary import read_summary
from comparison_app.web import session

st.title("Reports")
runs = sorted(session.workspace().runs.glob("*/summary.json"), key=lambda path: path.stat().st_mtime, reverse=True)
if not runs:
    st.info("No run has been finished yet. `versus demo` makes the first; `versus compare FILE` makes your own.")
else:
    names = [path.parent.name for path in runs]
    given = st.query_params.get("run")
    name = st.selectbox("Run", names, index=names.index(given) if given in names else 0)
    st.query_params["run"] = name
    folder = session.workspace().runs / name
    st.write(read_summary(folder / "summary.json")["verdict"])
    report = folder / "report.html"
    st.download_button("Download the report", report.read_bytes(), f"{name}.html", "text/html")
    st.iframe(report.read_text(encoding="utf-8"), height=900)
