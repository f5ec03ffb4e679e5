"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
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
