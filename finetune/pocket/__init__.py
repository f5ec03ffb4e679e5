"""Pocket: the bundled 14M-parameter causal language model, and how it is made.

It is all-MiniLM-L6-v2 loaded as a causal decoder, with a new vocabulary, pretrained on manuals and taught to answer
from context. `python -m finetune.pocket.make` makes it again.
"""

from __future__ import annotations

from pathlib import Path


def pocket_path() -> Path:
    """Return the folder of the bundled model, which transformers' Auto classes load offline."""
    return Path(__file__).parent / "model"
