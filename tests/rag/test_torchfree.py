"""A process that only retrieves and quotes needs no torch, and is quick."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rag.embedding import Embedder
from rag.retrieval import HybridSearch

_SCRIPT = """
import sys, time
from rag.torchfree import block_torch, torch_is_blocked
assert block_torch() and torch_is_blocked()
from rag.answering import RagAnswerer
from rag.embedding import Embedder
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore
answerer = RagAnswerer(HybridSearch(EmbeddedStore(sys.argv[1]), Embedder(threads=1)))
print(answerer.answer(["What does alert CHG-B204 mean?"])[0].data)
assert not {"torch", "transformers"} & sys.modules.keys()
again = time.process_time()
answerer.answer(["How long does a full charge take?"])
print(time.process_time() - again)
"""

_LIGHT = """
import importlib, pkgutil, sys
import rag
for module in pkgutil.iter_modules(rag.__path__):
    importlib.import_module("rag." + module.name)
heavy = {"torch", "transformers", "haystack", "faiss", "numpy", "openvino", "bm25s"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.slow
def test_a_cold_question_is_answered_without_torch(search: HybridSearch, embedder: Embedder) -> None:
    """A fresh process opens the index and quotes an answer with torch kept out; a second takes under one CPU second."""
    embedder.warm_up()
    search.retrieve_many(["horn"])
    command = [sys.executable, "-c", _SCRIPT, str(search.store.path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer, seconds = done.stdout.strip().splitlines()
    assert "cable is not locked" in answer
    assert float(seconds) < 1.0


def test_importing_the_package_is_light() -> None:
    """No module of `rag` imports a heavy library when it is imported."""
    done = subprocess.run([sys.executable, "-c", _LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
