"""Vectors of texts that come again and again: the sentences that many questions are answered from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag.embedding import Embedder

    Vectors = NDArray[np.float32]

MOST = 20_000
"""Vectors kept, those used last: 30 MB with the bundled embedder."""


class RememberedVectors:
    """The vectors of an embedder's passages, each computed once for as long as it is remembered; safe between threads.

    A vector is the embedder's own, up to the rounding that the other texts of its batch bring.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._known: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, texts: Sequence[str], embedder: Embedder) -> Vectors:
        """Return unit vectors, float32 of shape (len(texts), dimension); `texts` must not be empty."""
        import numpy as np

        with self._lock:
            found = {text: vector for text in dict.fromkeys(texts) if (vector := self._known.get(text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            found.update(zip(missing, embedder.embed_documents(missing), strict=True))
        self._keep(found)
        return np.stack([found[text] for text in texts])

    def _keep(self, found: Mapping[str, Vectors]) -> None:
        """Remember what was just used, and forget what was used longest ago."""
        with self._lock:
            for text, vector in found.items():
                self._known[text] = vector.copy() if vector.base is not None else vector
                self._known.move_to_end(text)
            while len(self._known) > self.most:
                self._known.popitem(last=False)


_remembered: WeakKeyDictionary[Embedder, RememberedVectors] = WeakKeyDictionary()
_lock = threading.Lock()


def remembered_vectors(embedder: Embedder) -> RememberedVectors:
    """Return the memory that all who quote by one embedder share."""
    with _lock:
        if embedder not in _remembered:
            _remembered[embedder] = RememberedVectors()
        return _remembered[embedder]
