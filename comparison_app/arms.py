"""Arms: the systems that answer the same questions, built from an experiment's declarations.

An arm is an answerer of `rag` or `finetune` under a name. A local base model is loaded once for all arms that share it;
its adapters are switched, never copied.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from comparison_app.abstention import calibration_of
from comparison_app.closed_book import threshold_of
from comparison_app.endpoints import MAX_RETRIES, EndpointGenerator
from comparison_app.errors import ComparisonError
from comparison_app.experiment import ArmSpec
from comparison_app.indexes import SHORT_CONTEXT, fit_context, open_retriever, rag_config
from comparison_app.predictions import CheckedSentence, LinkedPicture, Prediction, RetrievedSpan
from comparison_app.replies import ReplyJournal
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus
from data_prep.errors import VersusError
from data_prep.questions import Question

if TYPE_CHECKING:
    from haystack.dataclasses import GeneratedAnswer

    from finetune.answering import LocalModel
    from rag.abstention import AbstentionCalibration
    from rag.config import RagConfig
    from rag.refining import Search


WAVES = 4
"""Questions of a batch at an endpoint, for each request that may be in flight."""


class Answerer(Protocol):
    """What `rag.answering.RagAnswerer` and the closed-book answerer below have in common."""

    def answer(self, questions: Sequence[str], about: Sequence[str | None] | None = None) -> list[GeneratedAnswer]:
        """Return one answer per question, in order."""

    def stream(self, question: str, about: str | None = None) -> Iterator[str | GeneratedAnswer]:
        """Yield pieces of the answer, and the whole answer last."""


class Arm:
    """One arm: an answerer under a name, whose failures become predictions with `error`."""

    def __init__(
        self, name: str, answerer: Answerer, *, batch_size: int = 16, prices: tuple[float, float] | None = None
    ):
        self.name = name
        self._answerer = answerer
        self.batch_size = batch_size
        self._prices = prices

    def answer(self, questions: Sequence[Question]) -> Iterator[Prediction]:
        """Yield one prediction per question, in order, a batch at a time.

        `seconds` is the batch's wall time shared equally among its questions. If a batch fails, its questions are asked
        one by one, so that only those that fail themselves are lost.
        """
        for start in range(0, len(questions), self.batch_size):
            yield from self._batch(questions[start : start + self.batch_size])

    def stream(self, question: Question) -> Iterator[str | Prediction]:
        """Yield pieces of the answer as they come, and the prediction last."""
        started = time.perf_counter()
        first: float | None = None
        try:
            for piece in self._answerer.stream(question.question, question.about):
                if first is None:
                    first = time.perf_counter() - started
                if isinstance(piece, str):
                    yield piece
                else:
                    yield self._prediction(question, piece, time.perf_counter() - started, first)
        except Exception as error:
            yield self._failure(question, error, time.perf_counter() - started)

    def _batch(self, questions: Sequence[Question]) -> list[Prediction]:
        started = time.perf_counter()
        try:
            answers = self._answerer.answer([q.question for q in questions], [q.about for q in questions])
        except Exception as error:
            if len(questions) == 1:
                return [self._failure(questions[0], error, time.perf_counter() - started)]
            return [prediction for question in questions for prediction in self._batch([question])]
        seconds = (time.perf_counter() - started) / len(questions)
        return [self._prediction(q, answer, seconds, None) for q, answer in zip(questions, answers, strict=True)]

    def _prediction(
        self, question: Question, answer: GeneratedAnswer, seconds: float, first: float | None
    ) -> Prediction:
        meta: dict[str, Any] = answer.meta
        prompt, completion = meta.get("prompt_tokens"), meta.get("completion_tokens")
        return Prediction(
            question_id=question.id,
            arm=self.name,
            answer=answer.data,
            abstained=bool(meta.get("abstained")),
            documents=tuple(_span(document) for document in answer.documents),
            prompt_tokens=prompt,
            completion_tokens=completion,
            seconds_to_first_token=first,
            seconds=seconds,
            cost=self._cost(prompt, completion),
            error=meta.get("error"),
            sentences=tuple(_sentence(item) for item in meta.get("sentences") or ()),
            pictures=tuple(LinkedPicture(**item) for item in meta.get("pictures") or ()),
        )

    def _failure(self, question: Question, error: Exception, seconds: float) -> Prediction:
        message = str(error) if isinstance(error, VersusError) else f"{type(error).__name__}: {error}"
        return Prediction(question.id, self.name, seconds=seconds, error=message or type(error).__name__)

    def _cost(self, prompt: int | None, completion: int | None) -> float | None:
        """Return the money for one answer at an endpoint; None where no price was given or the tokens are not known.

        A local answer's cost follows from its seconds.
        """
        if self._prices is None or prompt is None or completion is None:
            return None
        return (prompt * self._prices[0] + completion * self._prices[1]) / 1_000_000


_calibrating = threading.Lock()


def calibrated(config: RagConfig, retriever: Search, corpus: Corpus) -> AbstentionCalibration | None:
    """Return `calibration_of` the same, one at a time: of threads that want the same one, the first makes it."""
    with _calibrating:
        return calibration_of(config, retriever, corpus)


class ClosedBook:
    """A closed-book answerer, asked like one that retrieves; `about` is told in the question itself."""

    def __init__(self, answerer: Any) -> None:
        self._answerer = answerer

    def answer(self, questions: Sequence[str], about: Sequence[str | None] | None = None) -> list[GeneratedAnswer]:
        """Return one answer per question, from memory."""
        answers: list[GeneratedAnswer] = self._answerer.answer(list(questions))
        return answers

    def stream(self, question: str, about: str | None = None) -> Iterator[str | GeneratedAnswer]:
        """Yield pieces of the answer, and the whole answer last."""
        yield from self._answerer.stream(question)


class ArmFactory:
    """Builds arms over one corpus and workspace; models and indexes that arms share are opened once.

    `replies`: where the replies of endpoints are kept, so that none is paid for twice. `retries`: how often an endpoint
    that fails, of a model or an embedder, is asked again; runs are patient, who waits for an answer is not
    (`RETRIES_WATCHED`).
    """

    def __init__(
        self,
        workspace: Workspace,
        corpus: Corpus,
        *,
        threads: int | None = None,
        replies: ReplyJournal | None = None,
        retries: int = MAX_RETRIES,
    ) -> None:
        self._workspace, self._corpus, self._threads = workspace, corpus, threads
        self._replies, self._retries = replies, retries
        self._models: dict[tuple[str, str | None, int], LocalModel] = {}
        self._retrievers: dict[RagConfig, Search] = {}
        self.calibrations: dict[str, AbstentionCalibration] = {}
        """By arm, when the arms built so far decline; without those for which nothing is calibrated."""

    def build(self, spec: ArmSpec, batch_size: int = 16) -> Arm:
        """Build one arm; raises `VersusError` if its model, adapter or index cannot be used.

        An arm at an endpoint takes larger batches, so that all its requests in flight have work.
        """
        if spec.endpoint:
            batch_size = max(batch_size, WAVES * spec.in_flight)
        prices = None
        if spec.input_price is not None or spec.output_price is not None:
            prices = (spec.input_price or 0.0, spec.output_price or 0.0)
        answerer = self._retrieving(spec) if spec.retrieves else self._closed_book(spec)
        return Arm(spec.name, answerer, batch_size=batch_size, prices=prices)

    def reopen_indexes(self) -> None:
        """Forget the opened indexes: arms built from here on see what was indexed since."""
        self._retrievers.clear()

    def model(self, spec: ArmSpec) -> LocalModel:
        """Return the loaded local model that an arm uses."""
        from finetune.answering import LocalModel

        if spec.model is None:
            raise ComparisonError(f"arm {spec.name} has no model")
        key = (spec.model, spec.quantization, spec.max_new_tokens)
        if key not in self._models:
            self._models[key] = LocalModel(
                spec.model, quantization=spec.quantization, max_new_tokens=spec.max_new_tokens, threads=self._threads
            )
        return self._models[key]

    def _generator(self, spec: ArmSpec) -> Any:
        if spec.endpoint:
            return EndpointGenerator(
                spec.endpoint,
                spec.model or "",
                api_key_env=spec.api_key_env,
                max_new_tokens=spec.max_new_tokens,
                in_flight=spec.in_flight,
                retries=self._retries,
                journal=self._replies,
            )
        model = self.model(spec)
        if spec.adapter:
            model.add_adapter(spec.adapter, self._workspace.adapter(spec.adapter))
        return model.generator(spec.adapter)

    def _closed_book(self, spec: ArmSpec) -> Answerer:
        from finetune.answering import FinetunedAnswerer

        below = threshold_of(self._workspace.adapter(spec.adapter)) if spec.adapter and not spec.endpoint else None
        return ClosedBook(FinetunedAnswerer(self._generator(spec), self._corpus.language, below))

    def _retrieving(self, spec: ArmSpec) -> Answerer:
        from rag.abstention import PRIOR
        from rag.answering import RagAnswerer
        from rag.refining import rewording, without_writer

        config = rag_config(spec.preset, dict(spec.rag))
        retriever = self._retriever(without_writer(config) if spec.model else config)
        weights = PRIOR
        if found := calibrated(config, retriever, self._corpus):
            self.calibrations[spec.name] = found
            config, weights = replace(config, abstain_below=found.threshold), found.weights
        if spec.model is None:
            return RagAnswerer(retriever, None, config, language=self._corpus.language, weights=weights)
        generator, count_tokens, guarded = self._generator(spec), None, True
        if not spec.endpoint:
            model = self.model(spec)
            model.warm_up()
            config, count_tokens = fit_context(config, model.context_length), model.count_tokens
            guarded = spec.kind != "raft" and model.context_length > SHORT_CONTEXT
        return RagAnswerer(
            rewording(retriever, config, generator),
            generator,
            config,
            language=self._corpus.language,
            count_tokens=count_tokens,
            folder=self._corpus.path,
            weights=weights,
            guarded=guarded,
        )

    def _retriever(self, config: RagConfig) -> Search:
        """Return a retriever; arms with the same settings share one, and so its embedder and index."""
        if config not in self._retrievers:
            self._retrievers[config] = open_retriever(self._workspace, self._corpus, config, retries=self._retries)
        return self._retrievers[config]


def _span(document: Any) -> RetrievedSpan:
    meta = document.meta
    return RetrievedSpan(
        meta["document"], meta["start"], meta["end"], float(document.score or 0.0), meta.get("title", "")
    )


def _sentence(item: Mapping[str, Any]) -> CheckedSentence:
    return CheckedSentence(item["start"], item["end"], item["status"], tuple(item["citations"]), item["span"])
