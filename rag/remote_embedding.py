"""Embedding models behind a service, asked through Haystack's embedder components.

`openai:MODEL` speaks the OpenAI protocol (OpenAI, vLLM, Ollama, llama.cpp, text-embeddings-inference …), `azure:NAME`
that of Azure, where the address is the resource's and NAME the deployment's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rag.errors import EmbeddingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROVIDERS = ("openai:", "azure:")
_LONGEST = 20_000
"""Characters of one text that are sent."""
RETRIES = 4
"""Times that a request is sent again after an error or a "busy", waiting twice as long each time (in all 7.5 s)."""
FIRST_RETRIES = 2
"""The same for the first request of all: that nobody listens is told after 1.5 s."""


def is_remote(model: str) -> bool:
    """Tell whether `model` names a service rather than weights."""
    return model.startswith(PROVIDERS)


class RemoteEngine:
    """One remote model; every call is one request, sent again up to `retries` times, with back-off, by the client.

    Raises `EmbeddingError` where the key is missing, the service fails, or it does not answer one vector for each text.
    """

    def __init__(self, model: str, url: str | None, key_env: str | None, retries: int = RETRIES) -> None:
        if key_env and not os.environ.get(key_env):
            raise EmbeddingError(
                f"embedder {model}: the environment variable {key_env} is not set; it must hold the key"
            )
        self.model, self._where = model, f" at {url}" if url else ""
        self._component = _component(model, url, key_env, min(retries, FIRST_RETRIES))
        self.weights_sha256 = hashlib.sha256(f"{model}\0{url or ''}".encode()).hexdigest()
        self.dimension = int(self.encode(["dimension"]).shape[1])
        self._component = _component(model, url, key_env, retries)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the characters of each text: what the service makes of them is its own."""
        return [len(text) for text in texts]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors of one batch, float32 of shape (len(texts), dimension)."""
        import numpy as np
        from haystack import Document

        documents = [Document(id=str(number), content=text[:_LONGEST] or " ") for number, text in enumerate(texts)]
        try:
            found = self._component.run(documents)["documents"]
        except Exception as error:
            raise EmbeddingError(f"embedder {self.model}{self._where} did not answer: {error}") from error
        if any(document.embedding is None for document in found) or len(found) != len(texts):
            raise EmbeddingError(f"embedder {self.model} did not answer with one vector for each text")
        vectors = np.array([document.embedding for document in found], dtype=np.float32)
        unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit


def _component(model: str, url: str | None, key_env: str | None, retries: int) -> Any:
    """Return the Haystack component that embeds by `model`; nothing is sent yet."""
    from haystack.components.embedders import AzureOpenAIDocumentEmbedder, OpenAIDocumentEmbedder
    from haystack.utils import Secret

    provider, _, name = model.partition(":")
    key = Secret.from_env_var(key_env) if key_env else Secret.from_token("none")
    settings: dict[str, Any] = {"api_key": key, "progress_bar": False, "raise_on_failure": True}
    settings["max_retries"] = retries
    if provider == "azure":
        if not url:
            raise EmbeddingError(f"embedder {model}: give embedder_url, the address of the Azure resource")
        return AzureOpenAIDocumentEmbedder(azure_endpoint=url, azure_deployment=name, **settings)
    return OpenAIDocumentEmbedder(model=name, api_base_url=url, **settings)
