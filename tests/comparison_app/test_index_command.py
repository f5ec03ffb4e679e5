"""`versus index` that watches, embeds on a cluster, or writes to Milvus; and `versus search` with settings."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comparison_app.indexes import index_path
from comparison_app.watching import changes, corpus_state
from comparison_app.workspace import Workspace
from data_prep.corpus import load_corpus
from rag.config import RagConfig
from rag.embedding import Embedder
from rag.indexing import index_documents
from rag.store import EmbeddedStore
from tests.comparison_app.command import VERSUS, assert_clear_error, take_interrupts, versus


def test_arms_of_exact_vectors_have_an_index_of_their_own(small_corpus: Path, tmp_path: Path) -> None:
    """An unrounded arm beside the default one asks another index; backends of equal vectors share one."""
    workspace, corpus = Workspace(tmp_path), load_corpus(small_corpus)
    paths = {
        name: index_path(workspace, corpus, RagConfig(backend=name))
        for name in ("auto", "openvino-int8", "openvino", "torch")
    }
    assert paths["auto"] == paths["openvino-int8"] != paths["openvino"] == paths["torch"]
    assert paths["auto"].parent.name == corpus.name


def test_a_watched_folder_tells_of_changes_once_they_rest(small_corpus: Path) -> None:
    """Added, changed, renamed and deleted documents are changes; other files are not; nothing is told twice."""
    told = changes(small_corpus, 0.05)
    next(told)
    documents = sorted((small_corpus / "documents").glob("*.md"))
    found: list[float] = []

    def wait() -> None:
        next(told)
        found.append(time.monotonic())

    for act in (
        lambda: (small_corpus / "documents" / "new.md").write_text("# New\n"),
        lambda: documents[0].write_text("# Changed\n\nOther text.\n"),
        lambda: documents[1].rename(documents[1].with_name("renamed.md")),
        lambda: documents[2].unlink(),
    ):
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        (small_corpus / "notes.txt").write_text(str(time.time()))
        waiting.join(0.3)
        assert waiting.is_alive()
        before = corpus_state(small_corpus)
        act()
        assert corpus_state(small_corpus) != before
        waiting.join(10)
        assert not waiting.is_alive()
    assert len(found) == 4


def _reports(stream: Iterator[str]) -> Iterator[dict[str, object]]:
    """Yield each JSON document that the command prints."""
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if line.rstrip() == "}":
            yield json.loads("".join(lines))
            lines = []


@pytest.mark.slow
def test_index_watch_follows_the_documents(small_corpus: Path, tmp_path: Path) -> None:
    """A new document is indexed alone, a deleted one leaves, a renamed one keeps its vectors; it ends on interrupt.

    A broken corpus is waited out.
    """
    command = [
        *VERSUS,
        "index",
        str(small_corpus),
        "--watch",
        "--interval",
        "0.2",
        "--json",
        "--workspace",
        str(tmp_path),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=take_interrupts,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        reports = _reports(iter(process.stdout.readline, ""))
        first = next(reports)
        extra = small_corpus / "documents" / "extra.md"
        extra.write_text("# Extra\n\nThe extra lamp is orange and weighs 2 kg.\n")
        second = next(reports)
        settings = (small_corpus / "corpus.toml").read_text()
        (small_corpus / "corpus.toml").write_text("not toml =")
        assert "waiting for the next change" in process.stderr.readline()
        (small_corpus / "corpus.toml").write_text(settings)
        next(reports)
        extra.unlink()
        last = next(reports)
        (small_corpus / "documents" / "warranty.md").rename(small_corpus / "documents" / "guarantee.md")
        renamed = next(reports)
    finally:
        process.send_signal(2)
        assert process.wait(30) == 0
    assert (first["unchanged"], second["added"], second["changed"], second["embedded"]) == (0, 1, 0, 1)
    assert (last["removed"], last["added"], last["embedded"]) == (1, 0, 0)
    assert last["chunks"] == first["chunks"]
    assert (renamed["added"], renamed["removed"], renamed["embedded"]) == (1, 1, 0)
    assert renamed["chunks"] == first["chunks"]


@pytest.mark.slow
def test_index_on_a_ray_cluster_makes_the_same_index(small_corpus: Path, tmp_path: Path) -> None:
    """A local cluster of several processes embeds; each chunk's vector is the one that it has without it."""
    done = versus("index", small_corpus, "--workspace", tmp_path / "cluster", "--ray", "local", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    store = EmbeddedStore(report["index"])
    chunks = store.filter_documents()
    assert report["embedded"] == report["chunks"] == len(chunks)
    plain = EmbeddedStore(tmp_path / "plain.sqlite")
    index_documents(load_corpus(small_corpus).documents(), plain, Embedder(threads=1), RagConfig())
    ids = [chunk.id for chunk in chunks]
    vectors, expected = store.vectors_of(ids), plain.vectors_of(ids)
    assert len(expected) == len(ids)
    assert min(float(vectors[name] @ expected[name]) for name in ids) > 0.999
    assert_clear_error(
        versus("index", small_corpus, "--workspace", tmp_path / "none", "--ray", "127.0.0.1:1"), "no Ray cluster"
    )


@pytest.mark.slow
def test_index_and_search_on_milvus(small_corpus: Path, tmp_path: Path) -> None:
    """The same two commands with --store; settings go in as NAME=VALUE, and wrong ones are refused."""
    store = f"milvus://{tmp_path}/lite.db/lamps"
    options = ("--workspace", tmp_path, "--store", store)
    done = versus("index", small_corpus, *options, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["added"] > 2
    settings = ("--set", "neighbours=1", "--set", "reranker=sentences", "--filter", "language=en", "--top", "1")
    found = versus("search", "lamp", "--corpus", small_corpus, *options, *settings, "--json")
    assert found.returncode == 0, found.stderr
    assert "rerank" in json.loads(found.stdout)["found"][0]["scores"]
    assert_clear_error(
        versus("search", "lamp", "--corpus", small_corpus, "--workspace", tmp_path, "--set", "neighbors=1"),
        "did you mean 'neighbours'",
    )


@pytest.mark.slow
def test_the_presets_run_as_arms(small_corpus: Path, tmp_path: Path) -> None:
    """Each preset of the earlier systems answers, from its own index and with its own number of chunks."""
    experiment = tmp_path / "presets.toml"
    arms = "".join(
        f'[[arms]]\nname = "{preset}"\nkind = "rag-extractive"\npreset = "{preset}"\n'
        for preset in ("car-manual", "intent-labels")
    )
    experiment.write_text(f'name = "presets"\ncorpus = "{small_corpus}"\n{arms}')
    done = versus("compare", experiment, "--workspace", tmp_path / "workspace", "--json")
    assert done.returncode == 0, done.stderr
    run = next((tmp_path / "workspace" / "runs").iterdir())
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert {row["arm"] for row in rows} == {"car-manual", "intent-labels"}
    assert not [row["error"] for row in rows if row["error"]]
    assert max(len(row["documents"]) for row in rows if row["arm"] == "car-manual") <= 3
