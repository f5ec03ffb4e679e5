"""Train an adapter on a corpus's questions: the subset, the passages for training with context, where it goes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from comparison_app.device_lock import only_training
from comparison_app.errors import ComparisonError
from comparison_app.indexes import fit_context, open_retriever, rag_config
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus
from data_prep.questions import Evidence, Question

if TYPE_CHECKING:
    from haystack import Document

    from finetune.checkpoints import Resume
    from finetune.config import Recipe
    from finetune.dataset import Context
    from finetune.run_record import RunRecord
    from finetune.training import TrainingStep
    from rag.config import RagConfig
    from rag.refining import Search


AT_ONCE = 256
"""Questions whose passages are looked for together: what retrieval finds for all of them lies in memory."""


def train_on_corpus(
    recipe: Recipe,
    corpus: Corpus,
    workspace: Workspace,
    name: str,
    *,
    subset: str | None = None,
    resume: Resume = False,
    on_step: Callable[[TrainingStep], None] | None = None,
) -> RunRecord:
    """Train an adapter called `name` on the corpus's train questions (or a subset's) and return its run record.

    General questions are asked before and after. In several processes the first indexes the corpus where that is due.
    Raises `ComparisonError` while another training of the workspace runs on the device.
    """
    from comparison_app.preparing import general_checks
    from finetune.models import default_device
    from finetune.processes import first_goes_ahead
    from finetune.training import taught_questions, train_adapter

    if recipe.dpo is not None:
        raise ComparisonError(f"recipe {recipe.name} learns from preferences, not questions: `versus prefer` takes it")
    questions = training_questions(corpus, subset)
    dev = corpus.questions("dev") if recipe.tracking.eval_every else []
    shown = [*taught_questions(questions, recipe), *dev]
    with only_training(workspace, default_device(), name):
        with first_goes_ahead(default_device()):
            passages = passages_for(recipe, shown, corpus, workspace) if recipe.data.context else None
        return train_adapter(
            recipe,
            questions,
            workspace.adapters / name,
            dev=dev,
            on_step=on_step,
            resume=resume,
            passages=passages,
            general=general_checks(workspace, corpus.language),
        )


def training_questions(corpus: Corpus, subset: str | None = None) -> list[Question]:
    """Return the train questions, or those of a nested subset's facts."""
    questions = corpus.questions("train")
    if subset is not None:
        facts = corpus.subset(subset)
        questions = [question for question in questions if question.fact in facts]
    if not questions:
        raise ComparisonError(
            f"corpus {corpus.name} has no train questions; bring some with "
            f"`versus questions import FILE --into {corpus.name}`"
        )
    return questions


def passages_for(
    recipe: Recipe, questions: Sequence[Question], corpus: Corpus, workspace: Workspace
) -> Callable[[Question], Context]:
    """Return the function that gives each of `questions` its passages: the gold one among what retrieval finds for it.

    This is the data of RAFT (Zhang et al. 2024, arXiv 2403.10131). The gold passage is withheld from a share of the
    questions, which then train the refusal; the others' answers quote it where `data.reply` says so. A model of short
    context is trained on what it will be asked with: the best sentences of the chunks found. Others get the gold chunk
    where retrieval ranks it (at a seeded place if it is not found), beside `distractors` others.
    """
    from finetune.models import model_context

    config = fit_context(rag_config(), model_context(recipe.model.name))
    retriever = open_retriever(workspace, corpus, config)
    chunks = retriever.store.filter_documents()
    by_id: dict[str, Context] = {}
    for start in range(0, len(questions), AT_ONCE):
        asked = questions[start : start + AT_ONCE]
        found = retriever.retrieve_many([q.question for q in asked], [q.about for q in asked], top_k=20)
        evidenced = [
            _Evidenced(question, gold_chunk(question, ranked, chunks), ranked)
            for question, ranked in zip(asked, found, strict=True)
        ]
        if config.context_sentences is None:
            contexts = _whole_chunks(evidenced, recipe, config)
        else:
            contexts = _sentences(evidenced, recipe, retriever, corpus.language, config)
        by_id.update({each.question.id: context for each, context in zip(evidenced, contexts, strict=True)})
    return lambda question: by_id[question.id]


@dataclass(frozen=True)
class _Evidenced:
    """A question, its gold chunk (None if no chunk holds its evidence), and what retrieval found, best first."""

    question: Question
    gold: Document | None
    ranked: list[Document]

    @property
    def distractors(self) -> list[Document]:
        """The chunks found that hold nothing of the evidence."""
        return [chunk for chunk in self.ranked if not _holds_evidence(chunk, self.question)]

    @property
    def shown(self) -> list[Document]:
        """The chunks found but for those that, beside the gold one, hold some of the evidence."""
        return [c for c in self.ranked if c is self.gold or not _holds_evidence(c, self.question)]

    @property
    def quote(self) -> str:
        """What of the gold chunk carries the answer, as plain words."""
        return _evidence_text(self.gold, self.question) if self.gold is not None else ""


