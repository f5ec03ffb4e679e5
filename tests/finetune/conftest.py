from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.finetune.tiny import save_llama, save_pocket_like


@pytest.fixture(scope="session")
def pocket_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model of pocket's architecture."""
    return save_pocket_like(tmp_path_factory.mktemp("models") / "pocket-like")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama."""
    return save_llama(tmp_path_factory.mktemp("models") / "llama")
