"""Settings are checked when they are made, and every mistake is named at once."""

from __future__ import annotations

import pytest

from rag.config import PRESETS, RagConfig, index_file_name
from rag.errors import RagError


def test_all_bad_values_are_reported_together() -> None:
    """One error names every value that is out of range."""
    with pytest.raises(RagError) as caught:
        RagConfig(chunk_words=5, fusion="sum", abstain_below=1.5)
    assert all(name in str(caught.value) for name in ("chunk_words", "fusion", "abstain_below"))


def test_unknown_keys_and_wrong_types_are_reported_together() -> None:
    """An unknown key is named with the nearest known one, beside a value of the wrong type."""
    with pytest.raises(RagError, match=r"chunk_word.*did you mean 'chunk_words'.*top_k is '3'"):
        RagConfig.from_mapping({"chunk_word": 100, "top_k": "3"})


def test_a_preset_can_be_changed_in_part() -> None:
    """Keys given beside a preset replace its own; the rest of the preset stays."""
    config = RagConfig.from_mapping({"preset": "car-manual", "top_k": 2})
    assert (config.chunk_words, config.overlap_words, config.top_k, config.lexical_weight) == (500, 50, 2, 0.0)


def test_presets_repeat_the_earlier_systems() -> None:
    """The intent-label system weighs BM25 0.3 and vectors 0.7, and keeps 10 of 20."""
    preset = PRESETS["intent-labels"]
    assert (preset.lexical_weight, preset.dense_weight, preset.candidates, preset.top_k) == (0.3, 0.7, 20, 10)


def test_index_files_of_different_chunks_have_different_names() -> None:
    """Arms that cut documents differently do not share an index; those that only fuse differently do."""
    names = {index_file_name(config) for config in PRESETS.values()}
    assert index_file_name(RagConfig(fusion="rrf", top_k=9)) == index_file_name(RagConfig()) == "index.sqlite"
    assert len(names) == 3
    exact = index_file_name(RagConfig(backend="openvino"))
    assert index_file_name(RagConfig(backend="openvino-int8")) == "index.sqlite" != exact not in names
