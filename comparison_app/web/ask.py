"""The page Ask: one question, several arms in columns, each with its sources."""

from __future__ import annotations

import random

import streamlit as st

from comparison_app.commands.ask import NO_ANSWER
from comparison_app.predictions import Prediction
from comparison_app.web import session
from data_prep.questions import Question

MAX_QUESTION = 2000


def show(prediction: Prediction, texts: dict[str, str], titles: dict[str, str]) -> None:
    """Show one arm's answer with its sources. Text of models and documents is shown as text, never as markup."""
    if prediction.error:
        st.error(prediction.error)
    elif prediction.abstained:
        st.info(NO_ANSWER.capitalize() + ".")
    else:
        st.text(prediction.answer)
    tokens = f" · {prediction.completion_tokens} tokens" if prediction.completion_tokens else ""
    st.caption(f"{prediction.seconds:.2f} s{tokens}")
    for number, span in enumerate(prediction.documents[:3], start=1):
        with st.expander(f"[{number}] {titles.get(span.document, span.document)}"):
            st.text(texts.get(span.document, "")[span.start : span.end])
            st.caption(f"{span.document}: characters {span.start}–{span.end}")


corpus = session.corpus()
st.title("Ask both")
st.caption(f"One question to retrieval and to the fine-tuned model, on **{corpus.name}**.")
kinds = session.usable_kinds()
chosen = st.multiselect(
    "Arms",
    kinds,
    default=[kind for kind in ("rag-extractive", "rag", "finetuned") if kind in kinds],
    format_func=lambda kind: session.LABELS[kind],
    max_selections=5,
)
suggestions = [question.question for question in corpus.questions("test") if question.slice != "unanswerable"]
picked = st.pills("Try one", random.Random(corpus.name).sample(suggestions, min(4, len(suggestions))))
with st.form("ask", border=False):
    text = st.text_input("Question", value=picked or st.query_params.get("q", ""), max_chars=MAX_QUESTION)
    asked = st.form_submit_button("Ask", type="primary")
if (asked or picked) and text.strip() and chosen:
    st.query_params["q"] = text
    documents = corpus.documents(include_new=True)
    texts = {document.id: document.content or "" for document in documents}
    titles = {document.id: document.meta["title"] for document in documents}
    question = Question("asked", text)
    where = (str(session.workspace().path), str(corpus.path), corpus.fingerprint())
    for column, kind in zip(st.columns(len(chosen)), chosen, strict=True):
        with column, st.container(border=True):
            st.subheader(session.LABELS[kind])
            with st.spinner("answering …"):
                prediction = next(iter(session.arm(kind, *where).answer([question])))
            show(prediction, texts, titles)
elif asked and not chosen:
    st.warning("Choose at least one arm.")
elif asked:
    st.warning("Type a question first.")
if set(session.LABELS) - set(kinds):
    st.caption("Arms that need a fine-tuned adapter appear once one is trained: `versus train pocket-live`.")
