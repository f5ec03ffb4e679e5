"""The prefixes that embedding models were trained with, by the model's name.

A sentence-transformers model that carries its own prompts (`config_sentence_transformers.json`) is asked first; this
table is for the many published models that do not.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Prefixes:
    """What is put before each query and each passage; empty for nothing."""

    query: str = ""
    passage: str = ""


_RETRIEVE_EN = "Represent this sentence for searching relevant passages: "
_KNOWN: tuple[tuple[str, Prefixes], ...] = (
    (r"e5-.*instruct", Prefixes("Instruct: Given a question, retrieve passages that answer it\nQuery: ")),
    (r"(^|[-_/])(multilingual-)?e5-(small|base|large)", Prefixes("query: ", "passage: ")),
    (r"bge-(small|base|large)-en", Prefixes(_RETRIEVE_EN)),
    (r"bge-(small|base|large)-zh", Prefixes("为这个句子生成表示以用于检索相关文章：")),
    (r"mxbai-embed|snowflake-arctic-embed(?!.*v2)", Prefixes(_RETRIEVE_EN)),
    (r"snowflake-arctic-embed.*v2", Prefixes("query: ")),
    (r"nomic-embed-text", Prefixes("search_query: ", "search_document: ")),
    (r"(^|[-_/])frida$", Prefixes("search_query: ", "search_document: ")),
    (r"qwen3-embedding", Prefixes("Instruct: Given a question, retrieve passages that answer it\nQuery: ")),
    (r"embeddinggemma", Prefixes("task: search result | query: ", "title: none | text: ")),
)
"""Pattern of the model's name (lower case) and what it needs; the first that is found holds."""

_QUERY_PROMPTS = ("query", "search_query", "s2p_query", "retrieval_query")
_PASSAGE_PROMPTS = ("passage", "document", "search_document", "corpus", "retrieval_document")


def prefixes_for(model: str) -> Prefixes:
    """Return the prefixes of the model of that name or in that folder; empty ones for a model that needs none."""
    own = _own_prompts(Path(model))
    if own is not None:
        return own
    name = model.lower()
    return next((prefixes for pattern, prefixes in _KNOWN if re.search(pattern, name)), Prefixes())


def _own_prompts(folder: Path) -> Prefixes | None:
    """Return the prompts that a local sentence-transformers folder names for queries and passages, if any."""
    try:
        settings = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))
        prompts = {str(name): str(text) for name, text in (settings.get("prompts") or {}).items()}
    except (OSError, ValueError, AttributeError):
        return None
    query = next((prompts[name] for name in _QUERY_PROMPTS if prompts.get(name)), "")
    passage = next((prompts[name] for name in _PASSAGE_PROMPTS if prompts.get(name)), "")
    return Prefixes(query, passage) if query or passage else None
