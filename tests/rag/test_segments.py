"""Segments: what is added, removed and merged gives the same results as an index made at once."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from haystack import Document

from rag import derived, postings
from rag.config import RagConfig
from rag.derived import derived_folder, load_snapshot
from rag.embedding import Embedder
from rag.errors import IndexMismatch
from rag.indexing import index_documents
from rag.lexical import NOISE, Tokenizer, best_hits, lucene_idf
from rag.locking import derived_lock
from rag.postings import SegmentedBm25, build_postings, merge_postings
from rag.retrieval import HybridSearch, supported
from rag.segments import merge_from
from rag.sentences import sentence_texts
from rag.store import EmbeddedStore
from rag.vectors import build_ivf, merge_sentences, nearest_in, pack_sentences, unpack_sentences
from tests.rag.conftest import manual_documents

_CONFIG = RagConfig()
_QUERIES = ["wheel nuts torque", "How long is a full charge?", "CHG-B310", "page 3", "windscreen", "horn"]


def _pages(numbers: range) -> list[Document]:
    return [Document(id=f"p{n}", content=f"Page {n} is about part {n % 4} of the horn.") for n in numbers]


def _answers(store: EmbeddedStore, embedder: Embedder) -> dict[str, float]:
    found = HybridSearch(store, embedder, _CONFIG).retrieve_many(_QUERIES)
    pairs = zip(_QUERIES, found, strict=True)
    return {f"{query} {chunk.id}": chunk.score or 0.0 for query, chunks in pairs for chunk in chunks}


@pytest.mark.slow
def test_many_generations_find_what_one_finds(store: EmbeddedStore, embedder: Embedder) -> None:
    """After twelve re-indexes that add and remove pages, ids and scores are those of an index made at once."""
    for last in range(12):
        index_documents([*manual_documents(), *_pages(range(last // 2, last))], store, embedder, _CONFIG)
    segments = [path for path in derived_folder(store.path).iterdir() if path.is_dir()]
    assert 1 < len(segments) <= 8
    at_once = EmbeddedStore(store.path.with_name("at-once.sqlite"))
    index_documents([*manual_documents(), *_pages(range(5, 11))], at_once, embedder, _CONFIG)
    assert _answers(store, embedder) == pytest.approx(_answers(at_once, embedder), abs=2e-3)


def test_a_large_index_is_built_in_several_segments(
    store: EmbeddedStore, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made from SQLite in blocks of seven chunks and segments of fourteen, it finds what one segment finds."""
    index_documents([*manual_documents(), *_pages(range(40))], store, embedder, _CONFIG)
    whole = _answers(store, embedder)
    for path in derived_folder(store.path).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setattr(derived, "_BUILT_TOGETHER", 7)
    monkeypatch.setattr(derived, "_LARGEST_BUILT", 14)
    segments = load_snapshot(store, "bm25", True).segments
    assert [segment.size for segment in segments] == [14, 14, 14, segments[-1].size]
    assert _answers(store, embedder) == pytest.approx(whole, abs=1e-5)


def test_one_changed_document_leaves_other_segments_unread(store: EmbeddedStore, embedder: Embedder) -> None:
    """A second generation writes a segment of its own chunks; the first one's files are the same ones as before."""
    index_documents([*manual_documents(), *_pages(range(9))], store, embedder, _CONFIG)
    before = {path: path.stat().st_mtime_ns for path in derived_folder(store.path).glob("1-*/*")}
    index_documents([*manual_documents(), *_pages(range(8)), *_pages(range(20, 21))], store, embedder, _CONFIG)
    assert before
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert load_snapshot(store, "bm25", True).alive[0] is not None


def test_documents_can_be_added_without_the_rest(store: EmbeddedStore, embedder: Embedder) -> None:
    """With `keep_others` what is not named stays; with other chunk settings that is refused."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    report = index_documents(_pages(range(1)), store, embedder, _CONFIG, keep_others=True)
    assert (report.added, report.removed, store.count_sources()) == (1, 0, 4)
    assert HybridSearch(store, embedder, _CONFIG).retrieve_many(["part of the horn"])[0][0].id.startswith("p0#")
    with pytest.raises(IndexMismatch, match="whole corpus"):
        index_documents(_pages(range(2)), store, embedder, replace(_CONFIG, chunk_words=50), keep_others=True)


def test_a_reader_that_keeps_files_does_not_keep_a_writer_from_starting(
    store: EmbeddedStore, embedder: Embedder
) -> None:
    """While derived files are being written, a re-index is not refused; it waits for them only at its end."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with derived_lock(store.path, wait=True):
            holding.set()
            release.wait(60)

    reader = threading.Thread(target=hold)
    reader.start()
    holding.wait(60)
    with derived_lock(store.path, wait=False) as held:
        assert not held
    releasing = threading.Timer(0.5, release.set)
    releasing.start()
    assert index_documents(manual_documents()[:2], store, embedder, _CONFIG).removed == 1
    reader.join()


