"""Conversion in a process of its own, with limits of time and memory: a file made to harm costs itself only.

The process is started once and used for many files. It is ended when a file takes too long without a sign of life, and
anew after some hundred files, so that memory stays flat. What passes between the two is JSON.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from data_prep.convert import Source, convert_bytes, limit
from data_prep.converting.charsets import decode
from data_prep.converting.profiles import Profile
from data_prep.converting.result import Converted, Picture
from data_prep.errors import DataError

SECONDS = 10.0
"""Without a sign of life; larger files get `_SECONDS_A_MEGABYTE` more."""
MEMORY_BYTES = 4_000_000_000
FILES_A_PROCESS = 400
_SECONDS_A_MEGABYTE = 5.0
_START_SECONDS = 60.0
_SIGN_OF_LIFE = b"."


class GuardedConverter:
    """Converts files one after the other in a process of its own; use it as a context."""

    def __init__(self, *, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES) -> None:
        self._seconds, self._memory = seconds, memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process_id(self) -> int | None:
        """The id of the process that converts, None while there is none."""
        return self._process.pid if self._process is not None else None

    def convert(self, path: Path, source: Source) -> list[Converted]:
        """Convert the file at `path`; raises `DataError` (without its name) if it cannot be read within the limits."""
        return [_from_json(row) for row in self._ask("documents", path, source)]

    def listings(self, path: Path, source: Source) -> list[dict[str, Any]]:
        """Return the rows of products and ads on the page at `path`; raises `DataError` as `convert` does."""
        return self._ask("listings", path, source)

    def _ask(self, job: str, path: Path, source: Source) -> list[dict[str, Any]]:
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(error.strerror or "cannot be read") from error
        if size > limit(source.kind):
            raise DataError(f"{size // 1_000_000} MB, more than {limit(source.kind) // 1_000_000} MB; split it")
        process = self._ready()
        seconds = self._seconds + _SECONDS_A_MEGABYTE * size / 1_000_000
        try:
            request = json.dumps({"job": job, "path": str(path.absolute()), "source": asdict(source)})
            _pipe(process.stdin, writable=True).send_bytes(request.encode())
            answer = self._answer(_pipe(process.stdout), seconds)
        except (EOFError, OSError) as error:
            self.close()
            raise DataError("its conversion crashed, or needed more memory than it may") from error
        if "error" in answer:
            raise DataError(answer["error"])
        found: list[dict[str, Any]] = answer[job]
        return found

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process.wait()
        self._process = None

    def _answer(self, pipe: Connection, seconds: float) -> dict[str, Any]:
        while True:
            if not pipe.poll(seconds):
                self.close()
                return {"error": f"its conversion took longer than {seconds:.0f} s"}
            message = pipe.recv_bytes()
            if message != _SIGN_OF_LIFE:
                answer: dict[str, Any] = json.loads(message)
                return answer

    def _ready(self) -> subprocess.Popen[bytes]:
        """Return a running process: a new one if there is none, or the old one has ended or done its share."""
        if self._process is not None and (self._files >= FILES_A_PROCESS or self._process.poll() is not None):
            self.close()
        if self._process is None:
            command = [sys.executable, "-m", __name__, str(self._memory)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            self._files = 0
            answers = _pipe(self._process.stdout)
            if not answers.poll(_START_SECONDS) or answers.recv_bytes() != _SIGN_OF_LIFE:
                self.close()
                raise DataError("the process that converts files did not start")
        self._files += 1
        return self._process


class _Borrowed(Connection):
    """A connection over a stream that its owner closes."""

    def __del__(self) -> None:
        self._handle = None


def _pipe(stream: IO[bytes] | None, *, writable: bool = False) -> Connection:
    if stream is None:
        raise DataError("the process that converts files did not start")
    return _Borrowed(stream.fileno(), readable=not writable, writable=writable)


def serve(memory_bytes: int) -> None:
    """Answer requests on standard input until it is closed; runs in the process of its own.

    Whatever a library prints goes to standard error, so that standard output holds answers only.
    """
    import logging
    import os

    logging.disable(logging.CRITICAL)
    answers = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)
    requests = Connection(os.dup(0), writable=False)
    _limit_memory(memory_bytes)
    _load()
    answers.send_bytes(_SIGN_OF_LIFE)
    while True:
        try:
            request = json.loads(requests.recv_bytes())
        except (EOFError, OSError):
            return
        answers.send_bytes(json.dumps(_reply(request, answers)).encode())


def _reply(request: dict[str, Any], pipe: Connection) -> dict[str, Any]:
    try:
        row = request["source"]
        profiles = tuple(_profile(profile) for profile in row["profiles"])
        data = Path(request["path"]).read_bytes()
        source = Source(**{**row, "profiles": profiles})
        if request["job"] == "listings":
            from data_prep.listing_pages import rows_of_page

            return {"listings": rows_of_page(decode(data, source.charset), source.url)}
        found = convert_bytes(data, source, lambda: pipe.send_bytes(_SIGN_OF_LIFE))
        return {"documents": [_to_json(document) for document in found]}
    except DataError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "its conversion needs more memory than it may have"}
    except RecursionError:
        return {"error": "its parts are nested too deep"}
    except Exception as error:  # one file that breaks a converter must not end the scrape; the reason is reported
        return {"error": f"its conversion failed: {type(error).__name__}: {str(error)[:200]}"}


def _profile(row: dict[str, Any]) -> Profile:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return Profile(**values)


def _limit_memory(memory_bytes: int) -> None:
    if sys.platform != "win32":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        with contextlib.suppress(ValueError, OSError):  # some systems know the limit and do not let it be set
            resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _load() -> None:
    """Import what nearly every page needs, so that the first file's time is its own."""
    import lxml.html  # type: ignore[import-untyped]  # noqa: F401
    import trafilatura  # noqa: F401


def _to_json(document: Converted) -> dict[str, Any]:
    row = asdict(document)
    row["pictures"] = [[picture.name, base64.b64encode(picture.data).decode()] for picture in document.pictures]
    return row


def _from_json(row: dict[str, Any]) -> Converted:
    return Converted(
        title=row["title"],
        markdown=row["markdown"],
        part=row["part"],
        pages=None if row["pages"] is None else tuple(row["pages"]),
        anchors=tuple((int(offset), str(name)) for offset, name in row["anchors"]),
        pictures=tuple(Picture(name, base64.b64decode(data)) for name, data in row["pictures"]),
        notes=tuple(row["notes"]),
    )


if __name__ == "__main__":
    serve(int(sys.argv[1]))
