"""The index on Milvus, through a Milvus Lite file: the same documents found, the same increments, the same protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from haystack import Document, Pipeline
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy

from rag.config import RagConfig
from rag.embedding import Embedder
from rag.errors import IndexMismatch, RagError, StoreError
from rag.indexing import index_documents
from rag.milvus import MilvusStore
from rag.milvus_indexing import index_into_milvus
from rag.milvus_rows import analysed
from rag.milvus_search import MilvusSearch
from rag.pipeline import retrieval_pipeline
from rag.refining import open_search
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore
from tests.rag.conftest import MANUAL, manual_documents

pytestmark = pytest.mark.slow
CONFIG = RagConfig(chunk_words=20, overlap_words=0, sentence_vectors=False, lexical="bm25s")
QUERIES = ["How many newton metres for the nuts?", "CHG-B204", "windshield defogging", "charging at 7.4 kW", "", "?!"]


@pytest.fixture
def milvus(tmp_path: Path) -> MilvusStore:
    """A Milvus Lite file that is not made yet."""
    return MilvusStore(f"milvus://{tmp_path}/lite.db/manual", tmp_path)


def test_milvus_finds_what_the_embedded_store_finds(
    milvus: MilvusStore, store: EmbeddedStore, embedder: Embedder
) -> None:
    """The best chunk, exact spans and cosines agree; codes, numbers with units and filters work."""
    report = index_into_milvus(manual_documents(), milvus, embedder, CONFIG)
    index_documents(manual_documents(), store, embedder, CONFIG)
    assert (report.added, report.chunks) == (3, store.count_documents())
    theirs, ours = open_search(milvus, CONFIG, embedder), HybridSearch(store, embedder, CONFIG)
    assert isinstance(theirs, MilvusSearch)
    for there, here in zip(theirs.retrieve_many(QUERIES), ours.retrieve_many(QUERIES), strict=True):
        assert [c.id for c in there[:1]] == [c.id for c in here[:1]]
        assert len(there) == len(here)
        for chunk in there:
            assert chunk.content == MANUAL[chunk.meta["document"]][1][chunk.meta["start"] : chunk.meta["end"]]
        if here:
            assert there[0].meta["scores"]["dense"] == pytest.approx(here[0].meta["scores"]["dense"], abs=1e-3)
    about = theirs.retrieve_many(["tyre pressure"] * 2, about=["heating", "no-such"])
    assert {c.meta["document"] for c in about[0]} == {"heating"}
    assert about[1] == []
    only = {"field": "meta.document", "operator": "in", "value": ["heating", "charging"]}
    assert {c.meta["document"] for c in theirs.retrieve_many(["tyre"], filters=only)[0]} == {"heating", "charging"}
    assert theirs.query_idf("tyre pressure") == pytest.approx(ours.query_idf("tyre pressure"))


def test_only_what_changed_is_embedded(milvus: MilvusStore, embedder: Embedder) -> None:
    """A changed document gives its new chunks, a removed one is gone, a second run does nothing."""
    first = index_into_milvus(manual_documents(), milvus, embedder, CONFIG)
    assert first.embedded == first.chunks
    assert index_into_milvus(manual_documents(), milvus, embedder, CONFIG).embedded == 0
    title, text = MANUAL["charging"]
    changed = {**MANUAL, "charging": (title, text + "\n## Cable\n\nThe cable is five metres long and weighs 3 kg.\n")}
    del changed["heating"]
    report = index_into_milvus(manual_documents(changed), milvus, embedder, CONFIG)
    assert (report.added, report.changed, report.removed, report.unchanged, report.embedded) == (0, 1, 1, 1, 1)
    found = MilvusSearch(milvus, embedder, CONFIG).retrieve_many(["how long is the cable", "snowflake button"])
    assert "five metres" in (found[0][0].content or "")
    assert "heating" not in {chunk.meta["document"] for chunks in found for chunk in chunks}
    recut = index_into_milvus(manual_documents(), milvus, embedder, RagConfig())
    assert recut.chunks < first.chunks
    assert {len(milvus.chunks_of(name)) for name in MANUAL} != {0}


def test_a_run_that_was_killed_goes_on(milvus: MilvusStore, embedder: Embedder) -> None:
    """Chunks without their document's note are written again, none is doubled, and before the end there is no index."""
    milvus.put_settings(language="en")
    orphan = Document(id="tyres#0-5", content="Check", embedding=[1.0] + [0.0] * 383, meta={"document": "tyres"})
    milvus.put_chunks([orphan])
    with pytest.raises(IndexMismatch, match="no index here"):
        MilvusSearch(milvus, embedder, CONFIG).retrieve_many(["tyre"])
    report = index_into_milvus(manual_documents(), milvus, embedder, CONFIG)
    ids = [chunk.id for chunk in milvus.filter_documents()]
    assert report.chunks == len(ids) == len(set(ids))
    assert orphan.id not in ids


