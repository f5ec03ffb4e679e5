"""BM25 (Robertson and Zaragoza 2009): one tokenizer, one small protocol, two engines.

`Bm25sIndex` (bm25s, Lucene's variant, scores computed when indexing) is the default; `RankBm25Index` (rank-bm25, Okapi
variant) is the slow reference. Neither writes pickles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from zipfile import BadZipFile

from rag.arrays import read_arrays
from rag.errors import StoreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Positions = NDArray[np.int64]
    Hits = tuple[Positions, NDArray[np.float32]]


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP_WORDS = {
    "en": _word_set(
        "a about above after again all also am an and any are as at be because been before being below between both "
        "but by can could did do does doing down during each few for from further had has have having he her here "
        "hers him his how i if in into is it its itself just me more most my no nor not now of off on once only or "
        "other our ours out over own same she should so some such than that the their theirs them then there these "
        "they this those through to too under until up very was we were what when where which while who whom why "
        "will with would you your yours"
    ),
    "ru": _word_set(
        "а без бы был была были было быть в вам вас весь во вот все всё вы где да для до его ее её если есть еще ещё "
        "же за здесь и из или им их к как какая какие какой ко когда кто ли либо мне мы на надо нам нас не него нее "
        "неё нет ни них но ну о об он она они оно от по под при с со так также такой там те тем то того тоже той "
        "только том ты у уже чего чем что чтобы как эта эти это этого этой этом этот я"
    ),
}
"""Words too common to index, per language."""

_STEMMERS = {"en": "english", "ru": "russian", "de": "german", "fr": "french", "es": "spanish", "it": "italian"}
_UNITS = (
    "km/h|mph|kph|kwh|mwh|wh|kw|hp|nm|rpm|psi|kpa|bar|mah|ah|mm|cm|km|kg|lbs?|oz|ml|gb|mb|kb|tb|mhz|ghz|hz|ms|mins?|"
    "hrs?|°c|°f|кг|км/ч|км|мм|см|л|мл|мин|об/мин|нм|бар|атм|кпа|мпа|квт|мвт|гц|кгц|мгц|ггц|ач|кб|мб|гб|тб|°|%|"
    "v|w|a|m|l|g|s|h|c|f|в|вт|г|м|с|ч"
)
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*(?:[^\W\d_]+(?:/[^\W\d_]+)?|[°%][CF]?)?|\w+(?:[-_./'’]\w+)*", re.UNICODE)
_NUMBER_UNIT = re.compile(rf"(\d+(?:[.,]\d+)*)[ \u00a0]?({_UNITS})(?!\w)", re.IGNORECASE)
_PARTS = re.compile(r"\d+(?:[.,]\d+)*|[A-ZА-ЯЁ]+(?![a-zа-яё])|[A-ZА-ЯЁ]?[a-zа-яё]+|[^\W\d_]+")
_CYRILLIC = re.compile(r"[а-яё]")


NOISE = 1e-3
"""Share of the highest score below which a passage shares only words that nearly all passages hold."""


class Tokenizer:
    """Text to index terms, the same for passages and queries.

    Words are lower-cased, stop words dropped, the rest stemmed (Snowball): Cyrillic words as Russian, others in
    `language`. A compound (`TRN-B101`, `ESP_a118`, `kube-apiserver`, `EndpointSlice`, `12V`) gives itself and its
    parts; a number with its unit (`40 psi`, `3.5bar`) gives the number, the unit and both joined.
    """

    def __init__(self, language: str = "en") -> None:
        self.language = language
        self._stem = lru_cache(maxsize=200_000)(self._stem_word)
        self._terms = lru_cache(maxsize=200_000)(self._terms_of)

    def __call__(self, text: str) -> list[str]:
        """Return the terms of `text` in reading order."""
        terms = [term for match in _TOKEN.finditer(text) for term in self._terms(match[0])]
        joined = (match for match in _NUMBER_UNIT.finditer(text) if match.end(1) < match.start(2))
        terms.extend(f"{match[1]}{match[2].lower()}" for match in joined)
        return terms

    def words(self, text: str) -> list[str]:
        """Return only the whole terms of `text`, stop words dropped: what two texts must share to be alike."""
        whole = (re.sub(r"['’]s$", "", match[0]).lower() for match in _TOKEN.finditer(text))
        return [self._stem(word) for word in whole if not self._is_stop(word)]

    def pairs(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield the neighbouring words of `text`, stemmed, unless both are stop words."""
        words = [re.sub(r"['’]s$", "", match[0]).lower() for match in _TOKEN.finditer(text)]
        common = [self._is_stop(word) for word in words]
        stems = [self._stem(word) for word in words]
        for place in range(len(words) - 1):
            if not (common[place] and common[place + 1]):
                yield stems[place], stems[place + 1]

    def _terms_of(self, token: str) -> tuple[str, ...]:
        token = re.sub(r"['’]s$", "", token)
        word = token.lower()
        if self._is_stop(word):
            return ()
        parts = _PARTS.findall(token)
        if len(parts) < 2:
            return (self._stem(word),)
        return (self._stem(word), *(self._stem(part.lower()) for part in parts if not self._is_stop(part.lower())))

    def _is_stop(self, word: str) -> bool:
        return any(word in STOP_WORDS.get(language, ()) for language in (self.language, "en", "ru"))

    def _stem_word(self, word: str) -> str:
        stemmer = _stemmer("ru" if _CYRILLIC.search(word) else self.language)
        return str(stemmer.stemWord(word)) if stemmer and word.isalpha() else word


