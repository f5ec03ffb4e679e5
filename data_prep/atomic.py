"""Files that are written whole or not at all; a power cut leaves the one before, or the whole new one."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from data_prep.errors import DataError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` with `data` in one step, making its folder if needed.

    The bytes go to a temporary file in the same folder, reach the disk, and take the name. A reader sees the old file
    or the new one. Raises `DataError` that names the path when the disk is full or the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DataError(f"cannot write {path}: {error.strerror}") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text` in UTF-8, in one step; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Bring a folder to the disk, with all that is in it; a power cut cannot take it back then."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            sync_file(path)
        elif path.is_dir():
            sync_names(path)
    sync_names(folder)


def sync_file(path: Path) -> None:
    """Bring a file's content to the disk. Raises `OSError` where the disk does not take it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_names(folder: Path) -> None:
    """Bring to the disk which names a folder holds, where its file system can be asked to."""
    with suppress(OSError):
        sync_file(folder)
