"""The store as Haystack sees it, and what happens when disk or file fail it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from haystack import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DocumentStore, DuplicatePolicy

from rag import vectors
from rag.config import RagConfig
from rag.derived import load_snapshot
from rag.embedding import Embedder
from rag.errors import IndexLocked, IndexMismatch, StoreError
from rag.indexing import index_documents
from rag.postings import ARRAYS
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore
from rag.tables import put_setting
from rag.vectors import SENTENCE_ARRAYS
from tests.rag.conftest import manual_documents


def _chunks() -> list[Document]:
    return [
        Document(id="a", content="the horn", meta={"page": 1}, embedding=[1.0, 0.0]),
        Document(id="b", content="the light", meta={"page": 2}),
    ]


def test_it_is_a_haystack_document_store(store: EmbeddedStore) -> None:
    """Write, count, filter, delete and serialise as Haystack's protocol says."""
    protocol: DocumentStore = store
    assert protocol.count_documents() == 0
    assert protocol.write_documents(_chunks()) == 2
    condition = {"field": "meta.page", "operator": ">", "value": 1}
    assert [chunk.id for chunk in protocol.filter_documents(condition)] == ["b"]
    assert [chunk.content for chunk in protocol.filter_documents()] == ["the horn", "the light"]
    protocol.delete_documents(["a", "unknown"])
    assert protocol.count_documents() == 1
    assert EmbeddedStore.from_dict(store.to_dict()).count_documents() == 1


def test_duplicates_follow_the_policy(store: EmbeddedStore) -> None:
    """NONE and FAIL raise, SKIP keeps the old, OVERWRITE takes the new."""
    store.write_documents(_chunks())
    again = [Document(id="a", content="changed")]
    for policy in (DuplicatePolicy.NONE, DuplicatePolicy.FAIL):
        with pytest.raises(DuplicateDocumentError):
            store.write_documents(again, policy)
    assert store.write_documents(again, DuplicatePolicy.SKIP) == 0
    assert store.filter_documents()[0].content == "the horn"
    assert store.write_documents(again, DuplicatePolicy.OVERWRITE) == 1
    assert sorted(chunk.content or "" for chunk in store.filter_documents()) == ["changed", "the light"]


def test_written_chunks_are_searchable(store: EmbeddedStore) -> None:
    """Chunks written with an embedding are found by it; those without, by words."""
    store.write_documents(_chunks())
    query = np.array([1.0, 0.0], dtype=np.float32)
    for engine in ("bm25", "bm25s"):
        snapshot = load_snapshot(store, engine, True)
        positions = snapshot.nearest(query, 2)
        assert positions.tolist() == [0, 1]
        assert snapshot.cosines(positions, query).tolist() == [1.0, 0.0]
        assert int(snapshot.lexical.scores("light").argmax()) == 1


def test_each_commit_is_one_generation_and_a_failed_one_none(store: EmbeddedStore) -> None:
    """An exception inside a commit leaves chunks and generation as they were."""
    store.write_documents(_chunks())
    with pytest.raises(RuntimeError), store.committing() as connection:
        store.delete_chunks(connection, ["a", "b"])
        raise RuntimeError("stopped")
    assert (store.generation, store.count_documents()) == (1, 2)


def test_reading_sees_one_generation(store: EmbeddedStore) -> None:
    """What a reader reads inside `reading` does not change while another connection commits."""
    store.write_documents(_chunks())
    other = EmbeddedStore(store.path)
    with store.reading():
        before = store.generation
        other.delete_documents(["a"])
        assert (store.generation, store.count_documents()) == (before, 2)
    assert (store.generation, store.count_documents()) == (before + 1, 1)