def _whole_chunks(evidenced: Sequence[_Evidenced], recipe: Recipe, config: RagConfig) -> list[Context]:
    """Return for each question its gold chunk among others, as many as a model of its context is asked with."""
    from finetune.models import load_tokenizer
    from finetune.raft import raft_context
    from rag.prompts import passage_text

    tokenizer = load_tokenizer(recipe.model.name)
    return [
        raft_context(
            each.question,
            [passage_text(each.gold)] if each.gold is not None else [],
            [passage_text(chunk) for chunk in each.shown],
            recipe.data,
            seed=recipe.optimisation.seed,
            count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False)),
            budget=config.context_tokens,
            quote=each.quote,
        )
        for each in evidenced
    ]


def _sentences(
    evidenced: Sequence[_Evidenced], recipe: Recipe, retriever: Search, language: str, config: RagConfig
) -> list[Context]:
    """Return for each question the sentences it will be asked with, best first.

    Evidence that they miss takes the first place: seven in eight of the dev questions whose evidence is among the two
    best have it there (benchmarks/RESULTS.md), and the model shall learn to trust the order that much.
    """
    from finetune.dataset import Context
    from finetune.raft import is_withheld, quoting
    from rag.extractive import ExtractiveGenerator

    count = config.context_sentences or 1
    shown_gold = [
        None if is_withheld(each.question, recipe.data, recipe.optimisation.seed) else each.gold for each in evidenced
    ]
    pools = [
        (each.distractors if gold is None else each.ranked)[: config.top_k]
        for each, gold in zip(evidenced, shown_gold, strict=True)
    ]
    generator = ExtractiveGenerator(retriever.embedder, retriever.query_idf, language)
    found = generator.excerpts_many([each.question.question for each in evidenced], pools, count)
    contexts = []
    for each, gold, excerpts in zip(evidenced, shown_gold, found, strict=True):
        texts = [excerpt.text for excerpt in excerpts]
        carrying = [excerpt.text for excerpt in excerpts if is_evidence(excerpt.span, each.question)]
        if gold is not None and not carrying:
            texts, carrying = [each.quote, *texts[: count - 1]], [each.quote]
        withheld = each.gold is not None and gold is None
        quote = " ".join(carrying) if gold is not None else ""
        contexts.append(quoting(Context(tuple(texts), holds_answer=not withheld), quote, recipe.data))
    return contexts


def is_evidence(span: tuple[str, int, int], question: Question) -> bool:
    """Tell whether a quote meets any evidence of a question."""
    document, start, end = span
    return any(document == item.document and _overlaps(start, end, item) for item in question.evidence)


def _evidence_text(gold: Document, question: Question) -> str:
    """Return what a chunk holds of the question's evidence, as plain words."""
    from rag.extractive import plain_text

    item = next(item for item in question.evidence if _holds_evidence(gold, replace(question, evidence=(item,))))
    text, offset = gold.content or "", int(gold.meta["start"])
    if item.start is None or item.end is None:
        return plain_text(text)
    return plain_text(text[max(0, item.start - offset) : max(0, item.end - offset)])


def data_key(recipe: Recipe, questions: Sequence[Question], fingerprint: str) -> str:
    """Return a hash of all that decides how an adapter comes out: recipe, questions, base model."""
    digest = hashlib.sha256(f"{fingerprint}\n{recipe.as_dict()!r}\n".encode())
    for question in questions:
        digest.update(f"{question!r}\n".encode())
    return digest.hexdigest()


def gold_chunk(question: Question, ranked: Sequence[Document], chunks: Sequence[Document]) -> Document | None:
    """Return the best-ranked chunk that holds the evidence, any such chunk if retrieval missed it, else None."""
    found = next((chunk for chunk in ranked if _holds_evidence(chunk, question)), None)
    if found is None and question.evidence:
        found = next((chunk for chunk in chunks if _holds_evidence(chunk, question)), None)
    return found


def _holds_evidence(chunk: Document, question: Question) -> bool:
    """Tell whether a chunk overlaps any evidence span of a question."""
    return any(
        chunk.meta["document"] == item.document and _overlaps(chunk.meta["start"], chunk.meta["end"], item)
        for item in question.evidence
    )


def _overlaps(start: int, end: int, evidence: Evidence) -> bool:
    """Tell whether the characters `start:end` meet the evidence; evidence without a span is the whole document."""
    return evidence.start is None or evidence.end is None or (start < evidence.end and evidence.start < end)
