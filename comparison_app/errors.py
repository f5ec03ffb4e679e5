"""Errors of the package `comparison_app`.

data_prep.errors.VersusError
└── ComparisonError
"""

from __future__ import annotations

from data_prep.errors import VersusError


class ComparisonError(VersusError):
    """Something in `comparison_app` that the user can mend."""
