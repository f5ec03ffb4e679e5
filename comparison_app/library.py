"""The documents behind the answers, for the app and the documents API: listed, searched, changed, indexed again.

The corpora that ship with Versus are read only; a copy in the workspace is one's own. Re-indexing runs in a thread:
those who ask meanwhile are answered from the index as it was.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from comparison_app.arms import calibrated
from comparison_app.errors import ComparisonError
from comparison_app.first_imports import import_haystack
from comparison_app.first_index import ensure_index
from comparison_app.indexes import open_retriever, open_store, rag_config, update_index
from comparison_app.uploads import Upload, take_in
from comparison_app.workspace import Workspace
from data_prep.atomic import write_text
from data_prep.corpus import SAMPLE_CORPORA, Corpus, ManifestEntry, load_corpus, title_of, write_manifest
from data_prep.errors import VersusError
from data_prep.folders import ScrapeReport

if TYPE_CHECKING:
    from haystack import Document

    from rag.indexing import IndexReport
    from rag.refining import Search

LONGEST_DOCUMENT = 2_000_000
_NAME = re.compile(r"[\w][\w.\-]{0,79}")


@dataclass(frozen=True)
class CorpusInfo:
    """One corpus at a glance."""

    name: str
    path: Path
    documents: int
    language: str
    description: str
    editable: bool


@dataclass
class Reindexing:
    """A re-indexing under way or finished: chunks embedded `done` of `total`, then a `report` or an `error`.

    `first`: nothing was indexed before, so that answers wait for it. `stage`: what is being done, in words.
    """

    corpus: str
    first: bool = False
    stage: str = "Reading the documents"
    done: int = 0
    total: int = 0
    report: IndexReport | None = None
    error: str | None = None
    finished: threading.Event = field(default_factory=threading.Event)

    def progress(self, done: int, total: int) -> None:
        """Note how far it is."""
        self.done, self.total = done, total
        self.stage = f"Embedding {done:,} of {total:,} passages"


class Library:
    """The corpora of one workspace; `on_indexed` is called with each corpus whose index was brought up to date."""

    def __init__(self, workspace: Workspace, on_indexed: Callable[[Corpus], None] | None = None) -> None:
        self.workspace = workspace
        self._on_indexed = on_indexed
        self._retrievers: dict[str, Search] = {}
        self._running: dict[str, Reindexing] = {}
        self._lock = threading.Lock()

    def corpora(self) -> list[CorpusInfo]:
        """Return the corpora that can be named: one's own first, then those that ship."""
        found: dict[str, CorpusInfo] = {}
        for folder in (self.workspace.corpora, SAMPLE_CORPORA):
            for settings in sorted(folder.glob("*/corpus.toml")):
                try:
                    corpus = load_corpus(settings.parent)
                except VersusError:
                    continue
                found.setdefault(corpus.name, info(corpus))
        return list(found.values())

    def text(self, corpus: Corpus, document: str) -> str:
        """Return a document's text as it was indexed, or as it stands if it is not in the index; "" if unknown."""
        source = self.retriever(corpus).store.source(document)
        if source is not None:
            return source.content or ""
        path = _path(corpus, document)
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def search(self, corpus: Corpus, query: str, *, about: str | None = None, top_k: int = 10) -> list[Document]:
        """Return the best chunks for a query; their meta's `scores` holds the score of each stage."""
        found: list[Document] = self.retriever(corpus).retrieve_many([query[:5000]], [about], top_k)[0]
        return found

    def retriever(self, corpus: Corpus) -> Search:
        """Return the retriever of a corpus under the default settings, its index made first if there is none."""
        import_haystack()
        key = str(corpus.path.resolve())
        if key not in self._retrievers:
            ensure_index(self.workspace, corpus)
        with self._lock:
            if key not in self._retrievers:
                self._retrievers[key] = open_retriever(self.workspace, corpus, rag_config())
            return self._retrievers[key]

    def is_indexed(self, corpus: Corpus) -> bool:
        """Tell whether there is an index to answer from; the file of one whose making was cut short is none."""
        return open_store(self.workspace, corpus, rag_config()).generation > 0

    def reindexing(self, corpus: Corpus) -> Reindexing | None:
        """Return the last re-indexing of a corpus in this process; None if there was none."""
        return self._running.get(str(corpus.path.resolve()))

    def reindex(self, corpus: Corpus, *, include_new: bool = False) -> Reindexing:
        """Bring the index up to the documents in a thread; returns the one under way if there is one."""
        key, first = str(corpus.path.resolve()), not self.is_indexed(corpus)
        with self._lock:
            running = self._running.get(key)
            if running is not None and not running.finished.is_set():
                return running
            task = self._running[key] = Reindexing(corpus.name, first)
        arguments = (task, load_corpus(corpus.path), include_new)
        threading.Thread(target=self._index, args=arguments, name=f"index-{corpus.name}", daemon=True).start()
        return task

    def add(self, name: str, files: Sequence[Upload]) -> ScrapeReport:
        """Take files into the corpus `name` of the workspace, a new one if need be, and index it in a thread."""
        folder = self.workspace.corpora / check_name(name)
        report = take_in(list(files), folder)
        self.reindex(load_corpus(folder))
        return report

    def _index(self, task: Reindexing, corpus: Corpus, include_new: bool) -> None:
        try:
            import_haystack()
            task.report = update_index(
                self.workspace, corpus, rag_config(), include_new=include_new, progress=task.progress
            )
            task.stage = "Finding out on the dev questions when to decline"
            with suppress(VersusError):  # who asks is told
                calibrated(rag_config(), self.retriever(corpus), corpus)
            if self._on_indexed is not None:
                self._on_indexed(corpus)
        except VersusError as error:
            task.error = str(error)
        except Exception as error:  # a thread has nobody above it
            task.error = f"{type(error).__name__}: {error}"
        finally:
            task.finished.set()


