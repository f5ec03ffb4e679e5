"""Files that are ZIP archives inside (DOCX, EPUB), read with limits: what a header promises is not believed."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from data_prep.errors import DataError

MAX_MEMBERS = 10_000
MAX_MEMBER_BYTES = 50_000_000
MAX_TOTAL_BYTES = 300_000_000
MAX_RATIO = 200
"""Unpacked to packed bytes of an archive; documents reach about 20, archives made to explode thousands."""
_FREE_BYTES = 5_000_000
"""Small archives may be packed as tightly as they like."""


class Archive:
    """An archive whose members are read one by one, each no further than the limits allow."""

    def __init__(self, data: bytes, kind: str) -> None:
        self.kind = kind
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            infos = self._zip.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise DataError(f"not a {kind} file: {error}") from error
        if len(infos) > MAX_MEMBERS:
            raise DataError(f"the {kind} file holds {len(infos)} parts, more than {MAX_MEMBERS}")
        total = sum(info.file_size for info in infos)
        if total > MAX_TOTAL_BYTES or total > max(MAX_RATIO * len(data), _FREE_BYTES):
            raise DataError(
                f"the {kind} file would unpack to {total // 1_000_000} MB: it is made to explode, or too large"
            )
        if any(info.flag_bits & 0x1 for info in infos):
            raise DataError(f"the {kind} file is locked; save it without a password")
        self.names = frozenset(info.filename for info in infos)
        self._read_bytes = 0

    def read(self, name: str) -> bytes:
        """Return a member; raises `DataError` if it is not there, is damaged, or is larger than it says."""
        try:
            with self._zip.open(name) as member:
                data = member.read(MAX_MEMBER_BYTES + 1)
        except KeyError as error:
            raise DataError(f"the {self.kind} file lacks its part {name}") from error
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            EOFError,
            NotImplementedError,
            RuntimeError,
            ValueError,
        ) as error:
            raise DataError(f"the {self.kind} file is damaged at its part {name}: {error}") from error
        self._read_bytes += len(data)
        if len(data) > MAX_MEMBER_BYTES or self._read_bytes > MAX_TOTAL_BYTES:
            raise DataError(f"the {self.kind} file unpacks to more than it may: {name}")
        return data
