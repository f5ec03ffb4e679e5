"""A corpus: a folder of markdown documents with a manifest, and the questions asked of them.

```
<name>/
  corpus.toml            format version, language, licence, what it is
  manifest.json          one entry a document: id, title, path, source, sha256, licence, fetched_at, page_offsets
  documents/<id>.md      what is indexed
  assets/                pictures that documents link to
  new_documents/<id>.md  added after training
  questions/{train,dev,test}.jsonl, questions/subsets.json
```
The documents folder is the truth: a document edited by hand is used as it stands, and `verify_manifest` tells.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import write_text
from data_prep.errors import CorpusError, QuestionError
from data_prep.questions import Question, iter_questions

if TYPE_CHECKING:
    from haystack import Document

FORMAT_VERSION = 1
SAMPLE_CORPUS = "tern-manual"
SAMPLE_CORPORA = Path(__file__).resolve().parent.parent / "docs_corpus"
SPLITS = ("train", "dev", "test")
_FOLDERS = ("documents", "new_documents")


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """Where one document came from. `sha256` is of the markdown file's bytes; `path` is relative to the corpus."""

    id: str
    title: str
    path: str
    source: str | None = None
    sha256: str | None = None
    licence: str | None = None
    fetched_at: str | None = None
    page_offsets: tuple[int, ...] | None = None
    anchors: tuple[tuple[int, str], ...] | None = None
    """Character offsets in the document, and the ids by which a link to the source names these places."""


@dataclass(frozen=True)
class Corpus:
    """A corpus that was found and read; documents and questions are read from disk when asked for."""

    path: Path
    name: str
    language: str = "en"
    licence: str | None = None
    description: str = ""
    manifest: Mapping[str, ManifestEntry] = field(default_factory=dict, repr=False)

    def documents(self, include_new: bool = False) -> list[Document]:
        """Return the documents, sorted by id, as Haystack documents whose content is the markdown.

        Their meta holds title, path, source and language. With `include_new`, the documents of `new_documents/` are
        among them; one with the id of an older document takes its place.
        """
        from haystack import Document

        return [
            Document(id=name, content=text, meta=self._meta(name, path, text))
            for name, path, text in self._texts(include_new)
        ]

    def texts(self, include_new: bool = False) -> dict[str, str]:
        """Return the documents' markdown by id, sorted; what `documents` returns, without Haystack."""
        return {name: text for name, _, text in self._texts(include_new)}

    def document_ids(self, include_new: bool = False) -> list[str]:
        """Return the ids of the documents, sorted."""
        return sorted(self._paths(include_new))

    def new_document_ids(self) -> set[str]:
        """Return the ids of the documents that are added after training."""
        return {path.stem for path in (self.path / "new_documents").glob("*.md")}

    def questions(self, split: str) -> list[Question]:
        """Return the questions of one split, or none if the corpus has no such file.

        Raises `QuestionError` that names file and line for a broken line, and for evidence that does not lie in its
        document.
        """
        path = self.path / "questions" / f"{split}.jsonl"
        return [question for _, question in self._checked_questions(path)] if path.exists() else []

    def subset(self, name: str) -> frozenset[str]:
        """Return the facts of a nested subset (`questions/subsets.json`); raises `CorpusError` for an unknown name."""
        subsets = self._subsets()
        if name not in subsets:
            known = ", ".join(subsets) or "none"
            raise CorpusError(f"corpus {self.name} has no subset {name!r}; it has: {known}")
        return frozenset(subsets[name])

    def subset_names(self) -> list[str]:
        """Return the names of the nested subsets, none if the corpus has none; raises `CorpusError` as `subset`."""
        return list(self._subsets())

    def _subsets(self) -> dict[str, list[str]]:
        path = self.path / "questions" / "subsets.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise CorpusError(f"{path}: not JSON: {error}") from error
        if not isinstance(found, dict):
            raise CorpusError(f"{path}: must be an object of names and facts; `versus questions split --subsets`")
        return found

    def fingerprint(self, include_new: bool = False) -> str:
        """Return the SHA-256 over all ids and texts: it changes when any document does."""
        digest = hashlib.sha256()
        for name, _, text in self._texts(include_new):
            digest.update(f"{name}\0{text}\0".encode())
        return digest.hexdigest()

    def _paths(self, include_new: bool) -> dict[str, Path]:
        folders = _FOLDERS if include_new else _FOLDERS[:1]
        return {path.stem: path for folder in folders for path in (self.path / folder).glob("*.md")}

    def _texts(self, include_new: bool) -> Iterator[tuple[str, Path, str]]:
        for name, path in sorted(self._paths(include_new).items()):
            yield name, path, _read_document(path)

    def _meta(self, name: str, path: Path, text: str) -> dict[str, Any]:
        entry = self.manifest.get(name)
        return {
            "title": entry.title if entry else title_of(text, name),
            "path": path.relative_to(self.path).as_posix(),
            "source": entry.source if entry else None,
            "language": self.language,
        }

    def _checked_questions(self, path: Path) -> Iterator[tuple[int, Question]]:
        old, new = ({file.stem: file for file in (self.path / name).glob("*.md")} for name in _FOLDERS)
        lengths: dict[Path, int] = {}
        for number, question in iter_questions(path):
            first, second = (new, old) if question.slice == "new-document" else (old, new)
            for evidence in question.evidence:
                file = first.get(evidence.document) or second.get(evidence.document)
                if file is None:
                    raise QuestionError(f"{path}, line {number}: there is no document {evidence.document!r}")
                if evidence.end is not None and file not in lengths:
                    lengths[file] = len(_read_document(file))
                if evidence.end is not None and evidence.end > lengths[file]:
                    raise QuestionError(
                        f"{path}, line {number}: evidence {evidence.start}:{evidence.end} lies outside the document "
                        f"{evidence.document!r}, which has {lengths[file]} characters"
                    )
            yield number, question


