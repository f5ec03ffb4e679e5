"""One writer at a time: an advisory lock on a file beside the index, released by the system if its holder dies."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rag.errors import IndexLocked, StoreError

_held = threading.local()


@contextmanager
def writer_lock(index: Path) -> Iterator[None]:
    """Hold the right to write the index at `index`; may be nested in one thread.

    Raises `IndexLocked`, naming the other process, where it is held elsewhere; `StoreError` where the folder cannot
    be written.
    """
    depths: dict[Path, int] = _held.__dict__.setdefault("depths", {})
    path = index.with_name(index.name + ".lock").absolute()
    if depths.get(path):
        depths[path] += 1
        try:
            yield
        finally:
            depths[path] -= 1
        return
    handle = _acquire(path, index)
    depths[path] = 1
    try:
        yield
    finally:
        del depths[path]
        os.close(handle)


@contextmanager
def derived_lock(index: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the right to change the files derived from the index at `index`; give whether it is held.

    It is no part of `writer_lock`: a reader that keeps what it had to make must never keep a writer from beginning.
    With `wait`, waits until it is free. Raises `StoreError` where the folder cannot be written.
    """
    import fcntl

    handle = _opened(index.with_name(index.name + ".derived-lock"), index)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = True
    except BlockingIOError:
        held = False
    try:
        yield held
    finally:
        os.close(handle)


def _opened(path: Path, index: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(
            f"{index}: cannot be written ({error.strerror}); free space there, or choose another workspace"
        ) from error


def _acquire(path: Path, index: Path) -> int:
    import fcntl

    handle = _opened(path, index)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise IndexLocked(f"{index}: process {holder} is writing this index; wait for it and try again") from error
    os.ftruncate(handle, 0)
    with suppress(OSError):  # on a full disk the lock holds all the same, and whoever meets it reads "unknown"
        os.write(handle, str(os.getpid()).encode())
    return handle
