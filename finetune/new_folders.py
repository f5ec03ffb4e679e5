"""Folders that are written whole or not at all: adapters, models, vocabularies.

A folder is drafted beside its place, as `.NAME.new-…`, reaches the disk, and takes its name. What stood there before is
`.NAME.versus-former` for that moment; a process that is killed in it leaves neither under the name, and the next write
to the name brings the old one back before anything else. A draft is locked by its process, so a dead one's is known,
and goes; on a file system without locks it stays.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_prep.atomic import sync_folder, sync_names
from finetune.disk_failures import readable_writing
from finetune.errors import FinetuneError

MADE_HERE = ("run_record.json", "adapter_config.json")
"""A folder that holds one of these files may be replaced."""
FORMER = ".versus-former"
_UNFINISHED = re.compile(r"\..+\.(new-\w{8}|versus-former)")


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Give a temporary folder beside `output` that takes its name, in one step, when the block ends well.

    What stood there before stays whole until then, and stays for good if the block fails, is interrupted or killed.
    Raises FinetuneError if that was not made here (see `check_replaceable`), or if the disk does not take the files.
    """
    place = output.resolve()
    with readable_writing(output), _draft(place) as draft:
        check_replaceable(output)
        yield draft
        _let_others_read(draft)
        sync_folder(draft)
        _take_place(draft, place)


def check_replaceable(output: Path) -> None:
    """Raise FinetuneError if something stands at `output` that was not made here: `new_folder` would delete it."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not any((output / name).is_file() for name in MADE_HERE):
        raise FinetuneError(
            f"{output} holds what Versus did not make, and would be replaced: choose another place, or move it away"
        )


def is_unfinished(folder: Path) -> bool:
    """Tell whether a folder is a draft, or waits for its successor: what a killed process left."""
    return _UNFINISHED.fullmatch(folder.name) is not None


@contextmanager
def _draft(place: Path) -> Iterator[Path]:
    """Give an empty folder beside `place`, locked; what is left of it goes at the end."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(place.parent):
        _settle(place)
        draft = Path(tempfile.mkdtemp(prefix=f".{place.name}.new-", dir=place.parent))
        handle = os.open(draft, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: then nobody takes it for a dead one's either
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    try:
        draft.chmod(0o755)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(handle)


def _let_others_read(draft: Path) -> None:
    """Give files and folders the rights of all that Versus writes; safetensors keeps weights to their owner."""
    for path in draft.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _take_place(draft: Path, place: Path) -> None:
    """Let `draft` have the name of `place`; if that fails or is interrupted, what stood there has it again."""
    with _alone_in(place.parent):
        _settle(place)
        try:
            if place.exists():
                place.replace(_former(place))
            draft.replace(place)
        except BaseException:
            _bring_back(place)
            raise
        sync_names(place.parent)
        _discard(_former(place))


def _settle(place: Path) -> None:
    """Clear up after processes that were killed: bring back what stood at `place`, drop drafts that nobody writes."""
    _bring_back(place)
    _discard(_former(place))
    name = re.compile(re.escape(f".{place.name}.new-") + r"\w{8}")
    for path in place.parent.iterdir():
        if name.fullmatch(path.name) and not _in_use(path):
            shutil.rmtree(path, ignore_errors=True)


def _bring_back(place: Path) -> None:
    """Give what stood at `place` its name again if its successor never came."""
    if _former(place).exists() and not place.exists():
        _former(place).replace(place)


def _discard(folder: Path) -> None:
    """Delete what waited for its successor, under a draft's name: deleted by half, it must not be brought back."""
    if folder.exists():
        rubbish = folder.with_name(f"{folder.name.removesuffix(FORMER)}.new-{secrets.token_hex(4)}")
        folder.replace(rubbish)
        shutil.rmtree(rubbish, ignore_errors=True)


def _former(place: Path) -> Path:
    return place.with_name(f".{place.name}{FORMER}")


def _in_use(draft: Path) -> bool:
    """Tell whether a living process holds a draft, or may do so where the file system cannot say."""
    try:
        handle = os.open(draft, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process begins or ends a write in `folder`, and keep others waiting for the block."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
