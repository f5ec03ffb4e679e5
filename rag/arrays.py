"""Reading numpy's files in many threads.

numpy parses the header of each array as a Python literal. Before Python 3.11.8 and 3.12.2, that fails now and then with
a `SystemError` about recursion depth while another thread parses anything too (CPython's issue 106905): the file is
good, and is read again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Read = TypeVar("_Read")
_TRIES = 20


def read_array(path: Path, mode: Literal["r"] | None = None) -> NDArray[Any]:
    """Return the array in the `.npy` file at `path`, memory-mapped where `mode` is "r"; raises as `numpy.load` does."""
    import numpy as np

    return _tried(lambda: np.load(path, mmap_mode=mode, allow_pickle=False))


def read_arrays(path: Path | str) -> dict[str, NDArray[Any]]:
    """Return name → array of the `.npz` file at `path`; raises as `numpy.load` does."""
    import numpy as np

    def read() -> dict[str, NDArray[Any]]:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    return _tried(read)


def _tried(read: Callable[[], _Read]) -> _Read:
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

    return Retrying(retry=retry_if_exception_type(SystemError), stop=stop_after_attempt(_TRIES), reraise=True)(read)
