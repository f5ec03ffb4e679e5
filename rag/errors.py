"""Errors of the package `rag`.

data_prep.errors.VersusError
└── RagError
"""

from __future__ import annotations

from data_prep.errors import VersusError


class RagError(VersusError):
    """Something in `rag` that the user can mend."""
