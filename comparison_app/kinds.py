"""The kinds of arm: what an arm knows, and whether it reads documents."""

from __future__ import annotations

KINDS = ("base", "finetuned", "rag", "finetuned-rag", "raft", "rag-extractive")
EXTRACTIVE = "rag-extractive"
ADAPTED = frozenset({"finetuned", "finetuned-rag", "raft"})
"""Kinds that need an adapter."""
CLOSED_BOOK = frozenset({"base", "finetuned"})
"""Kinds that answer from memory."""
OVERALL = "overall"
"""The name of all slices together."""
