"""Errors of the package `rag`.

data_prep.errors.VersusError
└── RagError
    ├── ClusterError       Ray is not installed, or no cluster answers
    ├── EmbeddingError     an embedding model that is missing, damaged or cannot be made ready
    └── StoreError         an index that cannot be read or written
        ├── IndexLocked    another process is writing the index
        ├── IndexMismatch  an index made by another embedder, or not made at all
        └── SnapshotMoved  a writer has just committed; a new read sees the new generation
"""

from __future__ import annotations

from data_prep.errors import VersusError


class RagError(VersusError):
    """Something in `rag` that the user can mend."""


class ClusterError(RagError):
    """Ray is not installed, or no cluster answers; the message names the address and the mend."""


class EmbeddingError(RagError):
    """An embedding model that is missing, damaged or cannot be made ready."""


class StoreError(RagError):
    """An index that cannot be read or written; the message names its path and the mend."""


class IndexLocked(StoreError):  # noqa: N818 - reads as the state it reports
    """Another process is writing the index."""


class IndexMismatch(StoreError):  # noqa: N818 - reads as the state it reports
    """An index that was made by another embedder, or holds nothing yet."""


class SnapshotMoved(StoreError):  # noqa: N818 - reads as the state it reports
    """A writer has gone on to another generation while this one was being opened; a new read sees it."""