def test_an_index_of_the_first_format_is_made_anew(store: EmbeddedStore, embedder: Embedder) -> None:
    """Tables that older indexes lack are added on opening; chunks of older settings are refused, then cut anew."""
    index_documents(manual_documents(), store, embedder, _CONFIG)
    with store.keeping_vectors() as connection:
        for statement in (
            "DROP TRIGGER chunk_removed",
            "DROP TABLE removed",
            "DROP TABLE sentences",
            "ALTER TABLE chunks DROP COLUMN crc",
            "ALTER TABLE documents DROP COLUMN crc",
            "UPDATE settings SET value = 'old' WHERE key = 'chunk_hash'",
            "PRAGMA user_version = 1",
        ):
            connection.execute(statement)
    store.close()
    with pytest.raises(IndexMismatch, match="run versus index"):
        HybridSearch(store, embedder, _CONFIG).retrieve_many(["horn"])
    index_documents(manual_documents(), store, embedder, _CONFIG)
    assert HybridSearch(store, embedder, _CONFIG).retrieve_many(["wheel nuts"])[0][0].meta["document"] == "tyres"


def test_merging_starts_where_sizes_stop_falling() -> None:
    """The last four are merged, and with them the ones before that are no larger than all after them together."""
    assert merge_from([1000, 3, 3, 3, 3, 3, 3, 3, 3]) == 1
    assert merge_from([1000, 500, 90, 80, 1, 1, 1, 1]) == 4
    assert merge_from([1, 1]) == 0


def test_merged_postings_score_like_built_ones() -> None:
    """Parts with dead passages, side by side or merged, give the scores of an index of the live passages alone."""
    texts = ["horn horn light", "light door", "", "seat belt horn", "horn light door seat"]
    alive = np.array([True, True, True, False, True])
    parts = [build_postings(texts[:2], Tokenizer()), build_postings(texts[2:], Tokenizer())]
    masks = [alive[:2], alive[2:]]
    wanted = SegmentedBm25(
        [build_postings([t for t, a in zip(texts, alive, strict=True) if a], Tokenizer())], [None], Tokenizer()
    )
    beside = SegmentedBm25(parts, masks, Tokenizer())
    merged = SegmentedBm25([merge_postings(parts, masks)], [None], Tokenizer())
    for query in ("horn light", "light door", "belt", "zebra"):
        np.testing.assert_allclose(beside.scores(query)[alive], wanted.scores(query), rtol=1e-6)
        np.testing.assert_array_equal(merged.scores(query), wanted.scores(query))
        assert beside.idf(query) == merged.idf(query) == wanted.idf(query)


