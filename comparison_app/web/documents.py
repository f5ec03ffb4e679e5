"""The page Documents: what the answers rest on. Read, search, add, change, index again, review drafted questions."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from comparison_app import library as documents
from comparison_app.jobs import check_address, progress
from comparison_app.library import Reindexing
from comparison_app.passages import excerpt, pictures_of
from comparison_app.uploads import LARGEST_UPLOAD, Upload
from comparison_app.web import look, session
from data_prep.corpus import Corpus, load_corpus
from data_prep.errors import VersusError
from data_prep.folders import ScrapeReport

TABS = ("Read", "Search", "Add", "Index", "Review")


def read(corpus: Corpus) -> None:
    """List the documents and show one, with ways to change it."""
    ids = corpus.document_ids(include_new=True)
    titles = {name: corpus.manifest[name].title if name in corpus.manifest else name for name in ids}
    wanted = st.query_params.get("document")
    name = st.selectbox(
        f"Document ({len(ids):,})",
        ids,
        index=ids.index(wanted) if wanted in ids else 0,
        format_func=lambda item: f"{titles[item]}  ·  {item}",
        help="Type to search by title or id.",
    )
    session.note("document", name, ids[0])
    text = documents.read_document(corpus, name)
    if documents.is_editable(corpus):
        change(corpus, name, text)
    else:
        copy(corpus)
    with st.container(border=True):
        look.html(look.document(text, lambda link: _picture(link, corpus), lambda link: _page(link, corpus)))


def _picture(link: str, corpus: Corpus) -> str | None:
    found = pictures_of(f"![]({link})", corpus)
    return found[0].address if found else None


def _page(link: str, corpus: Corpus) -> str | None:
    name = documents.linked_document(corpus, link)
    return f"?{urlencode({'corpus': corpus.name, 'document': name})}" if name else None


def change(corpus: Corpus, name: str, text: str) -> None:
    """Show the ways to edit and delete one document."""
    row = st.container(horizontal=True, vertical_alignment="center")
    editing = row.toggle("Edit", key=f"edit-{name}")
    with row.popover("Delete", icon=":material/delete:"):
        st.write("The document is removed from the corpus; its answers go once the index is brought up to date.")
        if st.button("Delete it", type="primary", key=f"delete-{name}"):
            documents.delete_document(corpus, name)
            st.query_params.pop("document", None)
            st.toast(f"{look.plain(name)} was deleted. Bring the index up to date next.")
            st.rerun()
    if editing:
        with st.form(f"form-{name}"):
            edited = st.text_area("Markdown", value=text, height=420)
            if st.form_submit_button("Save", type="primary"):
                documents.write_document(corpus, name, edited)
                st.toast(f"{look.plain(name)} was saved. Bring the index up to date next.")
                st.rerun()


def copy(corpus: Corpus) -> None:
    """Offer to copy a corpus that ships, since it is not changed itself."""
    with st.popover("Copy this corpus to change it", icon=":material/content_copy:"):
        name = st.text_input("Name of the copy", value=f"my-{corpus.name}")
        if st.button("Copy"):
            made = documents.copy_corpus(corpus, name, session.workspace())
            open_corpus(made.name)


def open_corpus(name: str) -> None:
    """Go to a corpus."""
    session.known_corpora.clear()
    st.session_state["corpus_name"] = name
    st.query_params["corpus"] = name
    st.rerun()


def search(corpus: Corpus) -> None:
    """Search, and show the score of each stage."""
    query = st.text_input("Search", value=st.query_params.get("query", ""), placeholder="words, or a question")
    if not query.strip():
        look.empty(
            "Look behind the answers",
            "Retrieval in its stages: closeness of meaning, words in common (BM25), and both fused into one rank.",
        )
        return
    st.query_params["query"] = query[:500]
    found = session.library().search(corpus, query)
    if not found:
        look.empty("Nothing was found", "Try fewer or other words.")
    rows = [
        (
            f"{number}. {chunk.meta.get('title', '')}",
            *(chunk.meta["scores"].get(stage) for stage in ("fused", "dense", "lexical")),
            chunk.meta.get("section") or "",
            excerpt(chunk.content or ""),
        )
        for number, chunk in enumerate(found, start=1)
    ]
    if rows:
        look.table(("document", "fused", "meaning", "words", "section", "passage"), rows, wide=[4, 5])


def add(corpus: Corpus) -> None:
    """Take in files, or the pages of a site."""
    own = documents.is_editable(corpus)
    into = st.text_input(
        "Into which corpus?", value=corpus.name if own else "my-documents", help="A new name makes a new corpus."
    )
    files, site = st.columns(2)
    with files, st.form("upload"):
        st.subheader("Files", anchor=False)
        given = st.file_uploader(
            f"Documents or a zip of them, {LARGEST_UPLOAD / 1e6:.0f} MB at most", accept_multiple_files=True
        )
        if st.form_submit_button("Add the files", type="primary"):
            _take_in(into, [Upload(file.name, file.getvalue()) for file in given])
    with site, st.form("scrape"):
        st.subheader("A site", anchor=False)
        address = st.text_input("Address", placeholder="https://…")
        st.caption("Its pages are fetched within the address given, as robots.txt allows.")
        if st.form_submit_button("Fetch the pages"):
            _fetch(address, into)
    if "taken_in" in st.session_state:
        name, report = st.session_state["taken_in"]
        taken(name, report)
    scrapes()


def _take_in(into: str, files: list[Upload]) -> None:
    """Take files in; what is wrong with them stands in the form."""
    try:
        with st.spinner("Reading the files …"):
            st.session_state["taken_in"] = (into, session.library().add(into, files))
    except VersusError as error:
        look.mend(error)
    session.known_corpora.clear()


def _fetch(address: str, into: str) -> None:
    """Start fetching a site; what is wrong with the address or the name stands in the form."""
    try:
        sources = [check_address(address)]
        name = documents.check_name(into)
        session.jobs().start("scrape", f"{sources[0]} into {name}", {"sources": sources, "into": name})
    except VersusError as error:
        look.mend(error)


def taken(name: str, report: ScrapeReport) -> None:
    """Say what an upload brought."""
    st.success(
        f"{look.plain(name)}: {len(report.added)} added, {len(report.changed)} changed, "
        f"{len(report.unchanged)} unchanged, {len(report.skipped)} passed over. The index is being brought up to date."
    )
    if report.skipped:
        look.table(("passed over", "why"), list(report.skipped.items())[:50], wide=[1])
    if st.button("Ask it", type="primary", icon=":material/compare_arrows:"):
        st.session_state.pop("taken_in")
        st.session_state["corpus_name"] = name
        st.switch_page("ask.py", query_params={"corpus": name})
    following(load_corpus(session.workspace().corpora / name))


@st.fragment(run_every=2)
def scrapes() -> None:
    """Show the latest scrape."""
    found = session.jobs().jobs("scrape")[:1]
    for job in found:
        state = session.jobs().state(job)
        told = (progress(job) or [{}])[-1].get("stage", "")
        words = {"running": told or "starting", "done": "done; index the corpus to ask it"}
        st.caption(look.plain(f"{job.title}: {words.get(state.state, state.message)}"))


def index(corpus: Corpus) -> None:
    """Bring the index up to the documents, with progress, while others go on asking."""
    new = len(corpus.new_document_ids())
    include = bool(new) and st.checkbox(f"Take in {look.count(new, 'new document')} as well", value=False)
    row = st.container(horizontal=True, vertical_alignment="center")
    if row.button("Bring the index up to date", type="primary", icon=":material/sync:"):
        session.library().reindex(corpus, include_new=include)
    row.caption("Only what changed is embedded. Questions asked meanwhile are answered from the index as it was.")
    following(corpus)


def following(corpus: Corpus) -> None:
    """Follow a re-indexing until it ends."""
    task = session.library().reindexing(corpus)
    if task is None:
        return
    if task.finished.is_set():
        indexed(task)
    else:
        _follow(corpus)


@st.fragment(run_every=0.5)
def _follow(corpus: Corpus) -> None:
    task = session.library().reindexing(corpus)
    if task is None or task.finished.is_set():
        st.rerun()
        return
    share = task.done / task.total if task.total else 0.0
    st.progress(share, task.stage)


def indexed(task: Reindexing) -> None:
    """Say what a re-indexing changed."""
    if task.error or task.report is None:
        look.mend(task.error or "The index was not made.")
        return
    found = task.report
    st.success(
        f"{look.plain(task.corpus)}: {look.count(found.added, 'document')} added, {found.changed} changed, "
        f"{found.removed} removed, {found.unchanged} unchanged; "
        f"{look.count(found.embedded, 'passage')} embedded, {found.chunks} in the index, {found.seconds:.1f} s.",
        icon=":material/check:",
    )


def main() -> None:
    """Lay out the page."""
    look.page_title("Documents", "What the answers rest on: read, search, add, change, and index again.")
    where, what = st.columns([1, 3])
    with where:
        corpus = session.pick_corpus()
    wanted = st.query_params.get("tab")
    tab = what.segmented_control("Show", TABS, default=wanted if wanted in TABS else TABS[0], required=True)
    session.note("tab", str(tab), TABS[0])
    try:
        {"Read": read, "Search": search, "Add": add, "Index": index, "Review": review}[str(tab)](corpus)
    except VersusError as error:
        look.mend(error)


def review(corpus: Corpus) -> None:
    """Show drafted questions beside their evidence; see `review.py`."""
    from comparison_app.web.review import review_drafts

    review_drafts(corpus)


main()
