"""Keep torch out of a process that needs none of it.

`import haystack` imports torch where it is installed, which costs seconds. A command that runs no torch model calls
`block_torch` before its first Haystack import.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_BLOCKED = frozenset({"torch", "transformers", "sentence_transformers"})


class _Block:
    """A meta-path finder that says of each blocked package that it is not installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in _BLOCKED:
            raise ModuleNotFoundError(f"{name} is kept out of this process", name=name)
        return None


def block_torch() -> bool:
    """Make every later import of torch, transformers and sentence_transformers fail as if not installed.

    Only for a process that will never need them: the block cannot be lifted, since Haystack looks once. Returns
    False, and blocks nothing, where torch is imported already.
    """
    if "torch" in sys.modules:
        return False
    if not any(isinstance(finder, _Block) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Block())  # type: ignore[arg-type]
    return True


def torch_is_blocked() -> bool:
    """Tell whether `block_torch` has taken effect in this process."""
    return any(isinstance(finder, _Block) for finder in sys.meta_path)
