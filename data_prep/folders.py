"""Somebody's folder of documents into a corpus: converted, listed in the manifest, pictures kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from data_prep.convert import KINDS, Converted, Source, convert_file
from data_prep.converting.guarded import GuardedConverter
from data_prep.converting.profiles import Profile
from data_prep.errors import CorpusError, DataError
from data_prep.intake import PICTURE_SUFFIXES, Intake, ScrapeReport, document_id

__all__ = ["ScrapeReport", "document_id", "scrape_files", "take_files"]

_HARMLESS = frozenset({"markdown", "text"})
"""Kinds that are read with a few linear passes: no process of their own is started for them."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _File:
    """One file to convert, and the folder it must not point out of."""

    path: Path
    root: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    @property
    def kind(self) -> str:
        return KINDS[self.path.suffix.lower()]


def scrape_files(
    sources: Sequence[Path],
    corpus_path: Path,
    *,
    language: str = "en",
    licence: str | None = None,
    profiles: Sequence[Profile] = (),
    progress: Progress | None = None,
) -> ScrapeReport:
    """Convert the documents of folders and files into the corpus at `corpus_path` (see `data_prep.convert`).

    The corpus is made if it is not there; a document that was scraped before is replaced if it changed. A file that
    cannot be read is passed over with its reason and the rest goes on. Raises `CorpusError` if nothing could be read.
    """
    intake = Intake(corpus_path, licence)
    take_files(intake, sources, profiles=profiles, progress=progress)
    return intake.finish(", ".join(map(str, sources)), language=language)


def take_files(
    intake: Intake, sources: Sequence[Path], *, profiles: Sequence[Profile] = (), progress: Progress | None = None
) -> None:
    """Take the documents of folders and files into a corpus that is being made."""
    files = list(_files(sources, intake))
    taken: dict[str, str] = {}
    with GuardedConverter() as converter:
        for number, file in enumerate(files, start=1):
            name = document_id(file.name)
            if name in taken:
                intake.skip(file.name, f"would take the id {name!r} of {taken[name]}; rename one of them")
            else:
                taken[name] = file.name
                _take(intake, converter, file, name, tuple(profiles))
            if progress is not None:
                progress(number, len(files))


def _take(intake: Intake, converter: GuardedConverter, file: _File, name: str, profiles: tuple[Profile, ...]) -> None:
    try:
        documents = _converted(converter, file, profiles)
    except DataError as error:
        intake.skip(file.name, str(error))
    else:
        intake.take(name, file.name, documents, lambda target: _picture(file, target))


def _converted(converter: GuardedConverter, file: _File, profiles: tuple[Profile, ...]) -> list[Converted]:
    if file.kind in _HARMLESS:
        return convert_file(file.path, profiles)
    return converter.convert(file.path, Source(file.kind, file.path.stem, profiles=profiles))


def _files(sources: Sequence[Path], intake: Intake) -> Iterator[_File]:
    for source in sources:
        if source.is_dir():
            yield from _folder(source, intake)
        elif source.is_file() and source.suffix.lower() in KINDS:
            yield _File(source, source.parent)
        elif source.is_file():
            intake.skip(source.name, f"files of kind {source.suffix or 'without ending'} are not read")
        else:
            raise CorpusError(f"{source} does not exist; give a folder or a file")


def _folder(folder: Path, intake: Intake) -> Iterator[_File]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(part.startswith(".") for part in name.split("/")):
            continue
        if path.suffix.lower() in PICTURE_SUFFIXES:
            continue
        if path.suffix.lower() not in KINDS:
            intake.skip(name, f"files of kind {path.suffix or 'without ending'} are not read")
        elif not path.resolve().is_relative_to(folder.resolve()):
            intake.skip(name, "is a link that leaves the folder")
        else:
            yield _File(path, folder)


def _picture(file: _File, target: str) -> tuple[str, bytes] | None:
    """Return the local picture that a document links to; none that lies outside the folder."""
    if "://" in target:
        return None
    try:
        picture = file.path.parent / unquote(target.split("#")[0].split("?")[0])
        inside = picture.resolve().is_relative_to(file.root.resolve())
        if picture.suffix.lower() not in PICTURE_SUFFIXES or not inside or not picture.is_file():
            return None
        return picture.name, picture.read_bytes()
    except (OSError, ValueError):
        return None
