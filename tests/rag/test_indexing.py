"""Re-indexing: only what changed, one generation at a time, and safe against sudden death."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from haystack import Document

from rag.config import RagConfig
from rag.embedding import Embedder
from rag.errors import IndexMismatch, RagError
from rag.indexing import index_documents
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore
from tests.rag.conftest import MANUAL, manual_documents

_CONFIG = RagConfig()


def test_only_what_changed_is_embedded(store: EmbeddedStore, embedder: Embedder) -> None:
    """A second run with one page changed, one gone and one new counts them, and embeds only new text."""
    first = index_documents(manual_documents(), store, embedder, _CONFIG)
    assert (first.added, first.changed, first.removed, first.unchanged) == (3, 0, 0, 0)
    assert first.embedded == first.chunks == store.count_documents()
    title, text = MANUAL["charging"]
    manual = {
        "charging": (title, text.replace("9 hours", "11 hours")),
        "tyres": MANUAL["tyres"],
        "horn": ("Horn", "# Horn\n\nPress the middle of the wheel to sound the horn."),
    }
    second = index_documents(manual_documents(manual), store, embedder, _CONFIG)
    assert (second.added, second.changed, second.removed, second.unchanged) == (1, 1, 1, 1)
    assert second.embedded == 2
    found = HybridSearch(store, embedder, _CONFIG).retrieve_many(["How long does a full charge take?"])[0]
    assert "11 hours" in (found[0].content or "")
    assert store.count_embeddings() == store.count_documents()


def test_nothing_changed_makes_no_new_generation(store: EmbeddedStore, embedder: Embedder) -> None:
    """Indexing the same corpus again touches nothing."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    again = index_documents(manual_documents(), store, embedder, _CONFIG)
    assert (again.unchanged, again.embedded, store.generation) == (3, 0, 1)


def test_a_renamed_document_keeps_its_embeddings(store: EmbeddedStore, embedder: Embedder) -> None:
    """The same text under another id is embedded no second time."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    renamed = [replace(document, id=f"new-{document.id}") for document in manual_documents()]
    report = index_documents(renamed, store, embedder, _CONFIG)
    assert (report.added, report.removed, report.embedded) == (3, 3, 0)


def test_other_chunk_settings_cut_anew(store: EmbeddedStore, embedder: Embedder) -> None:
    """Re-indexing with other chunk settings replaces all chunks; searching with other settings is refused."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    smaller = RagConfig(chunk_words=20, overlap_words=0)
    with pytest.raises(IndexMismatch, match="other chunk settings"):
        HybridSearch(store, embedder, smaller).retrieve_many(["horn"])
    before = store.count_documents()
    report = index_documents(manual_documents(), store, embedder, smaller)
    assert report.unchanged == 3
    assert report.chunks > before
    assert HybridSearch(store, embedder, smaller).retrieve_many(["wheel nuts"])[0]


def test_another_embedder_is_refused_until_asked_to_rebuild(store: EmbeddedStore, embedder: Embedder) -> None:
    """An index is tied to its embedder: indexing and searching with another say how to mend it."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    other = Embedder(passage_prefix="passage: ", threads=1)
    with pytest.raises(IndexMismatch, match="--rebuild"):
        index_documents(manual_documents(), store, other, _CONFIG)
    with pytest.raises(IndexMismatch, match="--rebuild"):
        HybridSearch(store, other, _CONFIG).retrieve_many(["horn"])
    report = index_documents(manual_documents(), store, other, _CONFIG, rebuild=True)
    assert report.embedded == report.chunks
    assert HybridSearch(store, other, _CONFIG).retrieve_many(["wheel nuts"])[0]


def test_no_documents_and_doubled_ids_are_refused(store: EmbeddedStore, embedder: Embedder) -> None:
    """An empty corpus does not empty the index."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    with pytest.raises(RagError, match="no documents"):
        index_documents([], store, embedder, _CONFIG)
    with pytest.raises(RagError, match="more than once: tyres"):
        index_documents([*manual_documents(), manual_documents()[0]], store, embedder, _CONFIG)
    assert store.count_sources() == 3


