"""The stages after hybrid search: wordings, rerankers, diversity, neighbours, and all of them as one component."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage

from rag.config import PRESETS, RagConfig
from rag.diversity import diversified, most_diverse
from rag.embedding import Embedder, bundled_folder
from rag.errors import RagError
from rag.extractive import quotes_of
from rag.indexing import index_documents
from rag.neighbours import with_neighbours
from rag.pipeline import retrieval_pipeline
from rag.prompts import heading_line, passage_text
from rag.refining import RefinedSearch, open_search, refined, rewording, without_writer
from rag.remembering import remembered_vectors
from rag.reranking import CrossEncoderReranker, SentenceReranker, rerank
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore
from rag.wordings import fused_wordings, parts_of, rewordings
from tests.rag.conftest import MANUAL, manual_documents

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = RagConfig(chunk_words=20, overlap_words=0)


@pytest.fixture
def small_chunks(store: EmbeddedStore, embedder: Embedder) -> EmbeddedStore:
    """The manual in chunks of about 20 words."""
    index_documents(manual_documents(), store, embedder, SMALL)
    return store


class _Writer:
    """Writes fixed lines, as a model would."""

    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.asked: list[str] = []

    def generate(self, conversations: Sequence[list[ChatMessage]]) -> list[ChatMessage]:
        self.asked += [messages[-1].text or "" for messages in conversations]
        return [ChatMessage.from_assistant(self.reply) for _ in conversations]


def test_marginal_relevance_is_the_one_worked_out_by_hand() -> None:
    """Relevance 1, 0.9, 0 (scaled) and twins 0 and 1: at 0.5 the third, unlike item comes second; at 0 relevance."""
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    assert most_diverse([1.0, 0.95, 0.5], vectors, 3, 0.5) == [0, 2, 1]
    assert most_diverse([1.0, 0.95, 0.5], vectors, 2, 0.0) == [0, 1]
    assert most_diverse([1.0], vectors[:1], 5, 0.5) == [0]


def test_diversity_prefers_what_was_not_said_before() -> None:
    """Of two chunks with one vector only the better stands among the first two; no chunks give none."""
    chunks = [Document(id=name, content=name, score=score) for name, score in (("a", 0.9), ("b", 0.88), ("c", 0.7))]
    unit = np.array([1.0, 0.0], dtype=np.float32)
    found = diversified(chunks, {"a": unit, "b": unit, "c": np.array([0.0, 1.0], np.float32)}, 2, 0.6)
    assert [chunk.id for chunk in found] == ["a", "c"]
    assert diversified([], {}, 2, 0.6) == []


def test_neighbours_come_as_one_exact_span(small_chunks: EmbeddedStore, embedder: Embedder) -> None:
    """Each widened chunk is its document's text from start to end, holds the found one, and none lies in another."""
    found = HybridSearch(small_chunks, embedder, SMALL).retrieve_many(["wheel nuts torque"], top_k=6)[0]
    widened = with_neighbours(found, small_chunks, 1)
    spans = [(chunk.meta["document"], chunk.meta["start"], chunk.meta["end"]) for chunk in widened]
    for chunk, (document, start, end) in zip(widened, spans, strict=True):
        assert chunk.content == MANUAL[document][1][start:end]
        assert chunk.id == f"{document}#{start}-{end}"
    assert widened[0].meta["found"] == found[0].id
    assert widened[0].meta["start"] < found[0].meta["start"]
    assert len(widened) < len(found)
    before = {chunk.id: (chunk.meta["start"], chunk.meta["end"]) for chunk in found}
    assert any(chunk.meta["start"] < before[chunk.meta["found"]][0] for chunk in widened)
    assert any(chunk.meta["end"] > before[chunk.meta["found"]][1] for chunk in widened)
    assert len({chunk.meta["found"] for chunk in widened}) == len(widened)


def test_neighbours_without_the_document_keep_offsets(small_chunks: EmbeddedStore, embedder: Embedder) -> None:
    """Where the store keeps no documents, chunks are joined so that every word stands at its offset."""

    class _NoSources:
        def chunks_of(self, document_id: str) -> list[Document]:
            return small_chunks.chunks_of(document_id)

        def source(self, document_id: str) -> None:
            return None

    found = HybridSearch(small_chunks, embedder, SMALL).retrieve_many(["jack"], top_k=1)[0]
    exact, joined = (with_neighbours(found, source, 2)[0] for source in (small_chunks, _NoSources()))
    assert len(joined.content or "") == len(exact.content or "")
    assert (joined.content or "").split() == (exact.content or "").split()


@pytest.mark.parametrize(
    ("question", "wordings"),
    [
        (
            "How do I charge at home and what does alert CHG-B204 mean?",
            [
                "How do I charge at home and what does alert CHG-B204 mean?",
                "How do I charge at home",
                "what does alert CHG-B204 mean?",
                "charge home alert CHG-B204 mean",
            ],
        ),
        ("Tyre pressure?", ["Tyre pressure?", "Tyre pressure"]),
        ("Как зарядить и что значит код?", ["Как зарядить и что значит код?", "Как зарядить", "что значит код?"]),
        ("", [""]),
    ],
)
def test_a_question_falls_into_its_parts(question: str, wordings: list[str]) -> None:
    """Joined questions are searched apart, content words alone come last, and the question itself first."""
    assert parts_of(question, 4)[: len(wordings)] == wordings
    assert parts_of(question, 1) == [question]