def find_corpus(name_or_path: str, workspace: Path | None = None) -> Path:
    """Return the folder of a corpus, given by path or by its name in the workspace's `corpora/` or `docs_corpus/`."""
    places = [Path(name_or_path)]
    if Path(name_or_path).name == name_or_path:
        places += [workspace / "corpora" / name_or_path] if workspace else []
        places.append(SAMPLE_CORPORA / name_or_path)
    for place in places:
        if (place / "corpus.toml").is_file():
            return place
    raise CorpusError(
        f"no corpus {name_or_path!r}: looked for corpus.toml in {', '.join(str(place) for place in places)}; "
        f"`versus scrape FOLDER --into {name_or_path}` makes one"
    )


def load_corpus(path: Path) -> Corpus:
    """Read a corpus's description and manifest; raises `CorpusError` if it is missing, broken or holds no document."""
    settings = _read_settings(path / "corpus.toml")
    corpus = Corpus(
        path=path,
        name=path.resolve().name,
        language=settings.get("language", "en"),
        licence=settings.get("licence"),
        description=settings.get("description", ""),
        manifest=_read_manifest(path / "manifest.json"),
    )
    if not corpus.document_ids(include_new=True):
        raise CorpusError(f"corpus {path} holds no documents; put markdown files in {path / 'documents'}")
    return corpus


def title_of(text: str, fallback: str) -> str:
    """Return the first heading of a markdown text, or `fallback` made readable."""
    for line in text.split("\n"):
        marks = len(line) - len(line.lstrip("#"))
        if 1 <= marks <= 6 and line[marks : marks + 1].isspace():
            title = line[marks:].strip().rstrip("#").rstrip()
            if title:
                return title
    return fallback.replace("_", " ").replace("-", " ").strip().capitalize()


def write_settings(path: Path, *, language: str, licence: str | None, description: str) -> None:
    """Write `corpus.toml` of the corpus at `path`."""
    values = {
        "format_version": FORMAT_VERSION,
        "language": language,
        "licence": licence,
        "description": description,
    }
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items() if value is not None]
    write_text(path / "corpus.toml", "".join(lines))


def write_manifest(path: Path, entries: Iterable[ManifestEntry]) -> None:
    """Write `manifest.json` of the corpus at `path`, one entry a line, sorted by id."""
    rows = [json.dumps(_row(entry), ensure_ascii=False) for entry in sorted(entries, key=lambda entry: entry.id)]
    write_text(path / "manifest.json", "[\n" + ",\n".join(rows) + "\n]\n")


def verify_manifest(corpus: Corpus) -> list[str]:
    """Return one line for each document whose bytes are not those of the manifest, or that only one of them has."""
    files = {path.relative_to(corpus.path).as_posix(): path for path in corpus.path.glob("*documents/*.md")}
    listed = {entry.path: entry for entry in corpus.manifest.values()}
    unlisted = [f"{name} is not in the manifest" for name in sorted(files.keys() - listed.keys())]
    missing = [f"{name} is in the manifest but not on disk" for name in sorted(listed.keys() - files.keys())]
    changed = [
        f"{name} differs from the manifest's sha256"
        for name in sorted(files.keys() & listed.keys())
        if hashlib.sha256(files[name].read_bytes()).hexdigest() != listed[name].sha256
    ]
    return unlisted + missing + changed


def _read_document(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CorpusError(f"{path} does not exist; `versus scrape FOLDER --into NAME` makes a corpus") from error
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path}: {error}") from error
    if settings.get("format_version") != FORMAT_VERSION:
        raise CorpusError(f"{path}: format_version is {settings.get('format_version')!r}; this version reads 1")
    return settings


def _read_manifest(path: Path) -> dict[str, ManifestEntry]:
    if not path.exists():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        entries = [_entry(row) for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise CorpusError(f"{path}: not a manifest: {error}; `versus scrape` writes it anew") from error
    return {entry.id: entry for entry in entries}


def _row(entry: ManifestEntry) -> dict[str, Any]:
    row = asdict(entry)
    if entry.anchors is None:
        del row["anchors"]
    return row


def _entry(row: dict[str, Any]) -> ManifestEntry:
    pages, anchors = row.get("page_offsets"), row.get("anchors")
    return ManifestEntry(
        **{
            **row,
            "page_offsets": None if pages is None else tuple(pages),
            "anchors": None if anchors is None else tuple((int(offset), str(name)) for offset, name in anchors),
        }
    )
