"""Which heads of MiniLM are taught to read, and where they stand in a decoder that was made of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Heads = tuple[tuple[int, int], ...]
"""(layer, head) pairs."""
ENCODER_LAYERS = 6
LAST_LAYER: Heads = tuple((5, head) for head in range(6))
READ_LAYERS = (3, 4, 5)
"""The layers that pointers read from: before each, every token's identity is kept readable."""
KINDS = ("sentence", "before", "match", "question", "pool", "evidence", "opening", "copy")
"""The steps of reading that heads are taught, from the first layers up."""
GUIDED_HEADS: dict[str, Heads] = {
    "sentence": ((1, 4), (1, 8), (2, 4)),
    "match": ((2, 9), (2, 1)),
    "question": ((3, 1), (3, 2), (3, 9)),
    "pool": ((3, 4), (3, 6), (4, 6)),
    "evidence": ((4, 1), (4, 2), (4, 5)),
    "opening": LAST_LAYER,
    "copy": ((3, 0), (3, 5), (4, 0), (4, 7), *LAST_LAYER),
}
"""The (layer, head) pairs that are taught to read, by the step of reading that they take, from the first layers up:

sentence: each token of the sources looks at the first token of its sentence, and so knows which sentence it is in ·
match: a word of the question looks at the same word in the sentence that answers, if no other sentence has it ·
question: all words of the question look at that sentence · pool: the token that opens the answer gathers the words of
the question · evidence: it looks at the sentence · opening: it looks at its first token · copy: each token of the
answer looks at the one to come. A causal model needs the detour because the first token of a sentence cannot know what
the sentence says. MiniLM's first layers bring the rest: (0, 2) finds the previous token, (2, 9) equal tokens."""
CHAIN_LAYERS = 4
CHAIN: dict[str, Heads] = {
    "before": ((0, 4), (0, 5), (0, 8)),
    "match": ((1, 1), (1, 9)),
    "question": ((1, 2), (1, 4), (1, 6)),
    "pool": ((2, 4), (2, 6), (2, 8)),
    "evidence": ((2, 1), (2, 2), (2, 5)),
    "opening": tuple((3, head) for head in range(6)),
    "copy": ((2, 0), (2, 7), *((3, head) for head in range(6))),
}
"""The same for a decoder of four layers, so that no step needs what is found in its own layer.

Each token of the sources looks at the token *before* its sentence, which the first layer can find by its full stop or
line break; the question finds its sentence in the second layer, the opener gathers the question in the third, and opens
the sentence in the fourth."""


def encoder_layers(config: Any) -> tuple[int, ...]:
    """Return which of MiniLM's layers a decoder's layers were, from its configuration; all six if it does not say."""
    return tuple(getattr(config, "encoder_layers", None) or range(ENCODER_LAYERS))


def place_of(layer: int, layers: Sequence[int]) -> int:
    """Return where MiniLM's `layer` stands in a decoder made of `layers`: the last of the nearest, the upper of two."""
    return max(range(len(layers)), key=lambda place: (-abs(layers[place] - layer), layers[place], place))


def guided_heads(layers: Sequence[int]) -> dict[str, Heads]:
    """Return `GUIDED_HEADS` as they stand in a decoder made of these layers of MiniLM, each once."""
    return {
        kind: tuple(dict.fromkeys((place_of(layer, layers), head) for layer, head in heads))
        for kind, heads in GUIDED_HEADS.items()
    }