def test_it_is_a_document_store(milvus: MilvusStore, embedder: Embedder) -> None:
    """Duplicates are refused, skipped or replaced as the policy says; metadata come back as they were."""
    vector = [1.0] + [0.0] * 383
    meta = {"document": "d", "start": 0, "source": None, "tags": ["x"], "n": 1.5}
    one = Document(id="d#0-1", content="Größe ESP_a118", embedding=vector, meta=meta)
    assert milvus.count_documents() == 0
    assert milvus.write_documents([one]) == 1
    with pytest.raises(DuplicateDocumentError):
        milvus.write_documents([one])
    assert milvus.write_documents([one], DuplicatePolicy.SKIP) == 0
    assert milvus.write_documents([one], DuplicatePolicy.OVERWRITE) == 1
    assert (milvus.filter_documents()[0].content, milvus.filter_documents()[0].meta) == (one.content, meta)
    assert milvus.vectors_of([one.id, "no-such"])[one.id].tolist() == vector
    with pytest.raises(StoreError, match="no embedding"):
        milvus.write_documents([Document(id="x", content="x")])
    milvus.delete_documents([one.id, "no-such"])
    assert milvus.count_documents() == 0


def test_the_retrieval_on_milvus_goes_through_yaml(milvus: MilvusStore, embedder: Embedder) -> None:
    """The same component as on the embedded store; neighbours come without the whole document."""
    config = RagConfig(chunk_words=20, overlap_words=0, neighbours=1, diversity=0.2, top_k=2)
    index_into_milvus(manual_documents(), milvus, embedder, config)
    pipeline = Pipeline()
    pipeline.add_component("retrieval", retrieval_pipeline(milvus, config))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["rag"])
    found = again.run({"retrieval": {"query": "wheel nuts torque"}})["retrieval"]["documents"]
    assert "120 Nm" in (found[0].content or "")


def test_what_is_wrong_is_said(tmp_path: Path, milvus: MilvusStore, embedder: Embedder) -> None:
    """Another embedder, no documents, a bad address, a server that is not there."""
    index_into_milvus(manual_documents(), milvus, embedder, CONFIG)
    other = Embedder(passage_prefix="passage: ", threads=1)
    with pytest.raises(IndexMismatch, match="--rebuild"):
        index_into_milvus(manual_documents(), milvus, other, CONFIG)
    assert index_into_milvus(manual_documents(), milvus, other, CONFIG, rebuild=True).added == 3
    with pytest.raises(RagError, match="no documents"):
        index_into_milvus([], milvus, embedder, CONFIG)
    with pytest.raises(StoreError, match="must be milvus://"):
        MilvusStore("milvus:/nowhere")
    with pytest.raises(RagError, match="store is"):
        RagConfig(store="postgres://x")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1"):
        MilvusStore("milvus://127.0.0.1:1/x", tmp_path).count_documents()


def test_terms_survive_any_analyser() -> None:
    """Codes and decimals become letters and digits only, each term its own."""
    assert analysed(["esp_a118", "2.4", "шин"]) == "espx5fxa118 2x2ex4 шин"
