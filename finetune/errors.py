"""Errors of the package `finetune`.

data_prep.errors.VersusError
└── FinetuneError
"""

from __future__ import annotations

from data_prep.errors import VersusError


class FinetuneError(VersusError):
    """Something in `finetune` that the user can mend."""
