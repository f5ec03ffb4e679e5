"""Questions to answers with sources: retrieve, decline where the documents hold no answer, else quote or generate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from data_prep.conversations import is_refusal, refusal, with_context
from rag.abstention import PRIOR, ConfidenceWeights, Signals, signals_of
from rag.citations import citation_notes, quoted_notes
from rag.config import RagConfig
from rag.errors import RagError
from rag.evaluation import document_of
from rag.extractive import Excerpt, ExtractiveGenerator, RankedQuote, excerpts
from rag.lexical import Tokenizer
from rag.pictures import pictures_of, seen_pictures, with_pictures
from rag.prompts import fit_passages, passage_text, without_citations

if TYPE_CHECKING:
    from haystack import Document
    from haystack.dataclasses import ChatMessage, GeneratedAnswer

    from rag.refining import Search


class Generator(Protocol):
    """What writes answers: batches of conversations in, assistant messages out."""

    def generate(self, conversations: Sequence[list[ChatMessage]]) -> list[ChatMessage]:
        """Return one reply per conversation; its meta may hold `usage` with `prompt_tokens`, `completion_tokens`."""
        ...

    def stream_reply(self, conversation: list[ChatMessage]) -> Iterator[str | ChatMessage]:
        """Yield the reply piece by piece, then the whole message, its meta as `generate` gives it."""
        ...


@dataclass(frozen=True)
class _Task:
    """One question on its way: its chunks, their quotes, the passages that fit with their spans, whether to decline."""

    question: str
    chunks: list[Document]
    pool: list[RankedQuote]
    passages: list[str]
    spans: list[tuple[str, int, int]]
    cut: bool
    confidence: float
    declines: bool


class RagAnswerer:
    """Answers questions from what `retriever` finds, by `generator` or, where that is None, by quoting.

    Each answer is a Haystack `GeneratedAnswer`: `documents` are the chunks used, each once, or, where the generator
    cites by number, the chunk of each passage that it was shown; `meta` holds `abstained`,
    `confidence` (of retrieval, 0 to 1), `spans` [(document, start, end)] of quotes or passages, `context_cut`,
    `prompt_tokens`, `completion_tokens`, `mean_logprob`, `error` (why there is no reply, else None),
    `seconds_retrieval`, `seconds`, `pictures` (of the retrieved sections, each with `document`, `start`, `path`,
    `title`), and `sentences`: of each sentence of the answer whether and by which span it is carried. Written answers
    also have `citations`, `unknown_citations`, the `unsupported` sentences and `marked`, the answer with these marked;
    a sentence is checked against what it cites, and one that cites nothing against all that the generator was shown.

    Documents are data to the generator: its prompt says so and asks for citations, unless `guarded` is false, as it is
    for models that learnt to answer from a prompt without these sentences. `config.cite` decides for itself if set.

    Confidence is by `weights` (`rag.abstention`): those fitted on dev questions, or the prior's.

    `folder` is where the corpus lies; with `config.pictures` the pictures in it are given to the generator, which must
    have an attribute `sees` that is true, else `RagError` is raised.
    """

    def __init__(
        self,
        retriever: Search,
        generator: Generator | None = None,
        config: RagConfig | None = None,
        language: str = "en",
        count_tokens: Callable[[str], int] | None = None,
        folder: Path | None = None,
        weights: ConfidenceWeights = PRIOR,
        guarded: bool = True,
    ) -> None:
        self.retriever = retriever
        self.folder = folder
        self.generator = generator
        self.config = config or retriever.config
        self.weights = weights
        self.guarded = guarded
        self._cite = guarded if self.config.cite is None else self.config.cite
        self.language = language
        self.count_tokens = count_tokens
        if self.config.pictures and generator is not None and not (folder and getattr(generator, "sees", False)):
            raise RagError("pictures = true needs a generator that sees: a model at an endpoint")
        self._tokenizer = Tokenizer(language)
        self._extractive = ExtractiveGenerator(retriever.embedder, retriever.query_idf, language)

    def answer(self, questions: Sequence[str], about: Sequence[str | None] | None = None) -> list[GeneratedAnswer]:
        """Answer `questions` in one batch, in order; `seconds` in an answer's meta is its share of the batch."""
        if not questions:
            return []
        started = time.perf_counter()
        tasks = self._tasks(questions, about)
        retrieval = (time.perf_counter() - started) / len(questions)
        answers = self._quote(tasks) if self.generator is None else self._generate(tasks, self.generator)
        seconds = (time.perf_counter() - started) / len(questions)
        return [
            replace(answer, meta={**answer.meta, "seconds_retrieval": retrieval, "seconds": seconds})
            for answer in answers
        ]

    def stream(self, question: str, about: str | None = None) -> Iterator[str | GeneratedAnswer]:
        """Yield the answer's text piece by piece, then the whole `GeneratedAnswer`."""
        started = time.perf_counter()
        task = self._tasks([question], [about])[0]
        retrieval = time.perf_counter() - started
        if self.generator is None or task.declines:
            answer = self._quote([task])[0]
            yield answer.data
        else:
            for piece in self.generator.stream_reply(self._conversation(task)):
                if isinstance(piece, str):
                    yield piece
                else:
                    answer = self._written(task, piece.text or "", dict(piece.meta))
        seconds = time.perf_counter() - started
        yield replace(answer, meta={**answer.meta, "seconds_retrieval": retrieval, "seconds": seconds})

    def signals(self, questions: Sequence[str], about: Sequence[str | None] | None = None) -> list[Signals]:
        """Return of each question what tells whether the documents answer it: what confidence is computed from."""
        found = self.retriever.retrieve_many(questions, about, self.config.top_k)
        pools = self._extractive.ranked(questions, found)
        return [self._signals(*each) for each in zip(questions, found, pools, strict=True)]

    def _signals(self, question: str, chunks: Sequence[Document], pool: Sequence[RankedQuote]) -> Signals:
        weights = self.retriever.query_idf(question)
        whole = sum(weights.values())

        def coverage(chunk: Document) -> float:
            terms = set(self._tokenizer(passage_text(chunk)))
            return sum(weight for term, weight in weights.items() if term in terms) / whole if whole else 0.0

        return signals_of(chunks, max((item.cosine for item in pool), default=0.0), coverage)

    def _tasks(self, questions: Sequence[str], about: Sequence[str | None] | None) -> list[_Task]:
        found = self.retriever.retrieve_many(questions, about, self.config.top_k)
        pools = self._extractive.ranked(questions, found)
        return [self._task(*each) for each in zip(questions, found, pools, strict=True)]

    def _task(self, question: str, found: list[Document], pool: list[RankedQuote]) -> _Task:
        """Return the task of a question that retrieved `found`, in which the quotes of `pool` fit best."""
        confidence = self.weights.confidence(self._signals(question, found, pool))
        threshold = self.config.abstain_below
        declines = not found or (threshold is not None and confidence < threshold)
        count = self.config.context_sentences if self.generator is not None else None
        shown = [_whole(chunk) for chunk in found] if count is None else excerpts(pool, found, count)
        limit = self.config.context_tokens if self.generator is not None else None
        passages, cut = fit_passages([excerpt.text for excerpt in shown], limit, self.count_tokens)
        used = shown[: len(passages)]
        spans = [excerpt.span for excerpt in used]
        return _Task(question, [excerpt.chunk for excerpt in used], pool, passages, spans, cut, confidence, declines)

    def _conversation(self, task: _Task) -> list[ChatMessage]:
        asked = with_context(
            task.question, task.passages, language=self.language, cite=self._cite, guarded=self.guarded
        )
        if not self.config.pictures or self.folder is None:
            return asked
        return with_pictures(asked, seen_pictures(pictures_of(task.chunks, self.retriever.store), self.folder))

    def _quote(self, tasks: Sequence[_Task]) -> list[GeneratedAnswer]:
        asked = [task for task in tasks if not task.declines]
        quoted = iter(
            self._extractive.composed(
                [task.question for task in asked], [task.pool for task in asked], [task.chunks for task in asked]
            )
        )
        answers = []
        for task in tasks:
            if task.declines:
                answers.append(self._declined(task))
                continue
            answer = next(quoted)
            text = answer.text or refusal(self.language)
            meta = {"abstained": not answer.text, "spans": answer.spans, "quote_confidence": answer.confidence}
            notes = quoted_notes(answer.text, answer.pieces, answer.quotes)
            answers.append(self._answer(task, text, {**meta, **notes}))
        return answers

    def _generate(self, tasks: Sequence[_Task], generator: Generator) -> list[GeneratedAnswer]:
        asked = [task for task in tasks if not task.declines]
        replies = iter(generator.generate([self._conversation(task) for task in asked]) if asked else ())
        answers = []
        for task in tasks:
            if task.declines:
                answers.append(self._declined(task))
            else:
                reply = next(replies)
                answers.append(self._written(task, reply.text or "", dict(reply.meta)))
        return answers

    def _declined(self, task: _Task) -> GeneratedAnswer:
        tokens = {} if self.generator is None else {"prompt_tokens": 0, "completion_tokens": 0}  # it was not asked
        return self._answer(task, refusal(self.language), {"abstained": True, "spans": [], **tokens})

    def _written(self, task: _Task, text: str, reply_meta: dict[str, Any]) -> GeneratedAnswer:
        usage = reply_meta.get("usage") or {}
        meta: dict[str, Any] = {
            "abstained": is_refusal(without_citations(text)),
            "spans": task.spans,
            "prompt_tokens": usage.get("prompt_tokens"),
            "completion_tokens": usage.get("completion_tokens"),
            "mean_logprob": reply_meta.get("mean_logprob"),
            "error": reply_meta.get("error"),
        }
        meta.update(citation_notes(text, task.passages, task.chunks, self._tokenizer))
        return self._answer(task, text, meta)

    def _answer(self, task: _Task, text: str, meta: dict[str, Any]) -> GeneratedAnswer:
        from haystack.dataclasses import GeneratedAnswer

        common = {
            "prompt_tokens": None,
            "completion_tokens": None,
            "context_cut": task.cut,
            "confidence": task.confidence,
            "pictures": [asdict(picture) for picture in pictures_of(task.chunks, self.retriever.store)],
        }
        documents = task.chunks if self._cite else list({chunk.id: chunk for chunk in task.chunks}.values())
        return GeneratedAnswer(data=text, query=task.question, documents=documents, meta={**common, **meta})


def _whole(chunk: Document) -> Excerpt:
    """Return a chunk as it is shown where nothing of it is left out."""
    start = int(chunk.meta.get("start", 0))
    end = int(chunk.meta.get("end", start + len(chunk.content or "")))
    return Excerpt(chunk, passage_text(chunk), (document_of(chunk), start, end))