def info(corpus: Corpus) -> CorpusInfo:
    """Return a corpus at a glance."""
    count = len(corpus.document_ids(include_new=True))
    return CorpusInfo(corpus.name, corpus.path, count, corpus.language, corpus.description, is_editable(corpus))


def is_editable(corpus: Corpus) -> bool:
    """Tell whether a corpus is one's own: those that ship with Versus are not changed."""
    return not corpus.path.resolve().is_relative_to(SAMPLE_CORPORA.resolve())


def check_name(name: str) -> str:
    """Return a name for a corpus or a document, stripped; raises `ComparisonError` if it could not be a file's."""
    name = name.strip()
    if not _NAME.fullmatch(name) or ".." in name:
        raise ComparisonError(f"the name {name[:40]!r} will not do: use letters, digits, dots, dashes, at most 80")
    return name


def copy_corpus(corpus: Corpus, name: str, workspace: Workspace) -> Corpus:
    """Copy a corpus into the workspace under a new name, to change it there."""
    target = workspace.corpora / check_name(name)
    if target.exists() or (SAMPLE_CORPORA / name).exists():
        raise ComparisonError(f"there is a corpus {name!r} already; choose another name")
    try:
        shutil.copytree(corpus.path, target)
    except OSError as error:
        raise ComparisonError(f"{target}: cannot be written ({error.strerror or error})") from error
    return load_corpus(target)


def read_document(corpus: Corpus, document: str) -> str:
    """Return a document's markdown as it stands on disk."""
    path = _path(corpus, document)
    if not path.is_file():
        raise ComparisonError(f"corpus {corpus.name} has no document {document!r}")
    return path.read_text(encoding="utf-8")


def linked_document(corpus: Corpus, link: str) -> str | None:
    """Return the id of the document of the same corpus that a document's link leads to; None if it leads elsewhere."""
    parts = urlsplit(link)
    name = Path(unquote(parts.path)).name
    if parts.scheme or parts.netloc or not name.endswith(".md"):
        return None
    return name.removesuffix(".md") if _path(corpus, name.removesuffix(".md")).is_file() else None


def write_document(corpus: Corpus, document: str, text: str) -> ManifestEntry:
    """Write a document, new or changed, and note it in the manifest; it is found once the corpus is indexed again."""
    _check_editable(corpus)
    document = check_name(document)
    if not text.strip():
        raise ComparisonError("a document needs text; to remove it, delete it")
    if len(text) > LONGEST_DOCUMENT:
        raise ComparisonError(f"the document has {len(text):,} characters; at most {LONGEST_DOCUMENT:,} are kept")
    text = text.replace("\r\n", "\n").rstrip() + "\n"
    path = _path(corpus, document)
    entries = dict(load_corpus(corpus.path).manifest)
    old = entries.get(document)
    entry = ManifestEntry(
        document,
        title_of(text, document),
        path.relative_to(corpus.path).as_posix(),
        old.source if old else None,
        hashlib.sha256(text.encode()).hexdigest(),
        old.licence if old else corpus.licence,
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_text(path, text)
    write_manifest(corpus.path, {**entries, document: entry}.values())
    return entry


def delete_document(corpus: Corpus, document: str) -> None:
    """Remove a document and its entry in the manifest; a corpus keeps at least one document."""
    _check_editable(corpus)
    path = _path(corpus, document)
    if not path.is_file():
        raise ComparisonError(f"corpus {corpus.name} has no document {document!r}")
    if len(corpus.document_ids(include_new=True)) == 1:
        raise ComparisonError("the last document of a corpus cannot be deleted; add another one first")
    entries = {key: entry for key, entry in load_corpus(corpus.path).manifest.items() if key != document}
    path.unlink()
    write_manifest(corpus.path, entries.values())


def _check_editable(corpus: Corpus) -> None:
    if not is_editable(corpus):
        raise ComparisonError(f"{corpus.name} ships with Versus and stays as it is; copy it to change the copy")


def _path(corpus: Corpus, document: str) -> Path:
    """Return where a document lies, or would lie; never outside the corpus."""
    for folder in ("new_documents", "documents"):
        path = corpus.path / folder / f"{document}.md"
        if path.is_file() and path.resolve().is_relative_to(corpus.path.resolve()):
            return path
    return corpus.path / "documents" / f"{Path(document).name}.md"