def test_a_model_rewords_and_its_reply_is_data() -> None:
    """Usable lines become wordings, at most as many as asked for; marks, repeats and empty lines are dropped."""
    writer = _Writer(
        "1. How is the car charged at home?\n\n- home charging duration\nok\nhome charging duration\nfifth one"
    )
    assert rewordings(["How do I charge?"], writer, 3) == [
        ["How do I charge?", "How is the car charged at home?", "home charging duration"]
    ]
    assert rewordings(["How do I charge?"], _Writer(""), 3) == [["How do I charge?"]]


def test_wordings_are_fused_with_the_question_itself_weighing_most() -> None:
    """First in the question's list and absent elsewhere beats first in one of two other lists, as by hand."""
    a, b = (Document(id=name, content=name, score=0.5, meta={"scores": {"fused": 0.5}}) for name in "ab")
    found = fused_wordings([[a], [b], []])
    assert [chunk.id for chunk in found] == ["a", "b"]
    assert found[0].score == pytest.approx(0.5)
    assert found[1].meta["scores"] == {"fused": 0.5, "wordings": pytest.approx(0.25)}


def test_several_wordings_find_both_halves_of_a_question(small_chunks: EmbeddedStore, embedder: Embedder) -> None:
    """A question of two parts gets chunks of both documents, in a batch like alone."""
    config = RagConfig(chunk_words=20, overlap_words=0, multi_query="parts", wordings=4, top_k=4)
    search = RefinedSearch(HybridSearch(small_chunks, embedder, config))
    question = "How many bar when fully loaded and what does alert CHG-B310 mean?"
    together = search.retrieve_many([question, "seat heating"])
    assert {chunk.meta["document"] for chunk in together[0][:3]} >= {"tyres", "charging"}
    assert [c.id for c in together[1]] == [c.id for c in search.retrieve_many(["seat heating"])[0]]


def test_generator_wordings_need_a_generator(small_chunks: EmbeddedStore, embedder: Embedder) -> None:
    """Without a model the setting is refused; with one, what it writes is searched."""
    config = RagConfig(chunk_words=20, overlap_words=0, multi_query="generator")
    inner = HybridSearch(small_chunks, embedder, config)
    with pytest.raises(RagError, match="needs an arm with a model"):
        refined(inner)
    writer = _Writer("snowflake button windscreen")
    found = refined(inner, writer).retrieve_many(["zzz qqq"])[0]
    assert writer.asked == ["zzz qqq"]
    plain = HybridSearch(small_chunks, embedder, without_writer(config))
    again = rewording(plain, config, writer).retrieve_many(["zzz qqq"])[0]
    assert [chunk.id for chunk in again] == [chunk.id for chunk in found]
    assert rewording(plain, SMALL, writer) is plain
    assert "heating" in {chunk.meta["document"] for chunk in found}


def test_stages_that_are_off_leave_the_search_as_it_is(small_chunks: EmbeddedStore, embedder: Embedder) -> None:
    """No stage, no wrapper."""
    inner = HybridSearch(small_chunks, embedder, SMALL)
    assert refined(inner) is inner


def test_the_best_sentence_reranks(small_chunks: EmbeddedStore, embedder: Embedder) -> None:
    """The order is that of the mean of fused score and best sentence; scores of all stages stay to be seen."""
    found = HybridSearch(small_chunks, embedder, SMALL).retrieve_many(["how hot may the charger be"], top_k=5)[0]
    ordered = rerank("how hot may the charger be", found, SentenceReranker(embedder))
    values = [chunk.meta["scores"]["rerank"] for chunk in ordered]
    assert values == sorted(values, reverse=True) == [chunk.score for chunk in ordered]
    assert {chunk.id for chunk in ordered} == {chunk.id for chunk in found}
    assert ordered[0].meta["document"] == "charging"
    assert rerank("x", [], SentenceReranker(embedder)) == []


def test_sentences_that_reranked_are_not_embedded_again(small_chunks: EmbeddedStore, embedder: Embedder) -> None:
    """A question asked again embeds no sentence; what answers from these chunks shares their vectors."""
    query = "how hot may the charger be"
    found = HybridSearch(small_chunks, embedder, SMALL).retrieve_many([query], top_k=5)[0]
    first = rerank(query, found, SentenceReranker(embedder))
    sentences = [f"{heading_line(chunk)}\n{quote.text}" for chunk in found for quote in quotes_of(chunk, 0)]
    embedded: list[str] = []

    class _Noting(Embedder):
        def embed_documents(self, texts: Sequence[str], progress: object = None) -> NDArray[np.float32]:  # type: ignore[override]
            embedded.extend(texts)
            return super().embed_documents(texts)

    noting = _Noting(threads=1)
    remembered_vectors(noting).of(sentences, noting)
    assert rerank(query, found, SentenceReranker(noting)) == first
    assert embedded == list(dict.fromkeys(sentences))