@lru_cache
def _stemmer(language: str) -> Any:
    import Stemmer

    name = _STEMMERS.get(language)
    return Stemmer.Stemmer(name) if name else None


class LexicalIndex(Protocol):
    """BM25 over a fixed list of passages, numbered from 0."""

    size: int

    def scores(self, query: str) -> NDArray[np.float32]:
        """Return the BM25 score of every passage, shape (size,); 0 where no term is shared."""
        ...

    def best(self, query: str, k: int, also: Positions) -> Hits:
        """Return, ascending, the `k` passages that score highest and those of `also`, with their scores.

        A passage below `NOISE` times the highest score is not among them unless `also` names it.
        """
        ...

    def idf(self, query: str) -> dict[str, float]:
        """Return the inverse document frequency of each term of `query`; a term that no passage holds has the most."""
        ...


def make_lexical_index(engine: str, passages: Sequence[str], tokenizer: Tokenizer) -> LexicalIndex:
    """Build the engine named `bm25s` or `rank-bm25` over `passages`."""
    if engine == "rank-bm25":
        return RankBm25Index.build(passages, tokenizer)
    return Bm25sIndex.build(passages, tokenizer)


def best_hits(scores: NDArray[np.float32], k: int, allowed: Mask | None = None) -> Hits:
    """Return the positions and values of the `k` highest positive scores; ties go to the lower position.

    Zeros are dropped before the partial sort, which is what makes this fast on sparse scores.
    """
    import numpy as np

    positions = np.flatnonzero(scores > 0)
    if allowed is not None:
        positions = positions[allowed[positions]]
    found = scores[positions]
    if len(positions) > 4 * k:
        floor = np.partition(found, len(found) - k)[len(found) - k]
        positions, found = positions[found >= floor], found[found >= floor]
    order = np.lexsort((positions, -found))[:k]
    return positions[order], found[order].astype(np.float32)


def best_among(scores: NDArray[np.float32], k: int, also: Positions) -> Hits:
    """Return what `LexicalIndex.best` does, of the scores of all passages."""
    import numpy as np

    found, values = best_hits(scores, k)
    positions = np.union1d(found[values >= NOISE * values.max(initial=0)], also).astype(np.int64)
    return positions, scores[positions]


