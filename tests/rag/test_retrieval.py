"""Hybrid retrieval over the small manual."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from haystack import Pipeline

from rag.config import PRESETS, RagConfig
from rag.embedding import Embedder
from rag.indexing import index_documents
from rag.retrieval import HybridRetriever, HybridSearch, fuse
from rag.store import EmbeddedStore
from tests.rag.conftest import manual_documents


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("How many newton metres for the nuts?", "tyres"),
        ("CHG-B204", "charging"),
        ("windshield defogging", "heating"),
        ("How long until my car is charged at home?", "charging"),
    ],
)
def test_words_and_meaning_both_find(search: HybridSearch, query: str, document: str) -> None:
    """Codes are found by words, paraphrases by meaning."""
    best = search.retrieve_many([query])[0][0]
    assert best.meta["document"] == document
    assert set(best.meta["scores"]) == {"dense", "lexical", "fused"}
    assert best.score == best.meta["scores"]["fused"]


def test_many_queries_give_what_each_gives_alone(search: HybridSearch) -> None:
    """A batch is only faster."""
    queries = ["tyre pressure", "seat heating", "alert"]
    together = search.retrieve_many(queries)
    assert [[c.id for c in found] for found in together] == [
        [c.id for c in search.retrieve_many([query])[0]] for query in queries
    ]


def test_results_are_ordered_and_limited(search: HybridSearch) -> None:
    """Best first, at most `top_k`, no chunk twice."""
    found = search.retrieve_many(["tyre pressure when cold"], top_k=3)[0]
    scores = [chunk.score or 0.0 for chunk in found]
    assert len(found) == 3
    assert scores == sorted(scores, reverse=True)
    assert len({chunk.id for chunk in found}) == 3


def test_about_limits_a_query_to_one_document(search: HybridSearch) -> None:
    """Only chunks of the named document come back; of an unknown one, none."""
    found = search.retrieve_many(["tyre pressure"] * 2, about=["heating", "no-such"])
    assert {chunk.meta["document"] for chunk in found[0]} == {"heating"}
    assert found[1] == []


def test_filters_limit_all_queries_to_matching_chunks(search: HybridSearch) -> None:
    """Haystack filters on metadata hold for both stages, together with `about`, and again after the index changed."""
    only = {"field": "meta.document", "operator": "in", "value": ["heating", "charging"]}
    found = search.retrieve_many(["tyre pressure", "seats"], filters=only, top_k=10)
    assert {chunk.meta["document"] for chunks in found for chunk in chunks} == {"heating", "charging"}
    assert search.retrieve_many(["tyre pressure"], about=["tyres"], filters=only) == [[]]
    index_documents(manual_documents()[:2], search.store, search.embedder, search.config)
    assert {chunk.meta["document"] for chunk in search.retrieve_many(["seats"], filters=only)[0]} == {"charging"}


@pytest.mark.parametrize(
    "query", ["", " \n", "?!", '"; DROP TABLE chunks; --', "шины", "日本語", "\x00\udcff", "tyre " * 200_000]
)
def test_odd_queries_do_no_harm(search: HybridSearch, query: str) -> None:
    """Empty, hostile, foreign, broken and 1 MB queries return a list; the index is unharmed."""
    assert isinstance(search.retrieve_many([query])[0], list)
    assert search.retrieve_many(["tyre pressure"])[0]


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_runs(preset: str, store: EmbeddedStore, embedder: Embedder) -> None:
    """Each preset indexes and finds."""
    config = PRESETS[preset]
    index_documents(manual_documents(), store, embedder, config)
    found = HybridSearch(store, embedder, config).retrieve_many(["wheel nuts torque"])[0]
    assert found[0].meta["document"] == "tyres"
    assert len(found) <= config.top_k


def test_a_stage_with_weight_zero_takes_no_part(store: EmbeddedStore, embedder: Embedder) -> None:
    """BM25 alone needs no embedder and returns only chunks that share a word."""
    config = RagConfig(dense_weight=0.0)
    index_documents(manual_documents(), store, embedder, config)
    search = HybridSearch(store, Embedder("no/such-model", backend="torch"), config)
    found = search.retrieve_many(["snowflake"])[0]
    assert [chunk.meta["document"] for chunk in found] == ["heating"]
    assert found[0].meta["scores"]["dense"] == 0.0


def test_rank_fusion_is_the_weighted_sum_of_reciprocal_ranks() -> None:
    """With k = 60 and weights 3:1, the values are those worked out by hand; no shared word earns nothing."""
    config = RagConfig(fusion="rrf", dense_weight=3, lexical_weight=1)
    fused = fuse(np.array([0.9, 0.1], np.float32), np.array([0.0, 7.0], np.float32), config)
    np.testing.assert_allclose(fused, [0.75 / 61, 0.75 / 62 + 0.25 / 61], rtol=1e-6)


def test_score_fusion_is_the_weighted_mean_of_scaled_scores() -> None:
    """BM25 is divided by the query's best; the cosine counts as it is, negative ones as 0."""
    config = RagConfig(fusion="score", dense_weight=0.5, lexical_weight=0.5)
    fused = fuse(np.array([0.8, -0.2], np.float32), np.array([2.0, 4.0], np.float32), config)
    np.testing.assert_allclose(fused, [0.5 * 0.8 + 0.5 * 0.5, 0.5], rtol=1e-6)


def test_it_is_a_haystack_component(store: EmbeddedStore, embedder: Embedder) -> None:
    """It runs in a pipeline, and comes back from YAML with its module allow-listed."""
    index_documents(manual_documents(), store, embedder, RagConfig())
    pipeline = Pipeline()
    pipeline.add_component("retriever", HybridRetriever(store, embedder, RagConfig(top_k=2)))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["rag"])
    for candidate in (pipeline, again):
        found = candidate.run({"retriever": {"query": "tyre pressure"}})["retriever"]["documents"]
        assert [chunk.meta["document"] for chunk in found] == ["tyres", "tyres"]


@pytest.mark.slow
def test_readers_see_whole_generations_while_another_writes(store: EmbeddedStore, embedder: Embedder) -> None:
    """Threads that search during re-indexing get answers of one generation or the next, and no error."""
    config = RagConfig()
    index_documents(manual_documents(), store, embedder, config)
    search = HybridSearch(store, embedder, config)
    stop, failures = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                assert search.retrieve_many(["tyre pressure"])[0][0].meta["document"] == "tyres"
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    writer = EmbeddedStore(store.path)
    for round_ in range(8):
        index_documents(manual_documents()[: 1 + round_ % 3], writer, embedder, config)
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
