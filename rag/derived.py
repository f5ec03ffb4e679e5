"""What is derived from the store for fast search: segments (`rag.segments`) that together cover all its rows.

A manifest beside the SQLite file lists the segments in use. A new generation adds a segment of its new chunks; chunks
that are gone are masked out by the store's own list of removed rows; small segments are merged now and then. What is
missing, stale or damaged is made again from SQLite, the rest is left as it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import write_text
from data_prep.errors import VersusError
from rag.arrays import read_array
from rag.errors import IndexMismatch, SnapshotMoved, StoreError
from rag.lexical import LexicalIndex, Tokenizer, make_lexical_index
from rag.locking import derived_lock
from rag.postings import SegmentedBm25
from rag.segments import (
    ChunkRow,
    Segment,
    build_segment,
    load_segment,
    merge_from,
    merge_segments,
    read_chunks,
    save_segment,
)
from rag.snapshot import PlacedIndex, Snapshot
from rag.store import EmbeddedStore
from rag.tables import mended

if TYPE_CHECKING:
    import sqlite3

    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

_MANIFEST = "manifest.json"
_FORMAT = 3
"""Of the segments and of the terms in them; those of another format are made anew."""
_MOST_SEGMENTS = 8
"""Segments beyond which small ones are merged."""
_MOST_DEAD = 0.3
"""Share of removed chunks beyond which a segment is written anew."""
_BUILT_TOGETHER = 50_000
"""Chunks read from SQLite into one segment before merging, which bounds memory."""
_LARGEST_BUILT = 250_000
"""Chunks beyond which what is made from SQLite becomes several segments."""


@dataclass(frozen=True)
class _Source:
    """What segments are tied to: the index they belong to, and how its texts are read."""

    index: str
    chunk_hash: str
    language: str
    dimension: int
    heading_context: bool

    @classmethod
    def of(cls, store: EmbeddedStore, heading_context: bool) -> _Source:
        dimension = store.number("dimension") or store.first_dimension()
        language = store.setting("language", "en")
        return cls(store.setting("index_id"), store.setting("chunk_hash"), language, dimension, heading_context)

    def as_json(self) -> list[Any]:
        return [_FORMAT, self.index, self.chunk_hash, self.language, self.dimension, self.heading_context]


@dataclass(frozen=True)
class _Manifest:
    generation: int
    """The generation whose writer, or reader, wrote it."""
    segments: tuple[str, ...]


def load_snapshot(
    store: EmbeddedStore,
    engine: str,
    heading_context: bool,
    previous: Snapshot | None = None,
    may_move: bool = False,
) -> Snapshot:
    """Return the committed generation's search structures, from disk where sound; what had to be made is kept.

    Segments that `previous` has open are taken from there. Raises `IndexMismatch` where nothing was ever indexed, and,
    if `may_move`, `SnapshotMoved` where a writer has just gone on to another generation: begin a new read then.
    """
    folder = derived_folder(store.path)
    with store.reading() as connection:
        generation = store.generation
        if connection is None or generation == 0:
            raise IndexMismatch(f"{store.path}: there is no index here; make it with versus index")
        source = _Source.of(store, heading_context)
        manifest = _read_manifest(folder, source)
        if may_move and manifest.generation > generation:
            raise SnapshotMoved(f"{store.path}: generation {manifest.generation} is there, {generation} was asked for")
        opened = _opened(folder, manifest, previous)
        segments = _covering(connection, source, opened)
        alive = _alive(connection, segments)
        if _count(segments, alive) != _live(connection):
            segments = list(_built(connection, source, 1, _last_row(connection)))
            alive = _alive(connection, segments)
        lexical = _lexical(connection, engine, source, segments, alive)
    if any(segment not in opened for segment in segments):
        segments = _kept(store, source, generation, segments)
    return Snapshot(generation, tuple(segments), tuple(alive), lexical)


def update_derived(store: EmbeddedStore, heading_context: bool) -> None:
    """After a commit: write a segment of the new chunks, and merge where there are many; other segments stay unread.

    Where it fails (a full disk), readers make what is missing for themselves.
    """
    folder = derived_folder(store.path)
    try:
        with derived_lock(store.path, wait=True), mended(store.path), store.reading() as connection:
            if connection is None:
                return
            source = _Source.of(store, heading_context)
            known = [name for name in _read_manifest(folder, source).segments if (folder / name).is_dir()]
            names = _extended(folder, connection, source, known)
            names = _compacted(folder, connection, source, names)
            _write_manifest(folder, source, store.generation, names)
    except (VersusError, OSError, RuntimeError):
        return


def derived_folder(path: Path) -> Path:
    """Return where what is derived from the store at `path` lies."""
    return path.with_name(path.stem + ".derived")


def _read_manifest(folder: Path, source: _Source) -> _Manifest:
    """Return the manifest of `folder`; an empty one where it is missing, damaged, or of other settings."""
    try:
        held = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if held["source"] == source.as_json():
            return _Manifest(int(held["generation"]), tuple(str(name) for name in held["segments"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return _Manifest(0, ())


def _write_manifest(folder: Path, source: _Source, generation: int, names: Sequence[str]) -> None:
    held = {"source": source.as_json(), "generation": generation, "segments": list(names)}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / _MANIFEST, json.dumps(held) + "\n")
    for other in folder.iterdir():
        if other.is_dir() and other.name not in names:
            shutil.rmtree(other, ignore_errors=True)


def _opened(folder: Path, manifest: _Manifest, previous: Snapshot | None) -> list[Segment]:
    """Return the manifest's segments that are sound."""
    held = {segment.name: segment for segment in previous.segments} if previous else {}
    found = []
    for name in manifest.segments:
        try:
            found.append(held[name] if name in held else load_segment(folder / name))
        except StoreError:
            continue
    return found


