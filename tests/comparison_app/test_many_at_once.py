"""Many visitors of one process: one copy of a model for all, and nobody waits for a re-indexing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from comparison_app.arm_pool import ArmPool
from comparison_app.library import Library, copy_corpus, write_document
from comparison_app.workspace import Workspace
from data_prep.corpus import load_corpus
from data_prep.questions import Question
from finetune.config import recipe_from_mapping
from finetune.training import train_adapter
from tests.comparison_app.pages import html_of, opened
from tests.finetune.tiny import questions, save_pocket_like
from tests.small_corpus import write_small_corpus

LEARNT = "Twelve hours in the cold."


def _train(model: Path, adapter: Path, steps: int) -> None:
    tables = {
        "model": {"name": str(model)},
        "lora": {"rank": 16, "alpha": 32},
        "optimisation": {"max_steps": steps, "learning_rate": 5e-3, "batch_size": 4},
    }
    train_adapter(recipe_from_mapping(tables, name="tiny", source="test"), questions(), adapter)


@pytest.mark.slow
def test_threads_share_one_model_and_a_retrained_adapter_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads, two corpora, two arms: the weights are loaded once, and each has the answers of one alone.

    Trained anew under its old name, the adapter's new weights answer, without a restart.
    """
    workspace = Workspace(tmp_path / "workspace")
    corpora = [load_corpus(write_small_corpus(workspace.corpora / "lamp"))]
    corpora.append(copy_corpus(corpora[0], "lamp-2", workspace))
    model, adapter = save_pocket_like(tmp_path / "model"), workspace.adapters / "v1"
    _train(model, adapter, 1)
    experiment = tmp_path / "arms.toml"
    experiment.write_text(
        f'name = "arms"\ncorpus = "lamp"\n[[arms]]\nname = "bare"\nkind = "base"\nmodel = "{model}"\n'
        f'[[arms]]\nname = "taught"\nkind = "finetuned"\nmodel = "{model}"\nadapter = "v1"\n'
    )
    import finetune.answering

    load, loads = finetune.answering.load_base, []

    def counted(*given: Any, **settings: Any) -> Any:
        loads.append(given)
        return load(*given, **settings)

    monkeypatch.setattr(finetune.answering, "load_base", counted)
    pool, start = ArmPool(workspace, experiment), threading.Barrier(8)

    def ask(number: int) -> tuple[str, str]:
        arm = ("bare", "taught")[number // 2 % 2]
        start.wait(60)
        (made,) = pool.arm(corpora[number % 2], arm).answer(questions()[:1])
        assert made.error is None, made.error
        return arm, made.answer

    with ThreadPoolExecutor(8) as threads:
        said = list(threads.map(ask, range(8)))
    assert len(loads) == 1
    alone = {arm: next(pool.arm(corpora[0], arm).answer(questions()[:1])).answer for arm in ("bare", "taught")}
    assert said == [(arm, alone[arm]) for arm, _ in said]
    assert pool.arm(corpora[0], "taught") is pool.arm(corpora[0], "taught")

    _train(model, workspace.adapters / "v2", 150)
    adapter.rename(tmp_path / "old")
    (workspace.adapters / "v2").rename(adapter)
    assert next(pool.arm(corpora[1], "taught").answer(questions()[:1])).answer == LEARNT
    assert next(pool.arm(corpora[0], "bare").answer(questions()[:1])).answer == alone["bare"]
    assert len(loads) == 2


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What holds a re-indexing up at its embedding until it is set; those who ask embed as ever."""
    from rag.embedding import Embedder

    way, embed = threading.Event(), Embedder.embed_documents

    def waiting(self: Embedder, texts: Sequence[str], *rest: Any, **settings: Any) -> Any:
        assert not threading.current_thread().name.startswith("index-") or way.wait(120)
        return embed(self, texts, *rest, **settings)

    way.set()
    monkeypatch.setattr(Embedder, "embed_documents", waiting)
    yield way
    way.set()


@pytest.mark.slow
def test_questions_are_answered_while_the_index_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    """In the middle of it the answer comes from the index as it was; afterwards the new document answers."""
    import streamlit as st

    from comparison_app.web import session

    workspace = Workspace(tmp_path / "workspace")
    corpus = load_corpus(write_small_corpus(workspace.corpora / "lamp"))
    monkeypatch.setenv("VERSUS_WORKSPACE", str(workspace.path))
    monkeypatch.setenv("VERSUS_CORPUS", "lamp")
    st.cache_resource.clear()
    library: Library = session.library()
    library.retriever(corpus)
    write_document(corpus, "remote", "# Remote control\n\nThe remote control reaches 9 metres through open air.\n")
    gate.clear()
    try:
        task = library.reindex(corpus)
        page = opened("ask", q="What do I clean the shade with?", arms="rag-extractive")
        assert "damp cloth" in html_of(page)
        assert not task.finished.is_set() and task.report is None
        early = opened("ask", q="How far does the remote control reach?", arms="rag-extractive")
        assert "9 metres" not in html_of(early) and not task.finished.is_set()
    finally:
        gate.set()
    assert task.finished.wait(120) and task.report is not None and task.report.added == 1
    late = opened("ask", q="How far does the remote control reach?", arms="rag-extractive")
    assert "9 metres" in html_of(late)
    st.cache_resource.clear()


@pytest.mark.slow
def test_who_asks_during_the_very_first_indexing_waits_for_it(tmp_path: Path, gate: threading.Event) -> None:
    """The file of that index is there already, and empty: an arm waits until something was committed, then answers."""
    workspace = Workspace(tmp_path / "workspace")
    corpus = load_corpus(write_small_corpus(workspace.corpora / "lamp"))
    library, pool = Library(workspace), ArmPool(workspace)
    gate.clear()
    task = library.reindex(corpus)
    index = workspace.path / "indexes" / "lamp" / "index.sqlite"
    until = time.monotonic() + 60
    while not index.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not library.is_indexed(corpus)  # nor would it be after a kill
    with ThreadPoolExecutor(2) as threads:
        arm = threads.submit(pool.arm, corpus, "rag-extractive")
        text = threads.submit(library.text, corpus, "cleaning")
        time.sleep(0.5)
        assert not (arm.done() or text.done() or task.finished.is_set())
        gate.set()
        assert "damp cloth" in text.result(120)
        (made,) = arm.result(120).answer([Question("q", "What do I clean the shade with?")])
    assert made.error is None and "damp cloth" in made.answer


@pytest.mark.slow
def test_when_to_decline_is_found_out_once_and_before_an_index_is_said_to_be_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    """Meanwhile the page says how far that is; who asks afterwards waits for nothing, and four at once make it once."""
    import streamlit as st

    import rag.abstention
    from comparison_app.web import session

    calibrate, made = rag.abstention.calibrate_abstention, []

    def counted(*given: Any, **settings: Any) -> Any:
        made.append(given)
        return calibrate(*given, **settings)

    monkeypatch.setattr(rag.abstention, "calibrate_abstention", counted)
    monkeypatch.setenv("VERSUS_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("VERSUS_CORPUS", "lamp")
    workspace = Workspace(tmp_path / "workspace")
    corpus = load_corpus(write_small_corpus(workspace.corpora / "lamp"))
    splits = corpus.path / "questions"  # its test questions are of both kinds
    (splits / "dev.jsonl").write_text((splits / "test.jsonl").read_text())
    st.cache_resource.clear()
    gate.clear()
    try:
        task = session.library().reindex(corpus)
        page = opened("ask")
        assert "lamp is being made ready" in "".join(str(item.proto) for item in page.get("progress"))
    finally:
        gate.set()
    assert task.finished.wait(120) and task.error is None and len(made) == 1
    page.run()
    assert not page.get("progress") and session.first_index(corpus) is None

    def built(pool: ArmPool) -> None:
        assert next(pool.arm(corpus, "rag-extractive").answer(questions()[:1])).error is None

    built(ArmPool(workspace))
    assert len(made) == 1
    (workspace.path / "indexes" / "lamp" / "abstention.json").unlink()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(built, [ArmPool(workspace) for _ in range(4)]))
    assert len(made) == 2
    st.cache_resource.clear()
