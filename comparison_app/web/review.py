"""Review of drafted questions, beside the evidence they were drafted from; part of the page Documents."""

from __future__ import annotations

from comparison_app.web import look
from data_prep.corpus import Corpus


def review_drafts(corpus: Corpus) -> None:
    """Show the drafts that wait for a decision."""
    look.empty(
        "No drafted questions",
        f"`versus questions draft {corpus.name}` drafts questions with their evidence; they wait here to be accepted, "
        "edited or rejected.",
    )
