"""The models that draft and judge questions, as Haystack chat generators, and the embedder that grounds them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from comparison_app.errors import ComparisonError

if TYPE_CHECKING:
    from haystack.dataclasses import ChatMessage

    from data_prep.drafting import ChatGenerator
    from data_prep.support import Embed

LOCAL_TOKENS = 700
MAX_RETRIES = 5


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: its name, and the OpenAI-compatible endpoint that serves it (None: run here)."""

    name: str
    endpoint: str | None = None
    api_key_env: str | None = None
    max_tokens: int = 1_500

    @property
    def label(self) -> str:
        """What its replies are kept under."""
        return f"{self.name}@{self.endpoint}" if self.endpoint else self.name


def chat_generator(spec: ModelSpec) -> ChatGenerator:
    """Return a model's chat generator, loaded; raises `ComparisonError` where a key is missing."""
    if spec.endpoint is None:
        return _LocalChatGenerator(spec)
    if spec.api_key_env and not os.environ.get(spec.api_key_env):
        raise ComparisonError(
            f"the environment variable {spec.api_key_env} is not set; it must hold the key for {spec.endpoint}"
        )
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.utils import Secret

    generator = OpenAIChatGenerator(
        api_key=Secret.from_env_var(spec.api_key_env) if spec.api_key_env else Secret.from_token("none"),
        model=spec.name,
        api_base_url=spec.endpoint,
        timeout=300.0,
        max_retries=MAX_RETRIES,
        generation_kwargs={"temperature": 0, "max_tokens": spec.max_tokens},
    )
    generator.warm_up()
    return cast("ChatGenerator", generator)


class _Batched(Protocol):
    """Generates one reply per conversation."""

    def generate(self, conversations: list[list[ChatMessage]]) -> list[ChatMessage]:
        """Return the replies, in order."""
        ...


class _LocalChatGenerator:
    """A model that runs here, one conversation at a time."""

    def __init__(self, spec: ModelSpec) -> None:
        from finetune.answering import LocalModel

        model = LocalModel(spec.name, max_new_tokens=min(spec.max_tokens, LOCAL_TOKENS))
        self._generator = cast("_Batched", model.generator())

    def run(self, messages: list[ChatMessage]) -> dict[str, Any]:
        """Reply to one conversation, as Haystack's chat generators do."""
        return {"replies": self._generator.generate([messages])}


def grounding_embedder() -> Embed:
    """Return the bundled embedder as a function of texts; the model is loaded by its first use."""
    from rag.embedding import Embedder

    embedder = Embedder()
    return lambda texts: embedder.embed_documents(list(texts))
