"""Answer with a local model: one base loaded once, any number of adapters, batches and streams in turn.

`LocalModel` owns base, adapters and lock; `AdapterGenerator` answers conversations with one adapter, or with none;
`FinetunedAnswerer` answers questions from memory, and declines where the model does or is too unsure.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.conversations import closed_book, is_refusal, refusal
from finetune.adapters import AdapterSwitch, check_whole
from finetune.chat import encode_prompt, end_tokens
from finetune.errors import AdapterError, PromptError
from finetune.generation import GreedyBatch, Row
from finetune.models import base_fingerprint, load_base, load_tokenizer, model_context
from finetune.run_record import read_run_record
from finetune.turns import Turns

if TYPE_CHECKING:
    from haystack.dataclasses import ChatMessage, GeneratedAnswer


_UNSETTLED = "\N{REPLACEMENT CHARACTER}"
"""What a decoder gives for bytes that are no whole character yet: one for all of them, or one for each."""


@dataclass(frozen=True)
class _Loaded:
    """What `warm_up` loads."""

    tokenizer: Any
    switch: AdapterSwitch
    ends: set[int]


class LocalModel:
    """One base model on this machine and its adapters; safe to use from several threads.

    `model` is `pocket`, a folder or a cached Hugging Face id; `quantization="nf4"` holds it in 4 bits, doubly
    quantised unless an adapter added before loading was trained otherwise; `threads` sets torch's threads for the
    whole process; `fold` says whether adapters are folded into copies of the weights (see `AdapterSwitch`).
    Construction is light: weights are loaded by `warm_up`, or at first use.
    """

    def __init__(
        self,
        model: str = "pocket",
        *,
        quantization: str | None = None,
        device: str | None = None,
        max_new_tokens: int = 64,
        batch_size: int = 16,
        threads: int | None = None,
        dtype: str = "auto",
        fold: bool | None = None,
    ) -> None:
        self.model = model
        self.fold = fold
        self.quantization = quantization
        self.device = device
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.threads = threads
        self.dtype = dtype
        self._folders: dict[str, Path] = {}
        self._loaded: _Loaded | None = None
        self._tokenizer: Any = None
        self._loading = threading.RLock()
        self._turns = Turns()

    @property
    def context_length(self) -> int:
        """How many tokens prompt and reply may have together."""
        return model_context(self.model)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 that names the base's weights; adapters are tied to it."""
        return base_fingerprint(self.model)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters added so far."""
        return tuple(self._folders)

    def warm_up(self) -> None:
        """Load the base and the adapters added so far; does nothing the second time."""
        with self._loading:
            if self._loaded is not None:
                return
            if self.threads is not None:
                import torch

                torch.set_num_threads(self.threads)
            base = load_base(
                self.model,
                quantization=self.quantization,
                double_quantization=self.quantization is not None and self._doubly(),
                dtype=self.dtype,
                device=self.device,
            )
            switch = AdapterSwitch(base, fold=self.fold)
            for name, folder in self._folders.items():
                switch.add(name, folder)
            tokenizer = self._get_tokenizer()
            self._loaded = _Loaded(tokenizer, switch, end_tokens(tokenizer, base))

    def _doubly(self) -> bool:
        """Tell whether 4-bit weights are quantised doubly: as the adapters were trained on them, or if none was."""
        trained = [read_run_record(folder).recipe.get("model", {}) for folder in self._folders.values()]
        return all(model.get("double_quantization") for model in trained if model.get("quantization"))

    @property
    def memory_bytes(self) -> int:
        """What the weights take in memory, once loaded; 0 before."""
        return 0 if self._loaded is None else self._loaded.switch.memory_bytes

    def add_adapter(self, name: str, path: Path) -> None:
        """Make the adapter in folder `path` available as `name`; the same name and folder again does nothing.

        Raises AdapterError if it is missing, half written, made for another base model, or if the name is taken.
        """
        with self._loading:
            if self._folders.get(name) == path:
                return
            if name in self._folders:
                raise AdapterError(f"an adapter named {name!r} is loaded already, from {self._folders[name]}")
            check_whole(path)
            record = read_run_record(path)
            if record.base_fingerprint != self.fingerprint:
                raise AdapterError(
                    f"{path}: the adapter was made for base model {record.base_model} "
                    f"({record.base_fingerprint[:12]}), not for this {self.model} ({self.fingerprint[:12]}); "
                    "train it again on this one"
                )
            if self._loaded is not None:
                with self._turns:
                    self._loaded.switch.add(name, path)
            self._folders[name] = path

    def generator(self, adapter: str | None = None) -> AdapterGenerator:
        """Return a generator that answers with `adapter`, or with the bare base. Raises AdapterError if unknown."""
        if adapter is not None and adapter not in self._folders:
            known = ", ".join(self._folders) or "none"
            raise AdapterError(f"no adapter named {adapter!r} was added; there are: {known}")
        return AdapterGenerator(self, adapter)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens the model's tokenizer makes of `text`."""
        return len(self._get_tokenizer()(text, add_special_tokens=False)["input_ids"])

    def start(self, conversations: Sequence[Sequence[ChatMessage]]) -> tuple[GreedyBatch, list[str | None]]:
        """Return a batch of those conversations that fit into the context, and an error, or None, for each.

        The batch's rows are numbered by position in `conversations`.
        """
        loaded = self._get_loaded()
        prompts = [encode_prompt(loaded.tokenizer, conversation) for conversation in conversations]
        errors = [self._too_long(len(prompt)) for prompt in prompts]
        fitting = [(index, prompt) for index, prompt in enumerate(prompts) if errors[index] is None]
        batch = GreedyBatch(
            [prompt for _, prompt in fitting],
            pad_token=int(loaded.tokenizer.pad_token_id or 0),
            end_tokens=loaded.ends,
            rooms=[min(self.max_new_tokens, self.context_length - len(prompt)) for _, prompt in fitting],
        )
        for row, (index, _) in zip(batch.rows, fitting, strict=True):
            row.index = index
        return batch, errors

    def step(self, batch: GreedyBatch, adapter: str | None) -> None:
        """Write one token of each reply in `batch` with `adapter`, in turn with other threads."""
        loaded = self._get_loaded()
        with self._turns:
            batch.step(loaded.switch.activate(adapter))

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of a reply's tokens, without special ones."""
        decoded: str = self._get_tokenizer().decode(list(tokens), skip_special_tokens=True)
        return decoded

    def prompt_length(self, conversation: Sequence[ChatMessage]) -> int:
        """Return how many tokens a conversation has in the model's chat template."""
        return len(encode_prompt(self._get_tokenizer(), conversation))

    def _too_long(self, length: int) -> str | None:
        """Return what to say of a prompt of `length` tokens: None if it fits."""
        if length < self.context_length:
            return None
        return (
            f"the prompt has {length} tokens and the context of {self.model} holds {self.context_length}, reply "
            "included: give it fewer or shorter passages"
        )

    def _get_loaded(self) -> _Loaded:
        self.warm_up()
        assert self._loaded is not None
        return self._loaded

    def _get_tokenizer(self) -> Any:
        with self._loading:
            if self._tokenizer is None:
                self._tokenizer = load_tokenizer(self.model)
            return self._tokenizer


