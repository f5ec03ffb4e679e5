"""Ctrl-C during a training: heard between two steps, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def between_steps() -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C back, and yield a function that tells whether there was one; a second one interrupts.

    Only the main thread hears signals; in another one nothing is held back.
    """
    heard = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield heard.is_set
        return

    def hear(number: int, frame: FrameType | None) -> None:
        if heard.is_set():
            raise KeyboardInterrupt
        heard.set()

    former = signal.getsignal(signal.SIGINT)
    if former is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, hear)
    try:
        yield heard.is_set
    finally:
        if former is not signal.SIG_IGN and former is not None:
            signal.signal(signal.SIGINT, former)
