"""Converted documents into a corpus: ids, pictures, manifest, and a report of what was added, kept and passed over."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from data_prep.atomic import write_bytes, write_text
from data_prep.converting.result import Converted, relinked
from data_prep.corpus import ManifestEntry, load_corpus, write_manifest, write_settings
from data_prep.errors import CorpusError

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg"})
MAX_PICTURE_BYTES = 20_000_000
_LONGEST_ID = 120
_ACTIVE_DRAWING = re.compile(rb"<script|\son\w+\s*=|javascript:|<foreignObject|<!ENTITY", re.IGNORECASE)

PictureOf = Callable[[str], tuple[str, bytes] | None]
"""From the target of a picture link to the picture's file name and bytes, or None for one that is not to be had."""


@dataclass(frozen=True)
class ScrapeReport:
    """What a scrape did: document ids; for each source passed over the reason; what of a document could not be read."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


class Intake:
    """Takes documents into the corpus at `path`, one source after the other; `finish` writes the manifest.

    Documents and pictures are written at once, the manifest at the end: an intake that was interrupted is done again,
    and what has not changed since is not written anew.
    """

    def __init__(self, path: Path, licence: str | None = None) -> None:
        self.path, self.report = path, ScrapeReport()
        self._licence = licence
        self._known = dict(load_corpus(path).manifest) if (path / "corpus.toml").exists() else {}
        self._entries: dict[str, ManifestEntry] = {}

    def take(self, name: str, source: str, documents: Sequence[Converted], picture: PictureOf) -> None:
        """Take the documents that were made of one source; `name` is the id of the first or only part."""
        for document in documents:
            part = document_id(document.part + ".md") if document.part else ""
            self._take_one(f"{name}__{part}" if part else name, source, document, picture)

    def skip(self, source: str, reason: str) -> None:
        """Count a source that was passed over."""
        self.report.skipped[source] = reason

    def finish(self, sources: str, *, language: str, description: str | None = None) -> ScrapeReport:
        """Write manifest and settings; raises `CorpusError` if the corpus would hold nothing."""
        entries = {**self._known, **self._entries}
        if not entries:
            reasons = "; ".join(list(self.report.skipped.values())[:3]) or "no document in it"
            raise CorpusError(f"nothing to read in {sources}: {reasons}")
        if not (self.path / "corpus.toml").exists():
            about = description or f"Documents of {self.path.name}."
            write_settings(self.path, language=language, licence=self._licence, description=about)
        write_manifest(self.path, entries.values())
        return self.report

    def names(self) -> list[str]:
        """Return the ids of the documents taken so far."""
        return list(self._entries)

    def text(self, name: str) -> str:
        """Return the markdown of a document that was taken."""
        return (self.path / "documents" / f"{name}.md").read_text(encoding="utf-8")

    def drop(self, name: str, reason: str) -> None:
        """Take a document out again; it counts as passed over."""
        self.skip(self._entries.pop(name).source or name, reason)
        self._known.pop(name, None)
        for names in (self.report.added, self.report.changed, self.report.unchanged):
            if name in names:
                names.remove(name)
        (self.path / "documents" / f"{name}.md").unlink(missing_ok=True)

    def replace(self, name: str, before: str, after: str) -> None:
        """Give a document that was taken another text; its pages and anchors move to where their lines are now.

        A page or an anchor whose line is gone: the page keeps the place of the one before, the anchor is left out.
        """
        from data_prep.intake_cleaning import moved

        if before == after:
            return
        entry = self._entries[name]
        pages, last = [], 0
        for place in moved(list(entry.page_offsets or ()), before, after):
            last = place if place is not None else last
            pages.append(last)
        places = moved([offset for offset, _ in entry.anchors or ()], before, after)
        anchors = [
            (place, key) for place, (_, key) in zip(places, entry.anchors or (), strict=True) if place is not None
        ]
        digest = hashlib.sha256(after.encode("utf-8")).hexdigest()
        entry = replace(
            entry,
            sha256=digest,
            page_offsets=None if entry.page_offsets is None else tuple(pages),
            anchors=tuple(anchors) or None,
        )
        write_text(self.path / "documents" / f"{name}.md", after)
        old = self._known.get(name)
        if old is not None and old.sha256 == digest and name in self.report.changed:
            self.report.changed.remove(name)
            self.report.unchanged.append(name)
            entry = replace(entry, fetched_at=old.fetched_at)
        self._entries[name] = entry

    def _take_one(self, name: str, source: str, document: Converted, picture: PictureOf) -> None:
        if name in self._entries:
            self.skip(source, f"would take the id {name!r} of {self._entries[name].source}; rename one of them")
            return
        document = self._with_pictures(document, source, picture)
        digest = hashlib.sha256(document.markdown.encode("utf-8")).hexdigest()
        old, path = self._known.get(name), self.path / "documents" / f"{name}.md"
        entry = ManifestEntry(
            id=name,
            title=document.title,
            path=f"documents/{name}.md",
            source=source,
            sha256=digest,
            licence=self._licence,
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
            page_offsets=document.pages,
            anchors=document.anchors or None,
        )
        if document.notes:
            self.report.notes[name] = list(document.notes)
        if old is not None and old.sha256 == digest and path.exists():
            self.report.unchanged.append(name)
            entry = replace(entry, fetched_at=old.fetched_at, licence=self._licence or old.licence)
        else:
            (self.report.added if old is None else self.report.changed).append(name)
            write_text(path, document.markdown)
        self._entries[name] = entry

    def _with_pictures(self, document: Converted, source: str, picture: PictureOf) -> Converted:
        """Store the pictures that a document links to in `assets/`, and point the links there.

        A link that leads out of the sources loses its target, and a note says how many did.
        """
        left: list[str] = []
        inside = {f"embedded:{kept.name}": kept for kept in document.pictures}

        def target_of(target: str) -> str | None:
            if (kept := inside.get(target)) is not None:
                return self._store(kept.name, kept.data)
            found = None if target.startswith("embedded:") else picture(target)
            if found is None and _leaves(source, target):
                left.append(target)
                return ""
            return None if found is None else self._store(*found)

        document = relinked(document, target_of)
        note = f"{len(left)} picture links that leave the folder lost their target: {left[0]}" if left else ""
        return replace(document, notes=(*document.notes, note)) if left else document

    def _store(self, name: str, data: bytes) -> str | None:
        suffix = Path(name).suffix.lower()
        drawn = suffix == ".svg" and _ACTIVE_DRAWING.search(data)
        if suffix not in PICTURE_SUFFIXES or drawn or not 0 < len(data) <= MAX_PICTURE_BYTES:
            return None
        stem = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(name).stem)[:60]
        stored = f"{hashlib.sha256(data).hexdigest()[:8]}-{stem}{suffix}"
        if not (self.path / "assets" / stored).exists():
            write_bytes(self.path / "assets" / stored, data)
        return f"../assets/{stored}"


def _leaves(source: str, target: str) -> bool:
    """Tell whether a link that stands in the file `source` (its path under the folder) leads out of that folder."""
    path = unquote(target).replace("\\", "/")
    if not path or "://" in source or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:|//|#", path):
        return path.lower().startswith("file:")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path)).startswith(("..", "/"))


def document_id(relative_path: str) -> str:
    """Return a document's id: its path without the ending, with `__` between folders and other signs as `-`.

    An id that would be too long for a file name ends in a hash of the path instead.
    """
    stem = relative_path.rsplit(".", 1)[0] if "." in relative_path.rsplit("/", 1)[-1] else relative_path
    name = re.sub(r"[^\w.\-]+", "-", stem.replace("/", "__")).strip("-.") or "document"
    if len(name.encode("utf-8")) <= _LONGEST_ID:
        return name
    digest = hashlib.sha256(relative_path.encode("utf-8", "replace")).hexdigest()[:10]
    return f"{name.encode('utf-8')[: _LONGEST_ID - 11].decode('utf-8', 'ignore')}-{digest}"
