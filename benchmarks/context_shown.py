"""What a generator of short context should be shown: whole chunks, or how many of their best sentences.

    python benchmarks/context_shown.py [--questions N] [--model pocket] [--adapter FOLDER] [--unseen] [--gold]
        [--workspace DIR]

Answers the answerable dev questions of the sample manual, or test questions of its unseen pages, all or the first N,
from retrieval or (`--gold`) from the one chunk that holds the evidence, without declining by confidence, and prints
token F1, the share declined, the share that was shown some of its evidence, and processor seconds an answer for each
number of sentences; `chunks` is what fits of whole chunks into the model's context less 128 tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comparison_app.indexes import fit_context, open_retriever, rag_config
from comparison_app.metrics.overlap import token_f1
from comparison_app.training import gold_chunk, is_evidence
from comparison_app.workspace import Workspace
from data_prep.corpus import SAMPLE_CORPUS
from data_prep.questions import Question

if TYPE_CHECKING:
    from haystack import Document

    from rag.refining import Search

SHOWN = (None, 1, 2, 3, 5)


class GoldChunks:
    """A search that finds for each of `questions` the chunk that holds its evidence, and nothing else."""

    def __init__(self, inner: Search, questions: Sequence[Question]) -> None:
        self.config, self.embedder, self.store = inner.config, inner.embedder, inner.store
        self.warm_up, self.query_idf = inner.warm_up, inner.query_idf
        ranked = inner.retrieve_many([each.question for each in questions], [each.about for each in questions], 20)
        chunks = self.store.filter_documents()
        self._gold = {q.question: gold_chunk(q, found, chunks) for q, found in zip(questions, ranked, strict=True)}

    def retrieve_many(self, queries: Sequence[str], *_: object) -> list[list[Document]]:
        """Return each question's chunk."""
        return [[chunk] if (chunk := self._gold[query]) is not None else [] for query in queries]


def main() -> None:
    """Measure and print one line of JSON for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=None)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--adapter", type=Path, help="an adapter trained with context; without, the base answers")
    parser.add_argument("--unseen", action="store_true", help="test questions of unseen pages instead of dev questions")
    parser.add_argument("--gold", action="store_true", help="show of the chunk that holds the evidence alone")
    parser.add_argument("--workspace", type=Path, default=None)
    chosen = parser.parse_args()

    from finetune.answering import LocalModel
    from rag.answering import RagAnswerer

    workspace = Workspace.resolve(chosen.workspace)
    corpus = workspace.corpus(SAMPLE_CORPUS)
    unseen = [question for question in corpus.questions("test") if question.slice == "unseen-page"]
    pool = unseen if chosen.unseen else corpus.questions("dev")
    asked = [question for question in pool if question.answerable][: chosen.questions]
    retriever: Search = open_retriever(workspace, corpus, rag_config())
    if chosen.gold:
        retriever = GoldChunks(retriever, asked)
    model = LocalModel(chosen.model, threads=1)
    if chosen.adapter:
        model.add_adapter("adapter", chosen.adapter)
    generator = model.generator("adapter" if chosen.adapter else None)
    model.warm_up()
    fitted = fit_context(rag_config(), model.context_length)
    for count in SHOWN:
        config = replace(fitted, context_sentences=count)
        answerer = RagAnswerer(retriever, generator, config, corpus.language, model.count_tokens, guarded=False)
        started = time.process_time()
        answers = answerer.answer([question.question for question in asked])
        seconds = (time.process_time() - started) / len(asked)
        scores = [token_f1(answer.data, question.answers) for question, answer in zip(asked, answers, strict=True)]
        declined = sum(answer.meta["abstained"] for answer in answers) / len(asked)
        held = sum(
            any(is_evidence(span, question) for span in answer.meta["spans"])
            for question, answer in zip(asked, answers, strict=True)
        )
        shown = "chunks" if count is None else f"{count} sentences"
        figures = {
            "token_f1": sum(scores) / len(scores),
            "declined": declined,
            "evidence": held / len(asked),
            "seconds": seconds,
        }
        print(json.dumps({"shown": shown, **{name: round(value, 3) for name, value in figures.items()}}), flush=True)


if __name__ == "__main__":
    main()