def _covering(connection: sqlite3.Connection, source: _Source, opened: Sequence[Segment]) -> list[Segment]:
    """Return segments for all rows of this generation: `opened`, and new ones for the rows between and after them."""
    segments: list[Segment] = []
    covered, last_row = 0, _last_row(connection)
    for segment in sorted(opened, key=lambda segment: segment.span):
        first, last = segment.span
        if first <= covered or first > last_row:
            continue
        if first > covered + 1:
            segments.extend(_built(connection, source, covered + 1, first - 1))
        segments.append(segment)
        covered = last
    if covered < last_row:
        segments.extend(_built(connection, source, covered + 1, last_row))
    return segments


def _built(connection: sqlite3.Connection, source: _Source, first: int, last: int) -> Iterator[Segment]:
    """Yield segments of the rows from `first` to `last`, made from SQLite in blocks; none where there is no row.

    Each is of `_LARGEST_BUILT` chunks at most, so that memory is bounded whatever the size of the index.
    """
    tokenizer = Tokenizer(source.language)
    blocks: list[Segment] = []
    begin = first
    while begin <= last:
        chunks = _chunk_rows(connection, source, begin, last)
        whole = len(chunks) < _BUILT_TOGETHER
        end = last if whole else chunks[-1].row
        alone = whole and not blocks
        blocks.append(build_segment((begin, end), chunks, source.dimension, tokenizer, ivf=alone))
        begin = end + 1
        if begin > last or len(blocks) * _BUILT_TOGETHER >= _LARGEST_BUILT:
            yield blocks[0] if alone else _joined(blocks)
            blocks = []


def _joined(blocks: Sequence[Segment]) -> Segment:
    import numpy as np

    return merge_segments(blocks, [np.ones(block.size, dtype=bool) for block in blocks])


def _chunk_rows(connection: sqlite3.Connection, source: _Source, first: int, last: int) -> list[ChunkRow]:
    return read_chunks(connection, (first, last), _BUILT_TOGETHER, source.heading_context)


def _last_row(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(row), 0) FROM chunks").fetchone()[0])


