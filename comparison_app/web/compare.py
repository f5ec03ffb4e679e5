"""The page Compare: put arms to the same questions, watch, read the report, set one run against another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st
from markupsafe import Markup

from comparison_app.comparison import changes_between
from comparison_app.errors import ComparisonError, RunError
from comparison_app.experiment_form import estimate, slice_counts, write_experiment
from comparison_app.jobs import Job, progress
from comparison_app.regression import HEADER, Comparison
from comparison_app.run_table import NOBODY, TIE, Row, chosen, read_rows, summary_table
from comparison_app.summary import read_summary
from comparison_app.web import look, session
from comparison_app.workspace import Workspace

TABS = ("Report", "Questions", "Against another run", "New comparison")
PAGE = 20


def start_form() -> None:
    """Show the choice of corpus, arms and slices with an estimate, and start a comparison."""
    with st.columns([1, 3])[0]:
        corpus = session.pick_corpus()
    counts = slice_counts(corpus)
    if not counts:
        look.empty(
            "This corpus has no test questions",
            f"Bring some with `versus questions import FILE --into {corpus.name}`, then compare.",
        )
        return
    specs = {spec.name: spec for spec in session.pool().specs(corpus)}
    arms = st.pills(
        "Arms",
        list(specs),
        selection_mode="multi",
        default=list(specs)[:3],
        format_func=lambda arm: look.plain(look.label(arm)),
    )
    slices = st.pills(
        "Slices", list(counts), selection_mode="multi", default=[name for name in counts if name != "new-document"]
    )
    most = st.slider("Questions of each slice, at most", 1, max(2, max(counts.values())), min(20, max(counts.values())))
    sample = {name: min(most, counts[name]) for name in slices}
    name = st.text_input("Name", value=f"{corpus.name}-check")
    expected = estimate(
        session.workspace(), [specs[arm] for arm in arms], sum(sample.values()), session.pool().currency
    )
    st.caption(look.plain(expected.in_words(look.label)))
    if st.button("Start the comparison", type="primary", icon=":material/play_arrow:"):
        path = write_experiment(session.workspace(), name, corpus, [specs[arm] for arm in arms], sample)
        launch({"experiment": str(path.resolve()), "name": session.workspace().new_run_name(path.stem)})


def launch(arguments: dict[str, object]) -> None:
    """Start a comparison; what is wrong stands on the page."""
    try:
        job = session.jobs().start("compare", str(arguments["name"]), dict(arguments))
        st.session_state[session.WATCHED] = job.id
        st.rerun()
    except ComparisonError as error:
        look.warn(error)


def jobs() -> None:
    """Show the comparison at work, or how the last one ended."""
    found = session.jobs().jobs("compare")
    active = session.jobs().active("compare")
    if active is not None:
        running(active)
        return
    if found:
        state = session.jobs().state(found[0])
        if state.state == "done" and st.session_state.pop(session.WATCHED, None) == found[0].id:
            st.query_params.update(run=str(state.result["run"]), tab=TABS[0])
            st.rerun()
        elif state.state in ("failed", "stopped", "lost"):
            box = st.container(border=True)
            box.write(look.plain(f"{found[0].title} {state.state}: {state.message}"))
            box.button("Resume", key=f"resume-{found[0].id}", on_click=session.resuming(found[0]))


@st.fragment(run_every=1)
def running(job: Job) -> None:
    """Show a comparison at work."""
    if session.jobs().state(job).state != "running":
        st.rerun()
        return
    rows = progress(job)
    last: dict[str, Any] = rows[-1] if rows else {"stage": "loading"}
    with st.container(border=True):
        head, stop = st.columns([5, 1], vertical_alignment="center")
        head.markdown(f"**{look.plain(job.title)}**")
        stop.button("Stop", icon=":material/stop_circle:", width="stretch", on_click=session.jobs().stop, args=(job,))
        left = f" · {last['left']:.0f} s left" if last.get("left") is not None else ""
        done = f" · {last['done']:,} of {last['total']:,}" if last.get("total") else ""
        share = last["done"] / last["total"] if last.get("total") else 0.0
        st.progress(min(1.0, share), look.plain(f"{str(last['stage']).capitalize()}{done}{left}"))


def report(run: Path) -> None:
    """Show a run's verdict, scores and report."""
    summary = read_summary(run / "summary.json")
    look.html(Markup('<div class="v-note">{}</div>').format(summary["verdict"]))
    rows = summary_table(summary)
    header = list(dict.fromkeys(key for row in rows for key in row))
    look.table(header, [[row.get(key) for key in header] for row in rows])
    st.caption(
        f"Mean {look.plain(summary['primary_metric'])} by slice; on unanswerable questions the share declined or "
        "answered rightly."
    )
    bar = st.container(horizontal=True)
    for file, words, kind in (
        ("report.html", "Report", "text/html"),
        ("questions.csv", "Questions (CSV)", "text/csv"),
        ("summary.json", "Summary (JSON)", "application/json"),
    ):
        if (run / file).is_file():
            data = (run / file).read_bytes()
            bar.download_button(words, data, f"{run.name}-{file}", kind, icon=":material/download:", on_click="ignore")
    st.iframe((run / "report.html").read_text(encoding="utf-8"), height=900)


