"""Review of drafted questions, beside the evidence they were drafted from; part of the page Documents."""

from __future__ import annotations

import streamlit as st
from markupsafe import Markup

from comparison_app.errors import ComparisonError
from comparison_app.library import is_editable
from comparison_app.web import look, session
from data_prep.corpus import Corpus
from data_prep.drafts import drafts_path
from data_prep.errors import DataError
from data_prep.review import ReviewItem, decide, load_drafts, publish_facts

SHOWN = ("open", "accepted", "edited", "rejected", "dropped")


def review_drafts(corpus: Corpus) -> None:
    """Show the drafts one at a time, those still open first, with what can be decided on each."""
    if not drafts_path(corpus.path).exists():
        look.empty(
            "No drafted questions",
            f"`versus questions draft {corpus.name}` drafts questions with their evidence; they wait here to be "
            "accepted, edited or rejected.",
        )
        return
    items = load_drafts(corpus.path)
    groups = {name: [item for item in items if _group(item) == name] for name in SHOWN}
    decided = sum(len(groups[name]) for name in ("accepted", "edited", "rejected"))
    st.progress(decided / max(1, decided + len(groups["open"])), f"{decided} decided, {len(groups['open'])} open")
    shown = st.segmented_control(
        "Drafts", SHOWN, default="open", required=True, format_func=lambda g: f"{g} ({len(groups[g])})"
    )
    found = groups[str(shown)]
    if not found:
        look.empty("Nothing here", "Choose another group; accepted questions are published below.")
    else:
        place = st.number_input(f"Draft (of {len(found)})", 1, len(found), 1) if len(found) > 1 else 1
        draft(corpus, found[int(place) - 1])
    publish(corpus, len(groups["accepted"]) + len(groups["edited"]))


def _group(item: ReviewItem) -> str:
    """Return under which heading a draft stands."""
    return item.state or ("dropped" if item.draft.dropped else "open")


def draft(corpus: Corpus, item: ReviewItem) -> None:
    """Show one draft beside its evidence."""
    words, evidence = st.columns(2)
    with words:
        answers = " | ".join(item.draft.answers) or "none: the documents hold no answer"
        facts = Markup("").join(Markup("<li>{}</li>").format(text) for text in item.draft.questions)
        look.html(Markup("<ul>{}</ul><p><b>Answer:</b> {}</p>").format(facts, answers))
        told = [item.draft.origin, f"evidence {item.draft.located}" if item.draft.located else ""]
        told += [] if item.draft.evidence else ["no evidence"]
        told += [f"dropped: {item.draft.dropped} {item.draft.detail or ''}"] if item.draft.dropped else []
        st.caption(look.plain(" · ".join(text for text in told if text)))
    with evidence:
        if item.evidence:
            text = Markup('<div class="v-passage">{}<mark>{}</mark>{}</div>')
            look.html(text.format(*map(look.flowing, (item.before, item.evidence, item.after))))
        else:
            st.caption("A question that the documents should not answer has no evidence.")
    row, decided = st.container(horizontal=True), session.guarded(decide)
    row.button(
        "Accept",
        type="primary",
        key=f"yes-{item.id}",
        shortcut="A",
        on_click=decided,
        args=(corpus.path, item.id, "accept"),
    )
    row.button("Reject", key=f"no-{item.id}", shortcut="X", on_click=decided, args=(corpus.path, item.id, "reject"))
    if item.state:
        row.button("Open again", key=f"open-{item.id}", on_click=decided, args=(corpus.path, item.id, "reopen"))
    with st.expander("Edit"), st.form(f"edit-{item.id}"):
        wordings = st.text_area("Wordings, one a line", "\n".join(item.draft.wordings))
        paraphrases = st.text_area("Paraphrases, for the test alone, one a line", "\n".join(item.draft.paraphrases))
        given = st.text_area("Answers, one a line; none if it cannot be answered", "\n".join(item.draft.answers))
        shown = item.draft.quote or item.evidence
        quote = st.text_area("Evidence, in the document's own words; none if it cannot be answered", shown).strip()
        if st.form_submit_button("Save and accept"):
            edited: dict[str, str | list[str]] = {"wordings": _lines(wordings), "answers": _lines(given)}
            edited["paraphrases"] = _lines(paraphrases)
            if quote != shown.strip():
                edited["quote"] = quote
            _save(corpus, item, edited)


def _save(corpus: Corpus, item: ReviewItem, edited: dict[str, str | list[str]]) -> None:
    """Record an edit; what is wrong with it is told in the form, and what was typed stays."""
    try:
        decide(corpus.path, item.id, "edit", edited)
    except DataError as error:
        st.error(look.plain(str(error)))
        return
    st.rerun()


def publish(corpus: Corpus, count: int) -> None:
    """Offer to write what was accepted into the corpus's facts."""
    if not count:
        return
    if st.button(f"Publish {count} accepted", icon=":material/publish:"):
        if not is_editable(corpus):
            raise ComparisonError(f"{corpus.name} ships with Versus and stays as it is; copy it to change the copy")
        whole = publish_facts(corpus.path)
        st.success(
            f"{whole} facts stand in the corpus; `versus questions split {corpus.name}` makes questions of them."
        )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