def _live(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM chunks").fetchone()[0])


def _alive(connection: sqlite3.Connection, segments: Sequence[Segment]) -> list[Mask | None]:
    """Return which chunks of each segment this generation holds: not removed, and not of a later one."""
    import numpy as np

    removed = np.array([row[0] for row in connection.execute("SELECT row FROM removed ORDER BY row")], dtype=np.int64)
    last_row = _last_row(connection)
    masks: list[Mask | None] = []
    for segment in segments:
        dead = np.isin(segment.rows, removed[np.searchsorted(removed, segment.span[0]) :]) | (segment.rows > last_row)
        masks.append(~dead if dead.any() else None)
    return masks


def _count(segments: Sequence[Segment], alive: Sequence[Mask | None]) -> int:
    return sum(segment.size if mask is None else int(mask.sum()) for segment, mask in zip(segments, alive, strict=True))


def _lexical(
    connection: sqlite3.Connection,
    engine: str,
    source: _Source,
    segments: Sequence[Segment],
    alive: Sequence[Mask | None],
) -> LexicalIndex:
    import numpy as np

    tokenizer = Tokenizer(source.language)
    if engine == "bm25":
        return SegmentedBm25([segment.postings for segment in segments], alive, tokenizer)
    rows = np.concatenate([np.zeros(0, np.int64), *(segment.rows for segment in segments)])
    texts: list[str] = []
    live: list[int] = []
    begin, last = 1, _last_row(connection)
    while chunks := _chunk_rows(connection, source, begin, last):
        texts.extend(chunk.text for chunk in chunks)
        live.extend(chunk.row for chunk in chunks)
        begin = chunks[-1].row + 1
    places = np.searchsorted(rows, np.array(live, dtype=np.int64))
    return PlacedIndex(make_lexical_index(engine, texts, tokenizer), places, len(rows))


def _kept(store: EmbeddedStore, source: _Source, generation: int, segments: list[Segment]) -> list[Segment]:
    """Write the segments that a reader had to make, unless another process is at it; return them opened from disk.

    Writers are not in the way of this, nor it in theirs: it has a lock of its own, and waits for nobody.
    """
    folder = derived_folder(store.path)
    try:
        with derived_lock(store.path, wait=False) as held, mended(store.path):
            if held and _read_manifest(folder, source).generation <= generation:
                known = [s if (folder / s.name).is_dir() else save_segment(s, folder) for s in segments]
                _write_manifest(folder, source, generation, [segment.name for segment in known])
                return known
    except (VersusError, OSError, RuntimeError):
        pass
    return segments


def _extended(folder: Path, connection: sqlite3.Connection, source: _Source, known: Sequence[str]) -> list[str]:
    """Return `known` with new segments for the rows that none of them answers for."""
    names: list[str] = []
    covered, last_row = 0, _last_row(connection)
    for name in sorted(known, key=_span):
        first, last = _span(name)
        if first > covered + 1:
            names.extend(save_segment(made, folder).name for made in _built(connection, source, covered + 1, first - 1))
        names.append(name)
        covered = last
    if covered < last_row:
        names.extend(save_segment(made, folder).name for made in _built(connection, source, covered + 1, last_row))
    return names


def _span(name: str) -> tuple[int, int]:
    first, last = name.split("-")[:2]
    return int(first), int(last)


def _compacted(folder: Path, connection: sqlite3.Connection, source: _Source, names: list[str]) -> list[str]:
    """Return `names` with neighbours merged where there are too many, and segments that are mostly dead rewritten."""
    sizes = {name: len(read_array(folder / name / "rows.npy")) for name in names}
    dead = _dead_shares(folder, connection, names)
    if len(names) > _MOST_SEGMENTS:
        start = merge_from([sizes[name] for name in names])
        return [*names[:start], _merged(folder, connection, source, names[start:])]
    heavy = next((name for name in names if dead[name] > _MOST_DEAD), None)
    if heavy is None:
        return names
    return [_merged(folder, connection, source, [name]) if name == heavy else name for name in names]


def _dead_shares(folder: Path, connection: sqlite3.Connection, names: Sequence[str]) -> dict[str, float]:
    shares = {}
    for name in names:
        query = "SELECT count(*) FROM removed WHERE row BETWEEN ? AND ?"
        removed = connection.execute(query, _span(name)).fetchone()[0]
        held = read_array(folder / name / "rows.npy")
        shares[name] = removed / len(held) if len(held) else 0.0
    return shares


def _merged(folder: Path, connection: sqlite3.Connection, source: _Source, names: Sequence[str]) -> str:
    """Write the merge of `names` and return its name; made from SQLite where one of them is damaged."""
    import numpy as np

    try:
        parts = [load_segment(folder / name) for name in names]
    except StoreError:
        made = list(_built(connection, source, _span(names[0])[0], _span(names[-1])[1]))
        return save_segment(made[0] if len(made) == 1 else _joined(made), folder).name
    found = zip(parts, _alive(connection, parts), strict=True)
    masks = [np.ones(part.size, dtype=bool) if mask is None else mask for part, mask in found]
    return save_segment(merge_segments(parts, masks), folder).name