def browse(run: Path) -> None:
    """Show a run question by question, with filters."""
    rows = read_rows(run)
    arms = list(rows[0].cells) if rows else []
    slices = list(dict.fromkeys(row.slice for row in rows))
    one, two, three, four = st.columns([2, 2, 2, 1], vertical_alignment="bottom")
    picked = one.multiselect("Slices", slices, placeholder="all", key="slices", bind="query-params")
    winner = two.selectbox(
        "Who won",
        [*arms, TIE, NOBODY],
        index=None,
        placeholder="anybody",
        format_func=look.label,
        key="won",
        bind="query-params",
    )
    text = three.text_input("Words in the question", key="words", bind="query-params")
    errors = four.checkbox("Errors only", key="errors", bind="query-params")
    found = chosen(rows, slices=picked, winner=winner, errors=errors, text=text)
    st.caption(f"{len(found):,} of {len(rows):,} questions")
    if not found:
        look.empty("No question fits", "Take a filter away.")
        return
    pages = -(-len(found) // PAGE)
    page = st.number_input(f"Page (of {pages})", 1, pages, 1) if pages > 1 else 1
    for row in found[(page - 1) * PAGE : page * PAGE]:
        question(row, arms)


def question(row: Row, arms: list[str]) -> None:
    """Show one question with every arm's answer and what it is worth."""
    with st.expander(look.plain(f"{row.question[:160]}  ·  {row.slice}  ·  {look.label(row.winner)}")):
        look.html(Markup('<p class="v-facts">Expected: {}</p>').format(row.gold or "to decline"))
        cells = []
        for arm in arms:
            cell = row.cells[arm]
            said = f"failed: {cell.error}" if cell.error else "(declined)" if cell.declined else cell.answer
            cells.append((look.label(arm), cell.credit, f"{cell.seconds:.2f} s", said[:1200]))
        look.table(("arm", "worth", "time", "answer"), cells, wide=[3])


def against(run: Path, others: list[str]) -> None:
    """Show what changed from another run to this one."""
    earlier = [name for name in others if name != run.name]
    other = st.selectbox("Earlier run", earlier, index=None, placeholder="choose", key="against", bind="query-params")
    if not other:
        look.empty("Two runs side by side", "Choose the run to compare with: shared arms are set against each other.")
        return
    try:
        with st.spinner("Scoring both runs"):
            found = changes(str(session.workspace().path), other, run.name, _written(run), _written(run.parent / other))
    except RunError as error:
        look.empty("These runs cannot be compared", f"{str(error).capitalize()}.")
        return
    look.html(Markup('<div class="v-note">{}</div>').format(found.outcome))
    look.table(HEADER, [(look.label(row.arm), *row.in_words[1:]) for row in found.changes], wide=[1])
    st.caption(
        f"Worth in points on the {found.questions:,} questions of both runs: {look.plain(run.name)} (now) minus "
        f"{look.plain(other)} (then), "
        "paired by question, with 95 % intervals by document and p-values adjusted for their number (Holm)."
    )
    told = [*found.notes, *(f"{key}: {then} → {now}" for key, (then, now) in found.provenance.items())]
    if told:
        with st.expander(f"What was made differently ({len(told)})"):
            look.html(Markup("").join(Markup('<p class="v-facts">{}</p>').format(line) for line in told))


@st.cache_data(show_spinner=False, max_entries=8)
def changes(workspace: str, then: str, now: str, *written: float) -> Comparison:
    """Return what changed between two runs, scored once for as long as their answers stay as they are."""
    return changes_between(Workspace(Path(workspace)), then, now)


def _written(run: Path) -> float:
    path = run / "predictions.jsonl"
    return path.stat().st_mtime if path.is_file() else 0.0


def main() -> None:
    """Lay out the page."""
    look.page_title("Compare", "All arms, the same questions: which to trust where, and how sure that is.")
    jobs()
    runs = session.workspace().finished_runs()
    wanted = st.query_params.get("tab")
    usual = TABS[0] if runs else TABS[3]
    tab = st.segmented_control(
        "Show", TABS, default=wanted if wanted in TABS else usual, required=True, key=f"tab-{wanted}"
    )
    session.note("tab", str(tab), usual)
    if tab == TABS[3]:
        start_form()
        return
    if not runs:
        look.empty(
            "No run yet",
            "Start one under New comparison, or run the whole job with `versus demo`.",
        )
        return
    given = st.query_params.get("run")
    if given is not None and given not in runs:
        st.warning(look.plain(f"There is no finished run {given[:80]} here (any more); this is the latest."))
    name = st.selectbox("Run", runs, index=runs.index(given) if given in runs else 0, key=f"run-{given}")
    session.note("run", name, None if st.query_params else runs[0])  # who opens the page alone sees the latest
    run = session.workspace().runs / name
    if tab == TABS[1]:
        browse(run)
    elif tab == TABS[2]:
        against(run, runs)
    else:
        report(run)


main()
