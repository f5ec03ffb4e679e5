"""Text made comparable: what exact match and token F1 call the same.

After SQuAD's evaluation script (Rajpurkar et al. 2016, arXiv 1606.05250): lower case, no punctuation, no articles,
single spaces. Carried over to Unicode: NFKC and case folding, every character of the classes P and S is dropped, and
Russian "ё" is "е". Bracketed citations such as [1] or [2, 3] are no part of an answer.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_CITATION = re.compile(r"\s*\[\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*\]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WORD = re.compile(r"[^\W_]+")


def without_citations(text: str) -> str:
    """Return `text` without its bracketed source numbers."""
    return _CITATION.sub("", text)


def cited_numbers(text: str) -> tuple[int, ...]:
    """Return the source numbers that `text` cites, each once, in order; "[2, 3]" cites two, "[2-4]" three."""
    found: list[int] = []
    for citation in _CITATION.findall(text):
        for first, last in re.findall(r"(\d+)(?:\s*[–-]\s*(\d+))?", citation):
            found.extend(range(int(first), int(last or first) + 1))
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=20_000)
def normalise(text: str) -> str:
    """Return `text` folded, without citations, punctuation, symbols, English articles and extra space."""
    folded = unicodedata.normalize("NFKC", without_citations(text)).casefold().replace("ё", "е")
    bare = "".join(character for character in folded if unicodedata.category(character)[0] not in "PS")
    return " ".join(_ARTICLES.sub(" ", bare).split())


def words(text: str) -> list[str]:
    """Return the runs of letters and digits of `text`, folded; "ESP_a118" gives two."""
    folded = unicodedata.normalize("NFKC", without_citations(text)).casefold().replace("ё", "е")
    return _WORD.findall(folded)