def test_documents_without_text_have_no_chunks(store: EmbeddedStore, embedder: Embedder) -> None:
    """An empty page is known, so that it counts as unchanged later, but cannot be found."""
    pages = [Document(id="empty", content=""), *manual_documents()]
    assert index_documents(pages, store, embedder, _CONFIG).added == 4
    assert index_documents(pages, store, embedder, _CONFIG).unchanged == 4
    alone = EmbeddedStore(store.path.with_name("alone.sqlite"))
    index_documents(pages[:1], alone, embedder, _CONFIG)
    assert HybridSearch(alone, embedder, _CONFIG).retrieve_many(["horn"]) == [[]]


def test_a_reader_moves_on_to_the_new_generation(store: EmbeddedStore, embedder: Embedder) -> None:
    """An open retriever finds what another process (here: another store object) has committed since."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    search = HybridSearch(store, embedder, _CONFIG)
    assert "horn" not in {chunk.meta["document"] for chunk in search.retrieve_many(["sound the horn"])[0]}
    page = Document(id="horn", content="Press the middle of the wheel to sound the horn.")
    index_documents([*manual_documents(), page], EmbeddedStore(store.path), embedder, _CONFIG)
    assert search.retrieve_many(["sound the horn"])[0][0].meta["document"] == "horn"


_KILLED_WHILE_EMBEDDING = """
import sys, time
from haystack import Document
from rag.config import RagConfig
from rag.embedding import Embedder
from rag.indexing import index_documents
from rag.store import EmbeddedStore

def stop(done, total):
    print(done, flush=True)
    time.sleep(60)

pages = [Document(id=f"p{n}", content=f"Page {n} is about part {n}.") for n in range(300)]
index_documents(pages, EmbeddedStore(sys.argv[1]), Embedder(threads=1), RagConfig(), progress=stop)
"""

_KILLED_WHILE_COMMITTING = """
import sys, time
from rag.store import EmbeddedStore

with EmbeddedStore(sys.argv[1]).committing() as connection:
    connection.execute("DELETE FROM chunks")
    connection.execute("DELETE FROM documents")
    print("deleted", flush=True)
    time.sleep(60)
"""


def _kill_after_first_line(script: str, store: EmbeddedStore) -> str:
    child = subprocess.Popen([sys.executable, "-c", script, str(store.path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    child.send_signal(signal.SIGKILL)
    child.wait()
    return line


@pytest.mark.slow
def test_a_killed_reindex_leaves_the_last_index_and_resumes(store: EmbeddedStore, embedder: Embedder) -> None:
    """After SIGKILL in the middle of embedding the old index answers, and the next run embeds only the rest."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    done = int(_kill_after_first_line(_KILLED_WHILE_EMBEDDING, store))
    assert 0 < done < 300
    fresh = EmbeddedStore(store.path)
    assert (fresh.generation, fresh.count_sources()) == (1, 3)
    assert HybridSearch(fresh, embedder, _CONFIG).retrieve_many(["wheel nuts"])[0][0].meta["document"] == "tyres"
    pages = [Document(id=f"p{n}", content=f"Page {n} is about part {n}.") for n in range(300)]
    report = index_documents(pages, fresh, embedder, _CONFIG)
    assert (report.added, report.removed, report.embedded) == (300, 3, 300 - done)


def test_a_writer_killed_while_committing_leaves_no_trace(store: EmbeddedStore, embedder: Embedder) -> None:
    """After SIGKILL inside the transaction nothing is lost, the lock is free, and the next commit works."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    before = store.count_documents()
    assert _kill_after_first_line(_KILLED_WHILE_COMMITTING, store) == "deleted"
    fresh = EmbeddedStore(store.path)
    assert (fresh.generation, fresh.count_documents()) == (1, before)
    assert index_documents(manual_documents()[1:], fresh, embedder, _CONFIG).removed == 1
