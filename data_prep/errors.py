"""Errors of Versus's data layer, and the root of every error that Versus raises on purpose.

VersusError
├── DataError              documents, questions or files that cannot be used as they are
│   ├── CorpusError        a corpus folder that is missing, empty or damaged
│   └── QuestionError      a line of a question file that is wrong; names file and line
├── rag.errors.RagError
├── finetune.errors.FinetuneError
└── comparison_app.errors.ComparisonError

The command prints a `VersusError` as one line and exits with 1; anything else is a bug.
"""

from __future__ import annotations


class VersusError(Exception):
    """Something the user can mend; its message names the thing, the place and the mend."""


class DataError(VersusError):
    """Documents, questions or files that cannot be used as they are."""


class CorpusError(DataError):
    """A corpus folder that is missing, empty or damaged."""


class QuestionError(DataError):
    """A line of a question file that is wrong; the message names file and line."""
