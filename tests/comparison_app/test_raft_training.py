"""Training with context (RAFT) by the recipe for large models that ships, at a tiny size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from comparison_app.training import passages_for, train_on_corpus
from comparison_app.workspace import Workspace
from data_prep.conversations import is_refusal
from data_prep.corpus import load_corpus
from finetune.answering import LocalModel
from finetune.config import Recipe, load_recipe
from finetune.dataset import build_examples
from finetune.models import load_tokenizer
from finetune.packing import IGNORED
from tests.finetune.tiny import save_llama


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The bundled recipe of a 7B, with a tiny Llama of the same context."""
    model = save_llama(tmp_path / "llama", positions=2048)
    shipped = load_recipe("mistral-7b-raft")
    return replace(shipped, model=replace(shipped.model, name=str(model)))


@pytest.mark.slow
def test_the_raft_recipe_of_a_7b_trains_answers_that_quote(recipe: Recipe, small_corpus: Path, tmp_path: Path) -> None:
    """What is trained is an answer and the words of a shown passage, or the refusal; an adapter of 4 bits comes out."""
    corpus, workspace = load_corpus(small_corpus), Workspace(tmp_path / "workspace")
    asked = [question for question in corpus.questions("train") if question.answers]
    tokenizer, passages = load_tokenizer(recipe.model.name), passages_for(recipe, asked, corpus, workspace)
    examples = build_examples(asked, tokenizer, max_length=2048, passages=passages)
    quoting = 0
    for question, example in zip(asked, examples, strict=True):
        reply = (
            tokenizer.decode([token for token in example.labels if token != IGNORED]).removesuffix("<|end|>").strip()
        )
        context = passages(question)
        if not context.holds_answer:
            assert is_refusal(reply)
            continue
        answer, _, quote = reply.partition(" \u201c")
        quoting += bool(quote)
        assert answer.rstrip("\u201d") in (*question.answers, f"\u201c{context.quote}")
        assert not quote or quote.removesuffix("\u201d") in " ".join(" ".join(context.passages).split())
    assert quoting >= len(asked) / 3
    record = train_on_corpus(recipe, corpus, workspace, "quoting")
    assert record.context
    assert record.recipe["data"]["reply"] == "answer-and-quote"
    assert record.losses[-1][1] < record.losses[0][1]
    model = LocalModel(recipe.model.name, quantization="nf4")
    model.add_adapter("quoting", workspace.adapters / "quoting")
    assert model.generator("quoting") is not None
