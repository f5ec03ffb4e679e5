"""The page Train: choose recipe and data, start, watch the loss, stop, resume; the adapters with their records."""

from __future__ import annotations

from typing import Any

import streamlit as st

from comparison_app.errors import ComparisonError
from comparison_app.jobs import Job, training_progress, training_steps
from comparison_app.web import look, session
from comparison_app.workspace import training_name
from data_prep.corpus import Corpus
from data_prep.errors import VersusError


def form(corpus: Corpus) -> None:
    """Show the choice of recipe and data, and start a training."""
    from finetune.config import load_recipe, recipe_names

    names = recipe_names()
    usual = names.index("pocket-live") if "pocket-live" in names else 0
    with st.container(border=True):
        recipe = st.selectbox("Recipe", names, index=usual)
        st.caption(load_recipe(recipe).description)
        left, middle, right = st.columns(3)
        name = left.text_input("Name of the adapter", value=f"{corpus.name}-{recipe}")
        subset = middle.selectbox("Facts", ["all", *corpus.subset_names()], help="A nested subset trains faster.")
        limit = right.number_input("Stop after seconds (0: as the recipe says)", min_value=0, value=0, step=30)
        count = len(corpus.questions("train"))
        if not count:
            look.empty(
                "This corpus has no questions to train on",
                f"Bring some with `versus questions import FILE --into {corpus.name}`, or draft them.",
            )
            return
        if st.button("Start training", type="primary", icon=":material/play_arrow:"):
            arguments = {"recipe": recipe, "corpus": str(corpus.path.resolve()), "name": training_name(name)}
            start(arguments | {"subset": None if subset == "all" else subset, "max_seconds": limit or None})
        st.caption(f"{count:,} train questions in {look.plain(corpus.name)}. One training at a time runs on a device.")


def start(arguments: dict[str, Any]) -> None:
    """Start a training; what is wrong stands on the page."""
    try:
        session.jobs().start("train", arguments["name"], arguments)
        st.rerun()
    except ComparisonError as error:
        look.warn(error)


@st.fragment(run_every=1)
def running(job: Job) -> None:
    """Show a training at work: how far, the loss, the time left, and a way to stop it."""
    state = session.jobs().state(job)
    if state.state != "running":
        st.rerun()
        return
    steps = training_steps(job)
    head, stop = st.columns([5, 1], vertical_alignment="center")
    head.subheader(f"Training {look.plain(job.title)}", anchor=False)
    stop.button(
        "Stop", icon=":material/stop_circle:", width="stretch", key="stop-training", on_click=_stop, args=(job,)
    )
    far = training_progress(steps)
    if far is None:
        st.progress(0.0, "Loading the model")
        return
    told = f"Step {far.step:,} of {far.total:,} · loss {far.loss:.3f} · {far.seconds_left:.0f} s left"
    st.progress(far.share, told)
    curve(steps)


def _stop(job: Job) -> None:
    session.jobs().stop(job)
    st.toast("Stopping after this step; it can be resumed.")


def curve(steps: list[dict[str, Any]]) -> None:
    """Draw the loss."""
    import pandas as pd  # type: ignore[import-untyped]

    thinned = steps[:: max(1, len(steps) // 400)]
    data = pd.DataFrame({"step": [row["step"] for row in thinned], "loss": [row["loss"] for row in thinned]})
    st.line_chart(data, x="step", y="loss", height=240, color="#2f6fde", alt="training loss by step")


def past(jobs: list[Job]) -> None:
    """List earlier trainings, with the reason where one ended early, and a way to resume it."""
    for job in jobs[:8]:
        state = session.jobs().state(job)
        icon = {"done": "check_circle", "stopped": "pause_circle"}.get(state.state, "error")
        with st.expander(
            look.plain(f"{job.title}: {state.state} ({job.started[:16].replace('T', ' ')})"), icon=f":material/{icon}:"
        ):
            if state.message:
                st.write(look.plain(state.message))
            if state.state in ("stopped", "lost", "failed"):
                # above the curve, which is drawn late and would push the button away under the pointer
                st.button("Resume", key=f"resume-{job.id}", on_click=session.resuming(job))
            steps = training_steps(job)
            if len(steps) > 1:
                curve(steps)


def adapters() -> None:
    """List the adapters with their run records."""
    from finetune.run_record import read_run_record

    workspace = session.workspace()
    rows, records = [], {}
    for name in workspace.adapter_names():
        try:
            record = read_run_record(workspace.adapter(name))
        except VersusError as error:
            st.warning(look.plain(error))
            continue
        records[name] = record
        last = record.losses[-1][1] if record.losses else None
        kind = "with context" if record.context else "closed book"
        rows.append(
            (
                name,
                record.base_model,
                kind,
                len(record.trained_ids),
                record.steps,
                last,
                f"{record.seconds:.0f} s",
                record.finished[:10],
            )
        )
    st.subheader("Adapters", anchor=False)
    if not rows:
        look.empty("No adapter yet", "Start a training above; pocket takes a few minutes on two cores.")
        return
    look.table(("adapter", "base model", "kind", "questions", "steps", "last loss", "time", "made"), rows, wide=[1, 2])
    name = st.selectbox("Run record of", list(records), index=None, placeholder="choose an adapter")
    if name:
        record = records[name]
        if len(record.losses) > 1:
            curve([{"step": step, "loss": loss} for step, loss in record.losses])
        shown = {"recipe": record.recipe, "data_sha256": record.data_sha256, "base": record.base_fingerprint}
        st.json({**shown, "device": record.device, "seed": record.seed, "versions": record.versions}, expanded=False)


def main() -> None:
    """Lay out the page."""
    look.page_title("Train", "An adapter that knows your documents by heart, to be compared with retrieval.")
    with st.columns([1, 3])[0]:
        corpus = session.pick_corpus()
    jobs = session.jobs().jobs("train")
    active = session.jobs().active("train")
    if active is not None:
        running(active)
    else:
        form(corpus)
    past([job for job in jobs if job != active])
    adapters()


main()
