"""Metadata filters: the store finds what Haystack's own function accepts, whatever the filter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from haystack import Document
from haystack.utils.filters import document_matches_filter
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.filters import narrowing
from rag.store import EmbeddedStore

_VALUES = st.sampled_from(["a", "b", "x'; DROP TABLE chunks; --", "", 0, 1, 2, 1.5, True, None, "2024-01-01"])
_FIELDS = st.sampled_from(["meta.kind", "meta.year", "meta.nested.kind", "content", "kind", "meta.no'such", "id"])
_COMPARISONS = st.one_of(
    st.fixed_dictionaries({"field": _FIELDS, "operator": st.sampled_from(["==", "!="]), "value": _VALUES}),
    st.fixed_dictionaries(
        {"field": _FIELDS, "operator": st.sampled_from(["in", "not in"]), "value": st.lists(_VALUES, max_size=3)}
    ),
)
_FILTERS = st.recursive(
    _COMPARISONS,
    lambda inner: st.fixed_dictionaries(
        {"operator": st.sampled_from(["AND", "OR", "NOT"]), "conditions": st.lists(inner, min_size=1, max_size=3)}
    ),
    max_leaves=5,
)
_CHUNKS = [
    Document(id="1", content="a", meta={"kind": "a", "year": 1}),
    Document(id="2", content="b", meta={"kind": "b", "year": 2, "nested": {"kind": "a"}}),
    Document(id="3", content="", meta={"kind": "x'; DROP TABLE chunks; --", "year": 1.5}),
    Document(id="4", content="c", meta={"year": True, "kind": "2024-01-01"}),
    Document(id="5", content="d", meta={"kind": None, "year": 0}),
    Document(id="6", content="e", meta={"kind": ["a", "b"], "year": "2024-01-01T00:00:00"}),
    Document(id="7", content="f", meta={}),
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedStore:
    """A store of seven chunks of odd metadata."""
    store = EmbeddedStore(Path(tmp_path_factory.mktemp("filters")) / "index.sqlite")
    store.write_documents(_CHUNKS)
    return store


@settings(deadline=None, max_examples=300)
@given(filters=_FILTERS)
def test_filters_find_what_haystack_accepts(filled: EmbeddedStore, filters: dict[str, Any]) -> None:
    """Narrowing by SQL loses nothing and adds nothing."""
    expected = [chunk.id for chunk in _CHUNKS if document_matches_filter(filters, chunk)]
    assert [chunk.id for chunk in filled.filter_documents(filters)] == expected
    assert len(filled.rows_matching(filters)) == len(expected)


def test_equality_is_left_to_sql() -> None:
    """Equality and membership become a condition with bound values."""
    both = {
        "operator": "AND",
        "conditions": [
            {"field": "meta.kind", "operator": "==", "value": "a"},
            {"field": "id", "operator": "in", "value": ["1", "2"]},
        ],
    }
    assert narrowing(both) == ("(json_extract(meta, '$.kind') = ?) AND (id IN (?, ?))", ["a", "1", "2"])
    assert narrowing({"field": "meta.year", "operator": ">", "value": 3}) == ("1", [])


def test_chunks_of_a_document_and_their_vectors(filled: EmbeddedStore) -> None:
    """A document's chunks come in reading order; a chunk without a vector has none."""
    pieces = [
        Document(id=f"d#{start}", content="x", embedding=[3.0, 4.0], meta={"document": "d", "start": start})
        for start in (20, 0, 10)
    ]
    filled.write_documents(pieces)
    assert [chunk.meta["start"] for chunk in filled.chunks_of("d")] == [0, 10, 20]
    assert filled.vectors_of(["d#0", "1", "no-such"])["d#0"].tolist() == pytest.approx([0.6, 0.8])
    assert set(filled.vectors_of(["d#0", "1", "no-such"])) == {"d#0"}
    filled.delete_documents([piece.id for piece in pieces])
