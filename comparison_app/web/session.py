"""What the pages share: the workspace, the corpora, and the arms, built once for all visitors."""

from __future__ import annotations

import os

import streamlit as st

from comparison_app.arms import Arm, ArmFactory
from comparison_app.commands.ask import newest_adapter
from comparison_app.errors import ComparisonError
from comparison_app.experiment import ArmSpec
from comparison_app.kinds import ADAPTED, EXTRACTIVE, KINDS
from comparison_app.workspace import Workspace
from data_prep.corpus import SAMPLE_CORPUS, Corpus

LABELS = {
    "rag-extractive": "Quoted from the documents",
    "rag": "RAG",
    "finetuned": "Fine-tuned, from memory",
    "finetuned-rag": "Fine-tuned + retrieval",
    "raft": "RAFT",
    "base": "Base model, from memory",
}


def workspace() -> Workspace:
    """Return the workspace that `versus app` was started with."""
    return Workspace.resolve(None)


def corpus() -> Corpus:
    """Return the corpus that `versus app` was started with."""
    return workspace().corpus(os.environ.get("VERSUS_CORPUS", SAMPLE_CORPUS))


@st.cache_resource(show_spinner="Opening the index and the models …")
def factory(path: str, corpus_path: str, fingerprint: str) -> ArmFactory:
    """Return the one factory for a workspace and a corpus as it stands now."""
    return ArmFactory(workspace(), corpus())


@st.cache_resource(show_spinner=False)
def arm(kind: str, path: str, corpus_path: str, fingerprint: str) -> Arm:
    """Return the arm of one kind on the bundled model, with the newest adapter of this corpus."""
    shared = factory(path, corpus_path, fingerprint)
    if kind == EXTRACTIVE:
        return shared.build(ArmSpec(kind, kind, model=None))
    adapter = newest_adapter(workspace(), corpus(), context=kind == "raft") if kind in ADAPTED else None
    return shared.build(ArmSpec(kind, kind, adapter=adapter), batch_size=1)


def usable_kinds() -> list[str]:
    """Return the kinds of arm that can answer now: those that need an adapter only if there is one."""
    return [kind for kind in KINDS if kind not in ADAPTED or _has_adapter(kind)]


def _has_adapter(kind: str) -> bool:
    try:
        newest_adapter(workspace(), corpus(), context=kind == "raft")
    except ComparisonError:
        return False
    return True