def test_a_second_writer_is_refused_with_the_first_ones_number(store: EmbeddedStore) -> None:
    """While another process writes, a write raises `IndexLocked` at once and reads go on."""
    store.write_documents(_chunks())
    script = (
        "import sys, time; from pathlib import Path; from rag.locking import writer_lock\n"
        "with writer_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(store.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(IndexLocked, match=str(holder.pid)):
            store.delete_documents(["a"])
        assert store.count_documents() == 2
    finally:
        holder.kill()
        holder.wait()
    store.delete_documents(["a"])
    assert store.count_documents() == 1


def test_a_full_disk_is_one_clear_line_and_the_last_generation_stays(store: EmbeddedStore) -> None:
    """SQLite's own "disk is full" becomes a `StoreError`; what was committed is still there."""
    store.write_documents(_chunks())
    with pytest.raises(StoreError, match="the disk is full"), store.committing() as connection:
        connection.execute("PRAGMA max_page_count = 1")
        put_setting(connection, "big", "x" * 10_000_000)
    assert (store.generation, store.count_documents()) == (1, 2)


def test_a_damaged_database_says_how_to_recover(store: EmbeddedStore) -> None:
    """A file that is no database names itself and the mend."""
    store.path.write_bytes(b"not a database at all" * 500)
    with pytest.raises(StoreError, match="delete it and run versus index again"):
        store.count_documents()


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    """A workspace path that runs through a file is a `StoreError`."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another workspace"):
        EmbeddedStore(tmp_path / "file" / "index.sqlite").write_documents(_chunks())


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_an_index_in_a_read_only_folder_can_be_read(store: EmbeddedStore) -> None:
    """Reading needs no write permission; writing says that it has none."""
    store.write_documents(_chunks())
    store.close()
    store.path.parent.chmod(0o555)
    try:
        assert EmbeddedStore(store.path).count_documents() == 2
        with pytest.raises(StoreError, match="choose another workspace"):
            EmbeddedStore(store.path).delete_documents(["a"])
    finally:
        store.path.parent.chmod(0o755)


def test_an_index_of_the_second_format_is_brought_up(store: EmbeddedStore, embedder: Embedder) -> None:
    """Check sums that it lacks are made on opening, by whichever process comes first; nothing is embedded again."""
    index_documents(manual_documents(), store, embedder, RagConfig())
    before = store.filter_documents()
    with store.keeping_vectors() as connection:
        for table in ("chunks", "documents"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN crc")
        connection.execute("PRAGMA user_version = 2")
    store.close()
    opened = [EmbeddedStore(store.path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert all(found == before for found in pool.map(lambda one: one.filter_documents(), opened))
    assert store.source("tyres") == manual_documents()[0]
    assert index_documents(manual_documents(), store, embedder, RagConfig()).embedded == 0


def test_an_index_of_another_format_is_refused(store: EmbeddedStore) -> None:
    """A file written by a later version is not guessed at."""
    store.write_documents(_chunks())
    with store.keeping_vectors() as connection:
        connection.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StoreError, match="format 99"):
        store.count_documents()


def test_no_index_is_one_clear_line(store: EmbeddedStore, embedder: Embedder) -> None:
    """Searching where nothing was indexed says so, and makes no file."""
    with pytest.raises(IndexMismatch, match="versus index"):
        HybridSearch(store, embedder).retrieve_many(["horn"])
    assert not store.path.exists()


_DERIVED = ("rows", "documents", "matrix", *SENTENCE_ARRAYS, *ARRAYS)


@pytest.mark.parametrize("name", [*(f"{array}.npy" for array in _DERIVED), "ivf.faiss", "checks.json"])
def test_a_flipped_byte_in_a_derived_file_is_mended(
    store: EmbeddedStore, embedder: Embedder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every derived file is checked and rebuilt from SQLite; the results are the same. None is left out."""
    monkeypatch.setattr(vectors, "FLAT_UP_TO", 2)
    config = RagConfig()
    index_documents(manual_documents(), store, embedder, config)
    expected = [c.id for c in HybridSearch(store, embedder, config).retrieve_many(["wheel nuts torque"])[0]]
    path = next(store.path.parent.glob(f"index.derived/1-*/{name}"))
    assert {other.name for other in path.parent.iterdir()} == {f"{a}.npy" for a in _DERIVED} | {
        "ivf.faiss",
        "checks.json",
    }
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0x55
    path.write_bytes(bytes(damaged))
    search = HybridSearch(store, embedder, config)
    assert [c.id for c in search.retrieve_many(["wheel nuts torque"])[0]] == expected
    assert not path.exists()
    mended = next(store.path.parent.glob(f"index.derived/1-*/{name}"))
    assert mended.read_bytes() != bytes(damaged)
    HybridSearch(store, embedder, config).warm_up()


def test_a_flipped_byte_in_the_manifest_is_mended(store: EmbeddedStore, embedder: Embedder) -> None:
    """Whatever the list of segments says instead, the answers stay and the next change writes it anew."""
    index_documents(manual_documents(), store, embedder, RagConfig())
    path = store.path.parent / "index.derived" / "manifest.json"
    whole = path.read_bytes()
    number = whole.index(b'"generation": 1') + len(b'"generation": 1') - 1
    for place in (*range(0, len(whole), 5), number):
        damaged = bytearray(path.read_bytes())
        damaged[place % len(damaged)] ^= 0x08
        path.write_bytes(bytes(damaged))
        search = HybridSearch(store, embedder)
        assert search.retrieve_many(["wheel nuts torque"])[0][0].meta["document"] == "tyres"
    index_documents(manual_documents()[:2], store, embedder, RagConfig())
    assert json.loads(path.read_text())["generation"] == 2


def test_derived_files_that_cannot_be_written_cost_only_time(store: EmbeddedStore, embedder: Embedder) -> None:
    """Where no list of segments can be kept, as on a full disk, indexing and searching go on without it."""
    in_the_way = store.path.parent / "index.derived" / "manifest.json" / "folder"
    in_the_way.mkdir(parents=True)
    assert index_documents(manual_documents(), store, embedder, RagConfig()).added == 3
    assert HybridSearch(store, embedder).retrieve_many(["horn", "tyre pressure"])[1][0].meta["document"] == "tyres"


def test_derived_files_that_are_lost_are_made_again(search: HybridSearch, store: EmbeddedStore) -> None:
    """Deleting the derived folder costs only time."""
    shutil.rmtree(store.path.parent / "index.derived")
    assert search.retrieve_many(["horn", "tyre pressure"])[1][0].meta["document"] == "tyres"
    assert (store.path.parent / "index.derived").is_dir()