class AdapterGenerator:
    """Replies of one adapter of a `LocalModel` (None: of its base). Satisfies `rag.answering.Generator`."""

    def __init__(self, model: LocalModel, adapter: str | None) -> None:
        self.model = model
        self.adapter = adapter

    def warm_up(self) -> None:
        """Load the model."""
        self.model.warm_up()

    def generate(
        self, conversations: Sequence[list[ChatMessage]], progress: Callable[[int, int], None] | None = None
    ) -> list[ChatMessage]:
        """Return one assistant message per conversation, in order, written greedily in batches of similar length.

        Each has meta `usage` (prompt_tokens, completion_tokens), `mean_logprob`, `finish_reason` (stop, length) and
        `seconds` (its share of its batch's time). A prompt longer than the context gives an empty message with
        finish_reason `error` and meta `error`, and does not disturb the others.
        """
        order = sorted(range(len(conversations)), key=lambda i: -_characters(conversations[i]))
        replies: list[ChatMessage | None] = [None] * len(conversations)
        for start in range(0, len(order), self.model.batch_size):
            chosen = order[start : start + self.model.batch_size]
            for index, reply in zip(chosen, self._batch([conversations[i] for i in chosen]), strict=True):
                replies[index] = reply
            if progress is not None:
                progress(start + len(chosen), len(order))
        return [reply for reply in replies if reply is not None]

    def stream(self, conversation: list[ChatMessage]) -> Iterator[str]:
        """Yield the reply piece by piece. Raises PromptError if the prompt does not fit into the context."""
        for piece in self.stream_reply(conversation):
            if isinstance(piece, str):
                yield piece

    def stream_reply(self, conversation: list[ChatMessage]) -> Iterator[str | ChatMessage]:
        """Yield the reply piece by piece, then the whole message as `generate` returns it. Raises PromptError."""
        started = time.perf_counter()
        batch, errors = self.model.start([conversation])
        if errors[0] is not None:
            raise PromptError(errors[0])
        row, shown = batch.rows[0], ""
        while not batch.done:
            self.model.step(batch, self.adapter)
            text = self.model.text(row.tokens).lstrip()
            settled = text if batch.done else text.rstrip(_UNSETTLED).rstrip()
            if len(settled) > len(shown):
                yield settled[len(shown) :]
                shown = settled
        yield self._message(row, time.perf_counter() - started)

    def _batch(self, conversations: Sequence[list[ChatMessage]]) -> list[ChatMessage]:
        """Answer one batch."""
        from haystack.dataclasses import ChatMessage

        started = time.perf_counter()
        batch, errors = self.model.start(conversations)
        while not batch.done:
            self.model.step(batch, self.adapter)
        seconds = (time.perf_counter() - started) / max(len(conversations), 1)
        rows = {row.index: row for row in batch.rows}
        return [
            self._message(rows[index], seconds)
            if error is None
            else ChatMessage.from_assistant("", meta={"error": error, "finish_reason": "error", "mean_logprob": None})
            for index, error in enumerate(errors)
        ]

    def _message(self, row: Row, seconds: float) -> ChatMessage:
        """Return a finished row as an assistant message."""
        from haystack.dataclasses import ChatMessage

        meta = {
            "usage": {"prompt_tokens": len(row.prompt), "completion_tokens": row.steps},
            "mean_logprob": row.mean_logprob,
            "finish_reason": row.finish_reason,
            "seconds": seconds,
            "model": self.model.model,
            "adapter": self.adapter,
        }
        return ChatMessage.from_assistant(self.model.text(row.tokens).strip(), meta=meta)


