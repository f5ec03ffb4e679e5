"""Shared by all tests: no network (pytest-socket, see pyproject.toml), no telemetry, a workspace of one's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.update(
    HAYSTACK_TELEMETRY_ENABLED="False",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture
def small_corpus(tmp_path: Path) -> Path:
    """A corpus of three documents with train, dev and test questions over all slices; returns its folder."""
    from tests.small_corpus import write_small_corpus

    return write_small_corpus(tmp_path / "lamp-manual")
