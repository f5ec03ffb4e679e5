"""Whether an embedder was trained for the language that documents are written in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rag.config import BUNDLED_EMBEDDER

if TYPE_CHECKING:
    from haystack import Document

_ENGLISH = frozenset({"en"})
_KNOWN: tuple[tuple[str, frozenset[str] | None], ...] = (
    (r"multilingual|xlm|labse|bge-m3|arctic-embed.*v2|qwen3-embedding|embeddinggemma|jina-embeddings-v[345]", None),
    (r"e5-(small|base|large)|[-_]en([-_.]|$)|all-(minilm|mpnet|distilroberta)|multi-qa|msmarco|gtr-t5", _ENGLISH),
    (r"mxbai-embed|nomic-embed-text-v1|snowflake-arctic-embed", _ENGLISH),
    (r"[-_]zh([-_.]|$)", frozenset({"zh"})),
    (r"rubert|frida|ru-en-rosberta|sbert.*ru", frozenset({"ru", "en"})),
)
"""Pattern of a model's name (lower case) and its languages, None for many; the first that is found holds."""

_SAMPLE = 20
"""Documents that are looked at."""
_CHARACTERS = 1500
"""Characters of each that are looked at."""
_FEW = 200
"""A document of fewer letters than this is not judged."""


def trained_languages(model: str) -> frozenset[str] | None:
    """Return the languages (ISO 639-1) that an embedder was trained for; None for many, or where nothing is known.

    A local folder's model card is believed above the model's name.
    """
    if model == BUNDLED_EMBEDDER:
        return _ENGLISH
    card = _card_languages(Path(model))
    if card is not None:
        return card or None
    name = model.lower()
    return next((languages for pattern, languages in _KNOWN if re.search(pattern, name)), None)


def _card_languages(folder: Path) -> frozenset[str] | None:
    """Return the languages that the model card in `folder` lists (empty for `multilingual`), or None without any."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except OSError:
        return None
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    listed = re.search(r"^language:[ \t]*(.*(?:\n[ \t]*-[ \t]*.*)*)", head[1], re.MULTILINE) if head else None
    found = re.findall(r"[a-z]{2,}", listed[1].lower()) if listed else []
    if not found:
        return None
    return frozenset() if "multilingual" in found else frozenset(name for name in found if len(name) == 2)


def language_warning(documents: Sequence[Document], model: str) -> str | None:
    """Return one sentence where a good part of `documents` is in a language that `model` was not trained for.

    Twenty documents at most are looked at, evenly spread; the language is told from their text, since labels are
    often wrong. None where all is well, or nothing is known of the model.
    """
    trained = trained_languages(model)
    if trained is None or not documents:
        return None
    sample = documents[:: max(1, len(documents) // _SAMPLE)][:_SAMPLE]
    found = Counter(name for name in (_language(document.content or "") for document in sample) if name)
    foreign = {name: count for name, count in found.items() if name not in trained}
    if 10 * sum(foreign.values()) < max(1, sum(found.values())):
        return None
    most = max(foreign, key=lambda name: foreign[name])
    return (
        f"of {sum(found.values())} documents looked at, {sum(foreign.values())} are not in a language that the "
        f"embedder {model} was trained for ({', '.join(sorted(trained))}), but most of these in {most!r}: retrieval "
        "will find them by words only; choose a multilingual embedder, say "
        "embedder = 'intfloat/multilingual-e5-small'"
    )


def _language(text: str) -> str | None:
    """Return the ISO 639-1 code of a text's language, or None for a text of few letters."""
    plain = re.sub(r"`[^`]*`|https?://\S+|[|#*_>-]+", " ", text[: 4 * _CHARACTERS])[:_CHARACTERS]
    if sum(character.isalpha() for character in plain) < _FEW:
        return None
    import py3langid

    return str(py3langid.classify(plain)[0])