def test_the_intent_label_preset_reranks_twenty_and_keeps_ten(store: EmbeddedStore, embedder: Embedder) -> None:
    """Twenty candidates go in, ten chunks come out, ordered by the reranker."""
    config = PRESETS["intent-labels"]
    assert (config.candidates, config.top_k, config.lexical_weight, config.dense_weight) == (20, 10, 0.3, 0.7)
    pages = {f"page-{n}": (f"Page {n}", f"# Page {n}\n\nThe valve number {n} opens at {n} bar.\n") for n in range(30)}
    index_documents(manual_documents(pages), store, embedder, config)
    search = refined(HybridSearch(store, embedder, config))
    assert isinstance(search, RefinedSearch)
    assert search.pool(config.top_k) == 20
    found = search.retrieve_many(["At how many bar does valve number 7 open?"])[0]
    assert len(found) == 10
    assert found[0].meta["document"] == "page-7"
    assert [c.score for c in found] == sorted((c.meta["scores"]["rerank"] for c in found), reverse=True)


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder of two small layers with random weights, saved as sentence-transformers saves them."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("cross-encoder")
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder())
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_cross_encoder_orders_the_candidates(small_chunks: EmbeddedStore, cross_encoder: Path) -> None:
    """The scores are the logistic of the model's own output for query and passage, and decide the order."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    chunks = small_chunks.filter_documents()
    query = "tyre pressure"
    ordered = rerank(query, chunks, CrossEncoderReranker(str(cross_encoder)))
    model = AutoModelForSequenceClassification.from_pretrained(cross_encoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    with torch.no_grad():
        expected = {
            chunk.id: float(torch.sigmoid(model(**tokenizer(query, passage_text(chunk), return_tensors="pt")).logits))
            for chunk in chunks
        }
    assert [chunk.id for chunk in ordered] == sorted(expected, key=lambda identity: -expected[identity])
    assert [chunk.score for chunk in ordered] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-4)


@pytest.mark.slow
def test_a_cross_encoder_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    """The message names the model and what may be named instead."""
    with pytest.raises(RagError, match="cannot be loaded"):
        CrossEncoderReranker(str(tmp_path / "no-such")).scores("x", [Document(content="y")])


@pytest.mark.slow
def test_the_whole_retrieval_goes_through_yaml(
    small_chunks: EmbeddedStore, embedder: Embedder, cross_encoder: Path
) -> None:
    """One component of five stages finds the same before and after YAML, and the same as the search in code."""
    config = RagConfig(
        chunk_words=20, overlap_words=0, multi_query="parts", reranker=str(cross_encoder), diversity=0.3, neighbours=1,
        top_k=3,
    )  # fmt: skip
    pipeline = Pipeline()
    pipeline.add_component("retrieval", retrieval_pipeline(small_chunks, config))
    text = pipeline.dumps()
    again = Pipeline.loads(text, allowed_modules=["rag"])
    query = "How do I change a wheel and how many bar?"
    only = {"field": "meta.document", "operator": "==", "value": "tyres"}
    expected = RefinedSearch(HybridSearch(small_chunks, embedder, config)).retrieve_many([query], filters=only)[0]
    for candidate in (pipeline, again):
        found = candidate.run({"retrieval": {"query": query, "filters": only}})["retrieval"]["documents"]
        assert [chunk.id for chunk in found] == [chunk.id for chunk in expected]
        assert {chunk.meta["document"] for chunk in found} == {"tyres"}
    fewer = again.run({"retrieval": {"query": query, "about": "charging", "top_k": 1}})["retrieval"]["documents"]
    assert [chunk.meta["document"] for chunk in fewer] == ["charging"]


def test_the_retrieval_with_a_writing_model_goes_through_yaml(small_chunks: EmbeddedStore) -> None:
    """The chat generator that writes wordings is kept in the YAML as well; modules not allowed are refused."""
    config = RagConfig(chunk_words=20, overlap_words=0, multi_query="generator", top_k=2)
    pipeline = Pipeline()
    writer = MockChatGenerator("snowflake button windscreen")
    pipeline.add_component("retrieval", retrieval_pipeline(small_chunks, config, writer))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["rag"])
    found = again.run({"retrieval": {"query": "zzz qqq"}})["retrieval"]["documents"]
    assert "heating" in {chunk.meta["document"] for chunk in found}
    with pytest.raises(Exception, match="rag"):
        Pipeline.loads(pipeline.dumps())


def test_one_embedder_serves_all_stages(small_chunks: EmbeddedStore) -> None:
    """Searches whose settings ask for the same embedder share one, so that a model is loaded once."""
    first = open_search(small_chunks, SMALL)
    second = open_search(small_chunks, RagConfig(top_k=2))
    assert first.embedder is second.embedder