def test_postings_agree_with_the_formula_and_count_word_pairs() -> None:
    """A score is the sum over words and neighbouring pairs of idf · tf / (tf + k1 · (1 - b + b · length / mean))."""
    scores = SegmentedBm25([build_postings(["horn light", "light horn"], Tokenizer())], [None], Tokenizer()).scores(
        "horn light"
    )
    both, one = np.log(1 + 0.5 / 2.5), np.log(1 + 1.5 / 1.5)
    np.testing.assert_allclose(scores, [(2 * both + one) / 1.6, 2 * both / 1.6], rtol=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_the_best_passages_are_those_of_full_scoring(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over segments with dead passages, the k best and any others asked for have the positions and scores of `scores`.

    Words are drawn as in real texts, few of them common; k and the queries vary, repeated words and unknown ones too.
    """
    monkeypatch.setattr(postings, "ALL_SCORED_UP_TO", 0)
    rng = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(300)]
    share = 1 / np.arange(1, 301)
    texts = [" ".join(rng.choice(words, size=rng.integers(1, 40), p=share / share.sum())) for _ in range(700)]
    parts = [build_postings(texts[:250], Tokenizer()), build_postings(texts[250:], Tokenizer())]
    masks = [rng.random(250) > 0.1 * (seed % 3), None if seed % 2 else rng.random(450) > 0.4]
    index = SegmentedBm25(parts, masks, Tokenizer())
    for k in (1, 5, 50, 800):
        query = " ".join([*rng.choice(words, size=rng.integers(1, 9)), "w0 w1 w0", "zebra"][:: 1 if k > 1 else 2])
        also = np.unique(rng.integers(700, size=7))
        scores = index.scores(query)
        hits, values = best_hits(scores, k)
        expected = np.union1d(hits[values >= NOISE * scores.max()], also)
        positions, found = index.best(query, k, also)
        np.testing.assert_array_equal(positions, expected)
        np.testing.assert_array_equal(found, scores[expected])
    alive = np.concatenate([np.ones(450, bool) if mask is None else mask for mask in masks])
    live = [text.split() for text, counted in zip(texts, alive, strict=True) if counted]
    for word in ("w0", "w77"):
        assert index.idf(word)[word] == pytest.approx(lucene_idf(sum(word in text for text in live), len(live)))


def test_common_words_are_not_scored_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a rare word, postings of a word that stands in every passage are looked up, not added up."""
    texts = [f"module n{number} horn" for number in range(2000)]
    index = SegmentedBm25([build_postings(texts, Tokenizer())], [None], Tokenizer())
    read: list[int] = []
    gains = SegmentedBm25._gains

    def counted(self: SegmentedBm25, term: object) -> object:
        for passages, gained in gains(self, term):  # type: ignore[arg-type]
            read.append(len(passages))
            yield passages, gained

    monkeypatch.setattr(postings, "ALL_SCORED_UP_TO", 0)
    monkeypatch.setattr(SegmentedBm25, "_gains", counted)
    for k in (1, 50):
        positions, _ = index.best("horn of module n77", k, np.zeros(0, np.int64))
        assert positions.tolist() == [77]
    assert sum(read) < 20


def test_sentence_vectors_survive_eight_bits() -> None:
    """Packed and unpacked unit vectors keep their cosines to 0.003; chunks without sentences score -1."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(7, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = unpack_sentences([pack_sentences(vectors[:3]), None, pack_sentences(vectors[3:])], 64)
    query = vectors[5]
    expected = [max(vectors[:3] @ query), -1.0, 1.0]
    np.testing.assert_allclose(kept.best(np.array([0, 1, 2]), query), expected, atol=3e-3)
    fewer = merge_sentences([kept, kept], [np.array([False, True, True]), np.array([True, False, False])])
    np.testing.assert_allclose(fewer.best(np.arange(3), query), [-1.0, 1.0, expected[0]], atol=3e-3)


def test_the_inverted_file_finds_what_comparing_all_finds() -> None:
    """Of 5,000 clustered vectors at least 95 % of the ten nearest are found; dead ones never."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(50, 32))
    matrix = (centres[rng.integers(50, size=5000)] + 0.4 * rng.normal(size=(5000, 32))).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    alive = rng.random(5000) > 0.2
    ivf = build_ivf(matrix)
    hits = 0
    for query in matrix[:40]:
        exact, cosines = nearest_in(matrix, None, query, 10, alive)
        near, again = nearest_in(matrix, ivf, query, 10, alive)
        assert alive[near].all()
        assert cosines[0] >= again[0] - 1e-6
        hits += len(np.intersect1d(exact, near))
    assert hits >= 380


def test_chunks_of_one_document_support_each_other() -> None:
    """Each gains t · ln Σ exp((s - s_max) / t) over the candidates of its document."""
    fused = np.array([0.6, 0.55, 0.61], dtype=np.float32)
    owners = np.array([1, 1, 2], dtype=np.uint64)
    gained = supported(fused, owners, RagConfig(document_support=0.05))
    bonus = 0.05 * np.log(1 + np.exp(-1))
    np.testing.assert_allclose(gained, [0.6 + bonus, 0.55 + bonus, 0.61], rtol=1e-5)
    np.testing.assert_array_equal(supported(fused, owners, RagConfig(document_support=0.0)), fused)


def test_short_parts_are_embedded_with_their_neighbours() -> None:
    """Sentences stand alone under their heading; what is shorter joins the next, or the last, and nothing is lost."""
    text = "# A\n\nCheck the pressure once a month. Cold.\n\n- Front: 2.4 bar\n- Rear: 2.6 bar when full\n\nYes."
    chunk = Document(id="t", content=text, meta={"title": "Care", "section": "Tyres"})
    assert sentence_texts(chunk, True) == [
        "Care › Tyres\nCheck the pressure once a month.",
        "Care › Tyres\nCold.\n\n- Front: 2.4 bar\n- Rear: 2.6 bar when full\nYes.",
    ]
    assert sentence_texts(Document(id="h", content="# Only a heading"), False) == ["# Only a heading"]
