"""Models behind an OpenAI-compatible endpoint (vLLM, Ollama, llama.cpp, a vendor, Azure), asked concurrently."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from comparison_app.errors import ComparisonError

if TYPE_CHECKING:
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage


class EndpointGenerator:
    """Generates replies through one endpoint; satisfies the `Generator` protocol of `rag`.

    Up to `in_flight` requests run at once; each is retried with back-off by the client. The API key is read from the
    environment variable `api_key_env`; servers that need none get a placeholder.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_env: str | None = None,
        max_new_tokens: int = 256,
        in_flight: int = 16,
        timeout: float = 120.0,
    ) -> None:
        if api_key_env and not os.environ.get(api_key_env):
            raise ComparisonError(f"the environment variable {api_key_env} is not set; it must hold the key for {url}")
        self.url, self.model = url, model
        self._api_key_env = api_key_env
        self._max_new_tokens, self._in_flight, self._timeout = max_new_tokens, in_flight, timeout
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
            max_retries=4,
            generation_kwargs={"temperature": 0, "max_tokens": self._max_new_tokens},
        )

    def generate(
        self, conversations: Sequence[list[ChatMessage]], progress: Callable[[int, int], None] | None = None
    ) -> list[ChatMessage]:
        """Return one reply per conversation, in order; meta holds `usage`, `mean_logprob`, `finish_reason`."""
        self.warm_up()  # before the threads: an import is not to be raced
        with ThreadPoolExecutor(max_workers=min(self._in_flight, max(1, len(conversations)))) as pool:
            replies = []
            for reply in pool.map(self._one, conversations):
                replies.append(reply)
                if progress is not None:
                    progress(len(replies), len(conversations))
        return replies

    def stream(self, conversation: list[ChatMessage]) -> Iterator[str]:
        """Yield the reply in pieces as they arrive."""
        from queue import Queue
        from threading import Thread

        self.warm_up()
        pieces: Queue[str | BaseException | None] = Queue()

        def ask() -> None:
            try:
                self._run(conversation, streaming_callback=lambda chunk: pieces.put(chunk.content))
                pieces.put(None)
            except Exception as error:
                pieces.put(error)

        Thread(target=ask, daemon=True).start()
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def stream_reply(self, conversation: list[ChatMessage]) -> Iterator[str | ChatMessage]:
        """Yield the reply in pieces, and the whole message last; a stream tells no usage."""
        from haystack.dataclasses import ChatMessage

        pieces = []
        for piece in self.stream(conversation):
            pieces.append(piece)
            yield piece
        yield ChatMessage.from_assistant("".join(pieces).strip(), meta={"usage": {}, "mean_logprob": None})

    def _one(self, conversation: list[ChatMessage]) -> ChatMessage:
        from haystack.dataclasses import ChatMessage

        reply: ChatMessage = self._run(conversation)["replies"][0]
        usage = reply.meta.get("usage") or {}
        meta = {
            "usage": {key: usage.get(key) for key in ("prompt_tokens", "completion_tokens")},
            "mean_logprob": None,
            "finish_reason": str(reply.meta.get("finish_reason") or "stop"),
        }
        return ChatMessage.from_assistant((reply.text or "").strip(), meta=meta)

    def _run(self, conversation: list[ChatMessage], **more: Any) -> dict[str, Any]:
        assert self._generator is not None
        try:
            return self._generator.run(conversation, **more)
        except Exception as error:
            raise ComparisonError(f"{self.model} at {self.url} did not answer: {error}") from error
