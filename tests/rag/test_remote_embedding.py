"""Prefixes by model, and embedders behind a service: a local server that speaks the OpenAI protocol."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from rag.config import RagConfig
from rag.embedding import Embedder
from rag.errors import EmbeddingError
from rag.indexing import index_documents
from rag.prefixes import Prefixes, prefixes_for
from rag.refining import shared_embedder
from rag.retrieval import HybridSearch
from rag.store import EmbeddedStore
from tests.rag.conftest import manual_documents

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


@contextmanager
def embedding_server(*, wrong: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Serve letter counts as embeddings; yields the base URL and the texts seen. `wrong`: answer 400."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
            seen.extend(texts)
            rows = [[float(text.lower().count(letter)) + 0.01 for letter in _LETTERS] for text in texts]
            data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            answer = {"object": "list", "data": data, "model": body["model"], "usage": usage}
            content = json.dumps({"error": {"message": "no such model"}} if wrong else answer).encode()
            self.send_response(400 if wrong else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("model", "prefixes"),
    [
        ("intfloat/multilingual-e5-small", Prefixes("query: ", "passage: ")),
        ("nomic-ai/nomic-embed-text-v1.5", Prefixes("search_query: ", "search_document: ")),
        ("BAAI/bge-small-en-v1.5", Prefixes("Represent this sentence for searching relevant passages: ")),
        ("sentence-transformers/all-MiniLM-L6-v2", Prefixes()),
    ],
)
def test_models_get_the_prefixes_they_were_trained_with(model: str, prefixes: Prefixes) -> None:
    """By the model's name; a setting of the user's, the empty one included, stands above it."""
    assert prefixes_for(model) == prefixes
    embedder = Embedder.from_config(RagConfig(embedder=model, backend="torch"))
    assert (embedder.query_prefix, embedder.passage_prefix) == (prefixes.query, prefixes.passage)
    plain = Embedder.from_config(RagConfig(embedder=model, backend="torch", query_prefix="", passage_prefix=""))
    assert (plain.query_prefix, plain.passage_prefix) == ("", "")


def test_a_local_models_own_prompts_come_first(tmp_path: Path) -> None:
    """What the model's folder says of itself is believed above its name."""
    folder = tmp_path / "e5-small"
    folder.mkdir()
    settings = {"prompts": {"query": "Q: ", "document": "D: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    assert prefixes_for(str(folder)) == Prefixes("Q: ", "D: ")


def test_a_remote_embedder_indexes_and_searches(store: EmbeddedStore) -> None:
    """Passages and queries go to the service with their prefixes; vectors come back with unit length."""
    with embedding_server() as (url, seen):
        config = RagConfig(embedder="openai:tiny", embedder_url=url, query_prefix="q: ", passage_prefix="p: ")
        embedder = Embedder.from_config(config)
        report = index_documents(manual_documents(), store, embedder, config)
        found = HybridSearch(store, embedder, config).retrieve_many(["wheel nuts torque"])[0]
        vectors = embedder.embed_queries(["abc"])
    assert found[0].meta["document"] == "tyres"
    assert sum(text.startswith("p: ") for text in seen) >= report.embedded
    assert "q: wheel nuts torque" in seen
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_a_remote_embedder_that_fails_says_so() -> None:
    """A refusal of the service and a missing key are errors that name the model."""
    with (
        embedding_server(wrong=True) as (url, _),
        pytest.raises(EmbeddingError, match=f"openai:tiny at {url} did not answer"),
    ):
        Embedder("openai:tiny", url=url).warm_up()
    with pytest.raises(EmbeddingError, match="VERSUS_NO_SUCH_KEY is not set"):
        Embedder("openai:tiny", key_env="VERSUS_NO_SUCH_KEY").warm_up()
    with pytest.raises(EmbeddingError, match="embedder_url"):
        Embedder("azure:tiny").warm_up()


def test_who_waits_is_soon_told_that_an_embedder_is_gone() -> None:
    """Where nobody ever listened, and where a service went away: in seconds, though a run would ask five times."""
    with embedding_server() as (url, _):
        config = RagConfig(embedder="openai:tiny", embedder_url=url)
        watched, patient = shared_embedder(config, 1), shared_embedder(config)
        assert watched is shared_embedder(config, 1) and patient is not watched
        assert shared_embedder(RagConfig(), 1) is shared_embedder(RagConfig())  # one copy of a local model
        watched.warm_up()
    for embedder in (watched, Embedder("openai:tiny", url=url)):
        started = time.monotonic()
        with pytest.raises(EmbeddingError, match=f"openai:tiny at {url} did not answer"):
            embedder.embed_queries(["How heavy?"])
        assert time.monotonic() - started < 4
