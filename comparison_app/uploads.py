"""Files from a browser: unpacked where they are archives, within limits that a zip bomb cannot pass.

Sizes are counted while unpacking, never believed from an archive's headers. What is passed over is said with its
reason.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from comparison_app.errors import ComparisonError
from data_prep.folders import ScrapeReport, take_files
from data_prep.intake import Intake
from data_prep.listing_sources import FEED_SUFFIXES, take_listing_files

LARGEST_FILE = 20_000_000
LARGEST_UPLOAD = 50_000_000
"""Bytes of all files of one upload together, as they arrive."""
LARGEST_UNPACKED = 200_000_000
MOST_FILES = 5_000
MOST_GROWTH = 200
"""How many times larger than its compressed size a file of more than a megabyte may unpack."""
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Upload:
    """One file as it came: its name (with folders where it has some) and its bytes."""

    name: str
    data: bytes


@dataclass
class _Unpacking:
    folder: Path
    skipped: dict[str, str] = field(default_factory=dict)
    files: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        self.documents, self.feeds = self.folder / "documents", self.folder / "feeds"
        self.documents.mkdir()
        self.feeds.mkdir()


def take_in(uploads: Iterable[Upload], corpus: Path, *, language: str = "en") -> ScrapeReport:
    """Convert uploaded files and the files of uploaded zip archives into the corpus at `corpus`; make it if needed.

    Rows of feeds (CSV, TSV, JSONL, JSON) are listings: a record and a document each.

    Raises `VersusError` if the upload is too large, or nothing in it could be read; then nothing was written.
    """
    uploads = list(uploads)
    if not uploads:
        raise ComparisonError("no file was given; choose one or more files, or a zip archive of them")
    whole = sum(len(upload.data) for upload in uploads)
    if whole > LARGEST_UPLOAD:
        raise ComparisonError(
            f"the upload has {whole / 1e6:.0f} MB, at most {LARGEST_UPLOAD / 1e6:.0f} MB are taken at once; "
            "send it in parts, or use `versus scrape` on the machine itself"
        )
    with TemporaryDirectory(prefix="versus-upload-") as name:
        unpacking = _Unpacking(Path(name))
        for upload in uploads:
            if upload.name.lower().endswith(".zip") or (upload.data[:4] == b"PK\x03\x04" and "." not in upload.name):
                _unzip(upload, unpacking)
            else:
                _keep(unpacking, upload.name, upload.data)
        if not unpacking.files:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(unpacking.skipped.items())[:3])
            raise ComparisonError(f"nothing in the upload could be read: {reasons or 'it is empty'}")
        report = _taken(unpacking, corpus, language)
    report.skipped.update(unpacking.skipped)
    return report


def _taken(unpacking: _Unpacking, corpus: Path, language: str) -> ScrapeReport:
    """Take documents as they are, and feeds of listings as one document each row."""
    intake = Intake(corpus)
    take_files(intake, [unpacking.documents])
    take_listing_files(intake, [unpacking.feeds], language=language)
    return intake.finish("the upload", language=language)


def _unzip(upload: Upload, unpacking: _Unpacking) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(upload.data)) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    _unzip_one(archive, entry, unpacking)
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, ValueError) as error:
        unpacking.skipped[upload.name] = f"is not a zip archive that can be read ({error})"


def _unzip_one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, unpacking: _Unpacking) -> None:
    reason = _refused(entry, unpacking)
    if reason is None:
        data = _read(archive, entry, unpacking)
        if isinstance(data, bytes):
            _keep(unpacking, entry.filename, data)
            return
        reason = data
    unpacking.skipped[entry.filename] = reason


def _refused(entry: zipfile.ZipInfo, unpacking: _Unpacking) -> str | None:
    """Say why an archive's entry is not even opened; None if it may be."""
    if unpacking.files >= MOST_FILES:
        return f"the archive holds more than {MOST_FILES:,} files"
    if entry.flag_bits & 0x1:
        return "is encrypted; send it without a password"
    if (entry.external_attr >> 16) & 0o170000 == 0o120000:
        return "is a link"
    if entry.filename.lower().endswith((".zip", ".gz", ".7z", ".rar", ".tar", ".xz", ".bz2")):
        return "is an archive within the archive; unpack it first"
    return None


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, unpacking: _Unpacking) -> bytes | str:
    """Return an entry's bytes, or why it was given up."""
    pieces, size = [], 0
    try:
        with archive.open(entry) as stream:
            while block := stream.read(_BLOCK):
                size += len(block)
                if size > LARGEST_FILE:
                    return f"unpacks to more than {LARGEST_FILE / 1e6:.0f} MB"
                if size > 1_000_000 and size > MOST_GROWTH * max(1, entry.compress_size):
                    return f"unpacks to more than {MOST_GROWTH} times its size, as a zip bomb does"
                if unpacking.size + size > LARGEST_UNPACKED:
                    return f"the archive unpacks to more than {LARGEST_UNPACKED / 1e6:.0f} MB"
                pieces.append(block)
    except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError) as error:
        return f"cannot be unpacked ({error})"
    except Exception as error:  # zlib and lzma have errors of their own
        return f"cannot be unpacked ({type(error).__name__})"
    return b"".join(pieces)


def _keep(unpacking: _Unpacking, name: str, data: bytes) -> None:
    """Write one file under a name that cannot leave the folder."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    if ".." in PurePosixPath(name.replace("\\", "/")).parts or not parts or "\0" in name:
        unpacking.skipped[name] = "its name leads out of the folder"
        return
    folder = unpacking.feeds if PurePosixPath(parts[-1]).suffix.lower() in FEED_SUFFIXES else unpacking.documents
    if len(data) > LARGEST_FILE:
        unpacking.skipped[name] = f"has more than {LARGEST_FILE / 1e6:.0f} MB"
        return
    path = folder.joinpath(*(part[-120:] for part in parts))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        unpacking.skipped[name] = f"cannot be kept under this name ({error.strerror})"
        return
    unpacking.files += 1
    unpacking.size += len(data)