class Bm25sIndex:
    """BM25 by bm25s: a sparse matrix, terms × passages, of scores computed when indexing."""

    def __init__(self, engine: Any, tokenizer: Tokenizer, size: int) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self.size = size

    @classmethod
    def build(cls, passages: Sequence[str], tokenizer: Tokenizer) -> Bm25sIndex:
        """Index `passages`."""
        import bm25s

        engine = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(term, len(vocabulary)) for term in tokenizer(text)] for text in passages]
        if vocabulary:
            engine.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        return cls(engine if vocabulary else None, tokenizer, len(passages))

    def scores(self, query: str) -> NDArray[np.float32]:
        """See `LexicalIndex.scores`."""
        import numpy as np

        terms = self._known(query)
        if not terms:
            return np.zeros(self.size, dtype=np.float32)
        columns = [self._engine.vocab_dict[term] for term in terms]
        found: NDArray[np.float32] = self._engine.get_scores_from_ids(columns)
        return found

    def best(self, query: str, k: int, also: Positions) -> Hits:
        """See `LexicalIndex.best`."""
        return best_among(self.scores(query), k, also)

    def idf(self, query: str) -> dict[str, float]:
        """See `LexicalIndex.idf`."""
        return {term: lucene_idf(self._frequency(term), self.size) for term in self._tokenizer(query)}

    def save(self, path: Path) -> None:
        """Write the matrix to `path`.npz and the vocabulary to `path`.json."""
        import numpy as np

        matrix = self._engine.scores if self._engine else {"data": [], "indices": [], "indptr": []}
        with Path(f"{path}.npz").open("wb") as file:
            np.savez(file, size=self.size, **{name: matrix[name] for name in ("data", "indices", "indptr")})
        vocabulary = self._engine.vocab_dict if self._engine else {}
        Path(f"{path}.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path, tokenizer: Tokenizer) -> Bm25sIndex:
        """Read what `save` wrote; raises `StoreError` where it is damaged."""
        import bm25s

        try:
            stored = read_arrays(f"{path}.npz")
            arrays, size = {name: stored[name] for name in ("data", "indices", "indptr")}, int(stored["size"])
            vocabulary = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise StoreError(f"{path}: the BM25 index is damaged ({error})") from error
        if not vocabulary:
            return cls(None, tokenizer, size)
        engine = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
        engine.scores = {**arrays, "num_docs": size}
        engine.vocab_dict, engine.nonoccurrence_array = vocabulary, None
        return cls(engine, tokenizer, size)

    def _known(self, query: str) -> list[str]:
        return [term for term in self._tokenizer(query) if self._engine and term in self._engine.vocab_dict]

    def _frequency(self, term: str) -> int:
        if not self._engine or term not in self._engine.vocab_dict:
            return 0
        column = self._engine.vocab_dict[term]
        starts = self._engine.scores["indptr"]
        return int(starts[column + 1] - starts[column])


class RankBm25Index:
    """BM25 by rank-bm25 (`BM25Okapi`), which scores every passage for every query."""

    def __init__(self, engine: Any, tokenizer: Tokenizer, size: int) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self.size = size

    @classmethod
    def build(cls, passages: Sequence[str], tokenizer: Tokenizer) -> RankBm25Index:
        """Index `passages`."""
        from rank_bm25 import BM25Okapi

        terms = [tokenizer(text) for text in passages]
        return cls(BM25Okapi(terms) if any(terms) else None, tokenizer, len(passages))

    def scores(self, query: str) -> NDArray[np.float32]:
        """See `LexicalIndex.scores`."""
        import numpy as np

        terms = self._tokenizer(query)
        if self._engine is None or not terms:
            return np.zeros(self.size, dtype=np.float32)
        return np.asarray(self._engine.get_scores(terms), dtype=np.float32)

    def best(self, query: str, k: int, also: Positions) -> Hits:
        """See `LexicalIndex.best`."""
        return best_among(self.scores(query), k, also)

    def idf(self, query: str) -> dict[str, float]:
        """See `LexicalIndex.idf`."""
        holding = dict.fromkeys(self._tokenizer(query), 0)
        for frequencies in self._engine.doc_freqs if self._engine else ():
            for term in holding:
                holding[term] += term in frequencies
        return {term: lucene_idf(count, self.size) for term, count in holding.items()}


def lucene_idf(holding: int, size: int) -> float:
    """Return the inverse document frequency, ln(1 + (N - n + 0.5) / (n + 0.5)): N passages, n of them hold the term."""
    import math

    return math.log(1 + (size - holding + 0.5) / (holding + 0.5))