class FinetunedAnswerer:
    """Answers questions from memory. With a generator of no adapter it is the base model's own arm.

    An answer abstains if it declines in words, or if its mean log-probability is under `abstain_below`; then the
    sentence that declines takes its place, and meta `withheld` keeps what the model had written.
    """

    def __init__(self, generator: AdapterGenerator, language: str = "en", abstain_below: float | None = None) -> None:
        self.generator = generator
        self.language = language
        self.abstain_below = abstain_below

    def warm_up(self) -> None:
        """Load the model."""
        self.generator.warm_up()

    def answer(
        self, questions: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> list[GeneratedAnswer]:
        """Answer each question, in order; a question that does not fit into the context has meta `error`."""
        replies = self.generator.generate([closed_book(question) for question in questions], progress)
        return [self._answer(question, reply) for question, reply in zip(questions, replies, strict=True)]

    def stream(self, question: str) -> Iterator[str | GeneratedAnswer]:
        """Yield the answer piece by piece, then the whole as `answer` returns it. Raises PromptError."""
        for piece in self.generator.stream_reply(closed_book(question)):
            yield piece if isinstance(piece, str) else self._answer(question, piece)

    def _answer(self, question: str, reply: ChatMessage) -> GeneratedAnswer:
        """Turn a reply into an answer, abstaining where it should."""
        from haystack.dataclasses import GeneratedAnswer

        text, logprob = reply.text or "", reply.meta.get("mean_logprob")
        usage = reply.meta.get("usage", {})
        unsure = self.abstain_below is not None and logprob is not None and logprob < self.abstain_below
        failed = reply.meta.get("error")
        meta = {
            "abstained": failed is None and (is_refusal(text) or unsure),
            "prompt_tokens": usage.get("prompt_tokens"),
            "completion_tokens": usage.get("completion_tokens"),
            "mean_logprob": logprob,
            "finish_reason": reply.meta.get("finish_reason"),
            "context_cut": False,
            "spans": [],
            "seconds_retrieval": 0.0,
            "seconds": reply.meta.get("seconds", 0.0),
            "error": failed,
        }
        if unsure and not is_refusal(text):
            meta["withheld"] = text
            text = refusal(self.language)
        return GeneratedAnswer(data=text, query=question, documents=[], meta=meta)


def _characters(conversation: Sequence[ChatMessage]) -> int:
    """Return the length of a conversation, to batch like with like."""
    return sum(len(message.text or "") for message in conversation)
