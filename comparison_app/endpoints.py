"""Models behind an OpenAI-compatible endpoint (vLLM, Ollama, llama.cpp, a vendor, Azure), asked concurrently."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from comparison_app.errors import ComparisonError
from comparison_app.replies import ReplyJournal, reply_key

if TYPE_CHECKING:
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage

MAX_RETRIES = 5
"""Times that a request of a run is sent again after an error or a "busy", waiting twice as long each time (0.5 s to
8 s, in all at most 15.5 s)."""
RETRIES_WATCHED = 2
"""The same where somebody waits for the answer: that nobody listens is told after 1.5 s at most. A busy server that
says how long to wait (Retry-After) is still waited for."""


class EndpointGenerator:
    """Generates replies through one endpoint; satisfies the `Generator` protocol of `rag`.

    Up to `in_flight` requests run at once; each is sent again up to `retries` times, with back-off, by the client,
    which also waits as long as a busy server asks (Retry-After). Replies are kept in `journal`, so that a run pays for
    a conversation once. The API key is read from the environment variable `api_key_env`; servers that need none get a
    placeholder.
    """

    sees = True
    """Pictures can be handed over; whether the model understands them is for the user to know."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_env: str | None = None,
        max_new_tokens: int = 256,
        in_flight: int = 48,
        timeout: float = 300.0,
        retries: int = MAX_RETRIES,
        journal: ReplyJournal | None = None,
    ) -> None:
        if api_key_env and not os.environ.get(api_key_env):
            raise ComparisonError(f"the environment variable {api_key_env} is not set; it must hold the key for {url}")
        self.url, self.model = url, model
        self._api_key_env = api_key_env
        self._max_new_tokens, self._in_flight = max_new_tokens, in_flight
        self._timeout, self._retries = timeout, retries
        self._journal = ReplyJournal() if journal is None else journal
        self._failed: dict[str, Exception] = {}
        self._usage_in_streams = True
        self._generator: OpenAIChatGenerator | None = None

    def warm_up(self) -> None:
        """Make the client; no request is sent."""
        if self._generator is not None:
            return
        from haystack.components.generators.chat import OpenAIChatGenerator
        from haystack.utils import Secret

        key = Secret.from_env_var(self._api_key_env) if self._api_key_env else Secret.from_token("none")
        self._generator = OpenAIChatGenerator(
            api_key=key,
            model=self.model,
            api_base_url=self.url,
            timeout=self._timeout,
            max_retries=self._retries,
            generation_kwargs={"temperature": 0, "max_tokens": self._max_new_tokens},
        )

    def generate(
        self, conversations: Sequence[list[ChatMessage]], progress: Callable[[int, int], None] | None = None
    ) -> list[ChatMessage]:
        """Return one reply per conversation, in order; meta holds `usage`, `mean_logprob`, `finish_reason`.

        If some fail, the others are still asked and kept, then the first error is raised: asked again one by one, those
        that were answered cost nothing and those that failed fail at once. Where nothing but failures came of as many
        requests as may be in flight, the rest are not sent.
        """
        self.warm_up()  # before the threads: an import is not to be raced
        health = _Health(self._in_flight)
        pool = ThreadPoolExecutor(max_workers=min(self._in_flight, max(1, len(conversations))))
        try:
            asked = [pool.submit(self._one, conversation, health) for conversation in conversations]
            for done, future in enumerate(asked, start=1):
                future.exception()
                if progress is not None:
                    progress(done, len(conversations))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        replies = [future.result() for future in asked]
        self._journal.release(self._key(conversation) for conversation in conversations)
        return replies

    def stream(self, conversation: list[ChatMessage]) -> Iterator[str]:
        """Yield the reply in pieces as they arrive."""
        for piece in self.stream_reply(conversation):
            if isinstance(piece, str):
                yield piece

    def stream_reply(self, conversation: list[ChatMessage]) -> Iterator[str | ChatMessage]:
        """Yield the reply in pieces as they arrive, and the whole message last, its meta as `generate` gives it.

        The tokens in `usage` are None where the server does not tell them in a stream.
        """
        from queue import Queue
        from threading import Thread

        from haystack.dataclasses import ChatMessage

        self.warm_up()
        pieces: Queue[str | ChatMessage | Exception] = Queue()

        def ask() -> None:
            try:
                text, meta = _read(self._streamed(conversation, lambda chunk: pieces.put(chunk.content)))
                pieces.put(ChatMessage.from_assistant(text, meta=meta))
            except Exception as error:
                pieces.put(error)

        Thread(target=ask, daemon=True).start()
        while isinstance(piece := pieces.get(), str):
            yield piece
        if isinstance(piece, Exception):
            raise piece
        yield piece

    def _streamed(self, conversation: list[ChatMessage], say: Callable[[Any], None]) -> dict[str, Any]:
        """Ask for a stream that tells its usage; a server that refuses that wish is asked without it, from then on."""
        wish = {"generation_kwargs": {"stream_options": {"include_usage": True}}} if self._usage_in_streams else {}
        try:
            return self._run(conversation, streaming_callback=say, **wish)
        except ComparisonError as error:
            if not wish or "stream_options" not in str(error):
                raise
            self._usage_in_streams = False
            return self._run(conversation, streaming_callback=say)

    def _one(self, conversation: list[ChatMessage], health: _Health) -> ChatMessage:
        """Return one reply: the kept one, or the endpoint's; what just failed is not asked again, once."""
        from haystack.dataclasses import ChatMessage

        key = self._key(conversation)
        kept = self._journal.get(key)
        if kept is not None:
            return ChatMessage.from_assistant(kept["text"], meta=dict(kept["meta"]))
        failed = self._failed.pop(key, None)
        if failed is not None:
            raise failed
        try:
            health.check()
            text, meta = self._ask(conversation)
        except Exception as error:
            self._failed[key] = error
            health.failed(error)
            raise
        health.answered()
        self._journal.put(key, text, meta)
        return ChatMessage.from_assistant(text, meta=meta)

    def _key(self, conversation: list[ChatMessage]) -> str:
        return reply_key((self.url, self.model, self._max_new_tokens), conversation)

    def _ask(self, conversation: list[ChatMessage]) -> tuple[str, dict[str, Any]]:
        return _read(self._run(conversation))

    def _run(self, conversation: list[ChatMessage], **more: Any) -> dict[str, Any]:
        assert self._generator is not None
        try:
            return self._generator.run(conversation, **more)
        except Exception as error:
            raise ComparisonError(f"{self.model} at {self.url} did not answer: {error}") from error


def _read(made: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the text and the meta of the reply that the client made."""
    reply: ChatMessage = made["replies"][0]
    usage = reply.meta.get("usage") or {}
    return (reply.text or "").strip(), {
        "usage": {key: usage.get(key) for key in ("prompt_tokens", "completion_tokens")},
        "mean_logprob": None,
        "finish_reason": str(reply.meta.get("finish_reason") or "stop"),
    }


class _Health:
    """Tells a dead endpoint from one that fails now and then, over one batch."""

    def __init__(self, patience: int) -> None:
        self._patience, self._answers, self._failures = patience, 0, 0
        self._last: Exception | None = None

    def answered(self) -> None:
        self._answers += 1

    def failed(self, error: Exception) -> None:
        self._failures += 1
        self._last = error

    def check(self) -> None:
        """Raise the last error if all that came of as many requests as may be in flight were errors."""
        if self._last is not None and not self._answers and self._failures >= self._patience:
            raise ComparisonError(f"not asked: {self._last}")
