"""Never two trainings at once on one device: a lock in the workspace, held by the command line and the app alike.

It is an advisory lock on a file, which the system releases when its holder ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from comparison_app.errors import ComparisonError
from comparison_app.workspace import Workspace


@contextmanager
def only_training(workspace: Workspace, device: str, what: str = "a training") -> Iterator[None]:
    """Hold the right to train `what` on a device; raises `ComparisonError`, naming the process that holds it.

    Of processes that train together only the first holds it.
    """
    from finetune.processes import is_first

    if not is_first():
        yield
        return
    handle = _acquired(workspace, device, what)
    try:
        yield
    finally:
        os.close(handle)


def _acquired(workspace: Workspace, device: str, what: str) -> int:
    path = workspace.path / f"training-{device.replace(':', '-')}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ComparisonError(f"{path}: cannot be written ({error.strerror}); choose another workspace") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(handle)
        os.close(handle)
        raise ComparisonError(f"another training runs on {device}: {holder}; wait for it, or stop it first") from error
    note = {"pid": os.getpid(), "what": what, "since": datetime.now(UTC).isoformat(timespec="seconds")}
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(note, ensure_ascii=False).encode())
    return handle


def _holder(handle: int) -> str:
    """Say who holds the lock, as it noted in the file."""
    try:
        note = json.loads(os.pread(handle, 4096, 0))
        return f"process {note['pid']} has trained {note['what']} since {note['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
