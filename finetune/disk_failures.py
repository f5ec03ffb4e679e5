"""A disk that takes no more, told as one error whichever library was writing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.errors import VersusError
from finetune.errors import FinetuneError

_RUST = re.compile(r"([^:]+) \(os error \d+\)")
"""What safetensors (`SafetensorError`) and tokenizers (`Exception`) say, the system's reason in front."""
_TORCH = "inline_container.cc"
"""The file of torch that writes its archives; it stands in the `RuntimeError`, the reason does not."""


@contextmanager
def readable_writing(place: Path) -> Iterator[None]:
    """Turn what Python, torch, safetensors and tokenizers raise on a failed write into one FinetuneError on `place`."""
    try:
        yield
    except Exception as error:
        reason = None if isinstance(error, VersusError) else _reason(error)
        if reason is None:
            raise
        raise FinetuneError(f"cannot write {place}: {reason}") from error


def _reason(error: BaseException) -> str | None:
    """Return in words why a write failed; None if `error` is another one."""
    if isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError)):
        return error.strerror or str(error)
    if found := _RUST.search(str(error)):
        return found[1].strip()
    if isinstance(error, RuntimeError) and _TORCH in str(error):
        return (error.__context__ and _reason(error.__context__)) or "no space left, or a limit on the size of files"
    return None
