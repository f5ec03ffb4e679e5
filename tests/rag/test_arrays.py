"""Reading arrays in many threads at once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rag.arrays import read_array, read_arrays


class _Cycle:
    """Garbage that runs Python when it is collected, so that threads change in the middle of reading."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        for _ in range(50):
            pass


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """Collect garbage after every few objects."""
    before = gc.get_threshold()
    gc.set_threshold(20)
    yield
    gc.set_threshold(*before)


def _at_depth(depth: int, work: Callable[[], None]) -> None:
    if depth:
        _at_depth(depth - 1, work)
    else:
        work()


@pytest.mark.usefixtures("eager_collector")
def test_threads_at_unlike_depths_read_the_same_files_without_failing(tmp_path: Path) -> None:
    """With `numpy.load` alone some of these fail on Python 3.11.7 (CPython's issue 106905)."""
    one, several = tmp_path / "one.npy", tmp_path / "several.npz"
    np.save(one, np.arange(7))
    np.savez(several, left=np.arange(3), right=np.arange(4))
    failures: list[Exception] = []

    def read() -> None:
        _Cycle()
        try:
            assert read_array(one).sum() == read_array(one, "r").sum() == 21
            assert {name: len(array) for name, array in read_arrays(several).items()} == {"left": 3, "right": 4}
        except Exception as error:
            failures.append(error)

    def many(depth: int) -> None:
        for _ in range(700):
            _at_depth(depth, read)

    threads = [threading.Thread(target=many, args=(depth,)) for depth in (0, 20, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_file_that_is_not_an_array_is_refused_at_once(tmp_path: Path) -> None:
    """What the bytes say is no accident of threads."""
    path = tmp_path / "bad.npy"
    path.write_bytes(b"no array")
    with pytest.raises(ValueError, match="pickled"):
        read_array(path)
