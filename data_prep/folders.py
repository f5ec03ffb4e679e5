"""Somebody's folder of documents into a corpus: converted, listed in the manifest, pictures kept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from data_prep.atomic import write_bytes, write_text
from data_prep.convert import MARKDOWN_SUFFIXES, TEXT_SUFFIXES, convert_file
from data_prep.corpus import ManifestEntry, load_corpus, write_manifest, write_settings
from data_prep.errors import CorpusError, DataError

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg"})
_PICTURE = re.compile(r"(!\[[^\]]*\]\()([^)\s]+)((?:\s+\"[^\"]*\")?\))")


@dataclass(frozen=True)
class ScrapeReport:
    """What a scrape did: document ids, and for each file passed over the reason."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Source:
    """One file to convert, and the folder it must not point out of."""

    path: Path
    root: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(self.root).as_posix()


def scrape_files(
    sources: Sequence[Path], corpus_path: Path, *, language: str = "en", licence: str | None = None
) -> ScrapeReport:
    """Convert the markdown and text files of folders and files into the corpus at `corpus_path`.

    The corpus is made if it is not there; a document that was scraped before is replaced if it changed. A file that
    cannot be read is passed over with its reason and the rest goes on. Raises `CorpusError` if nothing could be read.
    """
    report = ScrapeReport()
    entries = dict(load_corpus(corpus_path).manifest) if (corpus_path / "corpus.toml").exists() else {}
    taken: dict[str, str] = {}
    for source in _files(sources, report):
        name = document_id(source.name)
        if name in taken:
            report.skipped[source.name] = f"would take the id {name!r} of {taken[name]}; rename one of them"
            continue
        taken[name] = source.name
        try:
            entries[name] = _scrape_one(source, name, corpus_path, entries.get(name), licence, report)
        except DataError as error:
            report.skipped[source.name] = str(error)
    if not entries:
        reasons = "; ".join(list(report.skipped.values())[:3]) or "no markdown or text file in it"
        raise CorpusError(f"nothing to read in {', '.join(map(str, sources))}: {reasons}")
    if not (corpus_path / "corpus.toml").exists():
        write_settings(corpus_path, language=language, licence=licence, description=f"Documents of {corpus_path.name}.")
    write_manifest(corpus_path, entries.values())
    return report


def document_id(relative_path: str) -> str:
    """Return a document's id: its path without the ending, with `__` between folders and other signs as `-`."""
    stem = relative_path.rsplit(".", 1)[0] if "." in relative_path.rsplit("/", 1)[-1] else relative_path
    return re.sub(r"[^\w.\-]+", "-", stem.replace("/", "__")).strip("-.") or "document"


def _files(sources: Sequence[Path], report: ScrapeReport) -> Iterator[_Source]:
    for source in sources:
        if source.is_file():
            yield _Source(source, source.parent)
        elif source.is_dir():
            yield from _folder(source, report)
        else:
            raise CorpusError(f"{source} does not exist; give a folder or a file")


def _folder(folder: Path, report: ScrapeReport) -> Iterator[_Source]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(part.startswith(".") for part in name.split("/")):
            continue
        if path.suffix.lower() in PICTURE_SUFFIXES:
            continue
        if path.suffix.lower() not in MARKDOWN_SUFFIXES | TEXT_SUFFIXES:
            report.skipped[name] = f"files of kind {path.suffix or 'without ending'} are not read"
        elif not path.resolve().is_relative_to(folder.resolve()):
            report.skipped[name] = "is a link that leaves the folder"
        else:
            yield _Source(path, folder)


def _scrape_one(
    source: _Source, name: str, corpus: Path, old: ManifestEntry | None, licence: str | None, report: ScrapeReport
) -> ManifestEntry:
    converted = convert_file(source.path)
    markdown = _keep_pictures(converted.markdown, source, corpus)
    digest = hashlib.sha256(markdown.encode("utf-8")).hexdigest()
    path = corpus / "documents" / f"{name}.md"
    if old is not None and old.sha256 == digest and path.exists():
        report.unchanged.append(name)
        return old
    (report.added if old is None else report.changed).append(name)
    write_text(path, markdown)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return ManifestEntry(name, converted.title, f"documents/{name}.md", source.name, digest, licence, now)


def _keep_pictures(markdown: str, source: _Source, corpus: Path) -> str:
    """Copy the local pictures that `markdown` links to into `assets/`, and point the links there."""

    def keep(match: re.Match[str]) -> str:
        picture = source.path.parent / match.group(2)
        inside = picture.resolve().is_relative_to(source.root.resolve())
        if "://" in match.group(2) or picture.suffix.lower() not in PICTURE_SUFFIXES:
            return match.group()
        if not inside or not picture.is_file():
            return match.group()
        data = picture.read_bytes()
        name = f"{hashlib.sha256(data).hexdigest()[:8]}-{re.sub(r'[^A-Za-z0-9.-]+', '-', picture.name)}"
        write_bytes(corpus / "assets" / name, data)
        return f"{match.group(1)}../assets/{name}{match.group(3)}"

    return _PICTURE.sub(keep, markdown)
