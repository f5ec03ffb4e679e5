"""The bundled embedder: checked, cached, the same through both backends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rag import embedding
from rag.embedding import THREADS, Embedder, bundled_folder
from rag.errors import EmbeddingError

_TEXTS = ["How do I change a wheel?", "The horn.", "", "Давление в шинах", "x" * 30_000]


def test_vectors_have_unit_length_and_keep_the_order(embedder: Embedder) -> None:
    """Texts are sorted by length inside, but the vectors come back in the order given."""
    together = embedder.embed_documents(_TEXTS)
    assert together.shape == (5, 384)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-3)
    for text, vector in zip(_TEXTS[:2], together, strict=False):
        assert float(embedder.embed_queries([text])[0] @ vector) > 0.999


def test_like_texts_are_near(embedder: Embedder) -> None:
    """A question is nearer to its answer than to another text."""
    query = embedder.embed_queries(["How often should tyres be checked?"])[0]
    near, far = embedder.embed_documents(["Check tyre pressure every month.", "The radio has six presets."])
    assert query @ near > query @ far + 0.2


@pytest.mark.slow
def test_unrounded_backends_give_the_same_vectors_and_the_default_is_near(embedder: Embedder) -> None:
    """OpenVINO and torch share one fingerprint; the default, in 8 bits, has another and stays near them."""
    reference, unrounded = Embedder(backend="torch", threads=1), Embedder(backend="openvino", threads=1)
    vectors = reference.embed_documents(_TEXTS)
    assert (unrounded.embed_documents(_TEXTS) * vectors).sum(axis=1).min() > 0.999
    assert 0.97 < (embedder.embed_documents(_TEXTS) * vectors).sum(axis=1).min() < 0.999
    assert reference.fingerprint == unrounded.fingerprint != embedder.fingerprint


def test_texts_are_put_together_by_their_tokens(embedder: Embedder) -> None:
    """Batches are of like length in tokens: a short text of long words is no companion of a long text of short ones."""
    texts = ["a b c d e f g h i j k l m n o p", "internationalisation"] * 40
    engine = embedder._loaded()
    assert engine.lengths(texts)[0] > engine.lengths(texts)[1]
    assert engine.lengths(["x " * 5_000]) == [256]


def test_prefixes_change_the_vectors_and_only_the_passage_prefix_the_fingerprint(embedder: Embedder) -> None:
    """An index depends on how passages were embedded, not on how queries are."""
    prefixed = Embedder(query_prefix="query: ", passage_prefix="passage: ", threads=1)
    np.testing.assert_allclose(
        prefixed.embed_documents(["a horn"]), embedder.embed_documents(["passage: a horn"]), atol=1e-5
    )
    assert Embedder(query_prefix="query: ").fingerprint == embedder.fingerprint != prefixed.fingerprint


def test_altered_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package whose weights were changed is named with the mend, before anything is converted."""
    folder = tmp_path / "model"
    shutil.copytree(bundled_folder(), folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\x01")
    monkeypatch.setattr(embedding, "bundled_folder", lambda: folder)
    monkeypatch.setenv("VERSUS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EmbeddingError, match="not the published weights"):
        Embedder().warm_up()
    assert not (tmp_path / "cache").exists()


def test_an_unknown_model_is_one_clear_line() -> None:
    """A model that can neither be found nor downloaded is named."""
    with pytest.raises(EmbeddingError, match="no/such-model"):
        Embedder("no/such-model", backend="torch").warm_up()


def test_openvino_runs_only_the_bundled_model() -> None:
    """Another model with the backend `openvino` is refused at once."""
    with pytest.raises(EmbeddingError, match="set backend = 'torch'"):
        Embedder("intfloat/e5-small", backend="openvino")


@pytest.mark.slow
def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    """A flipped byte in the converted model is noticed, and the model is converted anew."""
    script = "from rag.embedding import Embedder; print(Embedder(threads=1).embed_queries(['a'])[0, 0])"
    environment = {**os.environ, "VERSUS_CACHE": str(tmp_path)}

    def run() -> float:
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    first = run()
    weights = next(tmp_path.glob("openvino/*/model.bin"))
    with weights.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"\xff\xff\xff\xff")
    assert run() == pytest.approx(first, abs=1e-4)


@pytest.mark.slow
def test_a_cache_that_cannot_be_made_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache path that is not a folder names VERSUS_CACHE."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("VERSUS_CACHE", str(blocked))
    with pytest.raises(EmbeddingError, match="set VERSUS_CACHE"):
        Embedder().warm_up()


def test_a_process_that_serves_many_sets_the_threads_of_its_embedders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment decides where nobody says otherwise; nonsense in it counts as nothing."""
    for given, told, threads in (("1", None, 1), ("1", 3, 3), ("many", None, None), ("0", None, None)):
        monkeypatch.setenv(THREADS, given)
        assert Embedder(threads=told).threads == threads


@pytest.mark.slow
def test_memory_does_not_grow_with_the_shapes_of_batches() -> None:
    """Texts of ever other lengths in batches of ever other sizes take no more memory once some hundred came."""
    script = (
        "import random; from rag.embedding import Embedder\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * 4096 // 2**20\n"
        "embedder, drawn, sizes = Embedder(threads=1), random.Random(0), []\n"
        "for _ in range(3):\n"
        "    for _ in range(60):\n"
        "        texts = ['word ' * drawn.randint(3, 90) for _ in range(drawn.randint(1, 10))]\n"
        "        embedder.embed_documents(texts)\n"
        "    sizes.append(resident())\n"
        "print(sizes[2] - sizes[1])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60
