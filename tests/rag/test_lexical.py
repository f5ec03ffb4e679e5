"""Index terms and BM25."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag.errors import StoreError
from rag.lexical import Bm25sIndex, RankBm25Index, Tokenizer, best_hits, make_lexical_index

_PASSAGES = [
    "Alert CHG-B204: the cable is not locked.",
    "The tyre pressure is 2.4 bar at the front.",
    "Tyres wear faster at a wrong pressure.",
    "Heated seats switch off after 30 minutes.",
    "",
    "Проверяйте давление в шинах каждый месяц.",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Alert TRN-B101", ["alert", "trn-b101", "trn", "b", "101"]),
        ("ESP_a118", ["esp_a118", "esp", "118"]),
        (
            "the kube-apiserver's EndpointSlice",
            ["kube-apiserver", "kube", "apiserv", "endpointslic", "endpoint", "slice"],
        ),
        ("3.5bar", ["3.5bar", "3.5", "bar"]),
        ("40 psi", ["40", "psi", "40psi"]),
        ("120 Нм", ["120", "нм", "120нм"]),
        ("3000 об/мин", ["3000", "об/мин", "мин", "3000об/мин"]),
        ("what is the", []),
        ("Какое давление в шинах?", ["давлен", "шин"]),
    ],
)
def test_index_terms(text: str, expected: list[str]) -> None:
    """Codes and compounds stay whole beside their parts, numbers keep their units, stop words go."""
    terms = [term for term in Tokenizer()(text) if term not in {"как", "какое"}]
    assert terms == expected


@pytest.mark.parametrize("engine", ["bm25s", "rank-bm25"])
@pytest.mark.parametrize(
    ("query", "best"),
    [("CHG-B204", 0), ("b204", 0), ("front tyre pressure", 1), ("seat heating minutes", 3), ("давление шины", 5)],
)
def test_both_engines_find_the_passage(engine: str, query: str, best: int) -> None:
    """Word forms, codes, parts of codes and Russian find their passage first."""
    index = make_lexical_index(engine, _PASSAGES, Tokenizer())
    assert int(index.scores(query).argmax()) == best


@pytest.mark.parametrize("engine", ["bm25s", "rank-bm25"])
@pytest.mark.parametrize("query", ["", "   ", "zebra", "the of and", '" OR 1=1; --', "+title:* AND (", "日本語"])
def test_queries_without_a_known_word_score_nothing(engine: str, query: str) -> None:
    """Empty, unknown and query-language text scores 0 everywhere, without error."""
    assert not make_lexical_index(engine, _PASSAGES, Tokenizer()).scores(query).any()


def test_an_index_of_nothing_scores_nothing() -> None:
    """No passages, or passages without words, are an index all the same."""
    for passages in ([], ["", "the"]):
        assert Bm25sIndex.build(passages, Tokenizer()).scores("horn").shape == (len(passages),)
        assert RankBm25Index.build(passages, Tokenizer()).scores("horn").shape == (len(passages),)


def test_a_saved_index_scores_the_same(tmp_path: Path) -> None:
    """What is written and read again gives equal scores; no pickle is involved."""
    index = Bm25sIndex.build(_PASSAGES, Tokenizer())
    index.save(tmp_path / "bm25")
    again = Bm25sIndex.load(tmp_path / "bm25", Tokenizer())
    np.testing.assert_array_equal(index.scores("tyre pressure bar"), again.scores("tyre pressure bar"))
    assert index.idf("tyre zebra") == again.idf("tyre zebra")


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    """A truncated file is a `StoreError`, not a crash."""
    Bm25sIndex.build(_PASSAGES, Tokenizer()).save(tmp_path / "bm25")
    (tmp_path / "bm25.npz").write_bytes((tmp_path / "bm25.npz").read_bytes()[:100])
    with pytest.raises(StoreError, match="damaged"):
        Bm25sIndex.load(tmp_path / "bm25", Tokenizer())


def test_bm25s_agrees_with_the_formula() -> None:
    """A score is the sum over terms of idf · tf / (tf + k1 · (1 - b + b · length / mean length)), k1 1.2, b 0.75."""
    passages = ["horn horn light", "horn", "light door seat belt"]
    scores = Bm25sIndex.build(passages, Tokenizer()).scores("horn")
    idf = np.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    mean = (3 + 1 + 4) / 3
    expected = [idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * n / mean)) for tf, n in ((2, 3), (1, 1))]
    np.testing.assert_allclose(scores, [*expected, 0], rtol=1e-5)


def test_best_hits_breaks_ties_by_position_and_skips_zeros() -> None:
    """Equal scores come in the order of their positions; zeros never come."""
    scores = np.array([0, 2, 0, 2, 1, 0, 3], dtype=np.float32)
    positions, values = best_hits(scores, 3, None)
    assert positions.tolist() == [6, 1, 3]
    assert values.tolist() == [3, 2, 2]
    many = np.tile(np.array([1, 0], dtype=np.float32), 500)
    assert best_hits(many, 5, None)[0].tolist() == [0, 2, 4, 6, 8]


def test_unknown_terms_weigh_most() -> None:
    """The inverse document frequency of a term no passage holds is the highest of all, in both engines."""
    for engine in ("bm25s", "rank-bm25"):
        idf = make_lexical_index(engine, _PASSAGES, Tokenizer()).idf("tyre zebra")
        assert idf["zebra"] > idf["tyre"] > 0
