"""Feeds (CSV, JSONL, JSON), saved pages and crawled pages of ads into records and one document each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.convert import HTML_SUFFIXES, Converted, Source
from data_prep.converting.charsets import decode, is_text
from data_prep.converting.guarded import GuardedConverter
from data_prep.errors import CorpusError, DataError
from data_prep.intake import PICTURE_SUFFIXES, Intake
from data_prep.listing_records import group_variants, listing_of_row, unique_ids
from data_prep.listings import Listing, listing_markdown, read_listings, write_listings

if TYPE_CHECKING:
    from data_prep.crawl import CrawlConfig

FEED_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".json"})
MAX_FEED_BYTES = 300_000_000
_LONGEST_FIELD = 1_000_000
_MOST_SPOILED = 50
"""How often a feed is read again behind a quote that is never closed; each time costs all of what follows."""
_LISTS = ("products", "items", "listings", "offers", "ads", "data", "results")


def take_listing_files(
    intake: Intake, sources: Sequence[Path], *, language: str = "en", personal_regions: Sequence[str] | None = None
) -> None:
    """Take feeds, saved pages and folders of both into a corpus: `listings.jsonl` and one document a listing.

    Rows and pages that cannot be read, or have no title, are passed over with their reason. With
    `personal_regions` phone numbers (national ones as those of these regions), e-mail addresses and links are taken out
    of titles, descriptions and attributes, in records and documents.
    """
    found: list[tuple[str, Listing]] = []
    with GuardedConverter() as converter:
        for path, name in _files(sources, intake):
            try:
                found += _of_file(path, name, converter, intake, language)
            except DataError as error:
                intake.skip(name, str(error))
    _write(intake, found, personal_regions)


def take_listing_pages(
    intake: Intake, config: CrawlConfig, *, language: str = "en", personal_regions: Sequence[str] | None = None
) -> None:
    """Take the products and ads on the pages of a crawl into a corpus."""
    from data_prep.crawling.frontier import Frontier

    found: list[tuple[str, Listing]] = []
    with Frontier(config.folder) as frontier, GuardedConverter() as converter:
        for row in list(frontier.rows("page")):
            if row.state != "done" or not row.body or row.content_type != "html":
                intake.skip(row.url, row.reason or f"is {row.content_type}, not a page")
                continue
            try:
                rows = converter.listings(frontier.body_path(row.body), Source("html", row.url, row.url, row.charset))
                found += [(row.url, listing_of_row(one, len(found) + 1, language)) for one in rows]
            except DataError as error:
                intake.skip(row.url, str(error))
    _write(intake, found, personal_regions)


def without_personal_data(listing: Listing, regions: Sequence[str] = ("US", "GB")) -> Listing:
    """Return a listing with phone numbers, e-mail addresses and links taken out of what its seller wrote."""
    from dataclasses import replace

    from data_prep.personal_data import remove_personal_data

    attributes = {name: remove_personal_data(value, regions)[0] for name, value in listing.attributes.items()}
    title = remove_personal_data(listing.title, regions)[0]
    description = remove_personal_data(listing.description, regions)[0]
    return replace(listing, title=title.strip() or "Listing", description=description, attributes=attributes)


def drop_records(corpus: Path, names: Collection[str]) -> int:
    """Take the records of listings whose documents did not stay out of `listings.jsonl`; returns how many they were."""
    path = corpus / "listings.jsonl"
    listings = list(read_listings(path)) if names and path.exists() else []
    kept = [listing for listing in listings if listing.id not in names]
    if len(kept) < len(listings):
        write_listings(path, kept)
    return len(listings) - len(kept)


def feed_rows(data: bytes, suffix: str) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    """Yield the rows of a feed with the line or place of each; a broken row comes as the `DataError` that says why."""
    text = decode(data)
    if not is_text(text):
        raise DataError("not text in any charset")
    if suffix in {".csv", ".tsv"}:
        yield from _csv_rows(text, "\t" if suffix == ".tsv" else None)
    elif suffix == ".json":
        yield from _json_rows(text)
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, _json_line(line)


def _csv_rows(text: str, delimiter: str | None) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    """Yield the rows of a CSV; a quote that is never closed costs its own line alone, which is told."""
    delimiter = delimiter or _delimiter(text)
    header: list[str] = []
    for number, row in _csv_records(io.StringIO(text, newline="").readlines(), delimiter):
        if isinstance(row, DataError):
            yield number, row
        elif not header:
            header = [name.strip() for name in row]
        elif any(cell.strip() for cell in row):
            ragged = DataError(f"has {len(row)} fields, the header has {len(header)}")
            yield number, dict(zip(header, row, strict=True)) if len(row) == len(header) else ragged


def _csv_records(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str] | DataError]]:
    """Yield the records with the number of their last line; reading goes on behind a line that spoils what follows."""
    csv.field_size_limit(_LONGEST_FIELD)
    reader, begin, spoiled = csv.reader(lines, delimiter=delimiter), 0, 0
    while True:
        last = begin + reader.line_num
        row: list[str] | None = None
        reason = "a quote that is opened in it is never closed"
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"not a row: {error}"
        end = begin + reader.line_num
        if row is not None and (spoiled >= _MOST_SPOILED or not _unclosed(lines, last, end, delimiter)):
            yield end, row
            continue
        yield last + 1, DataError(reason)
        if end > last + 1 and spoiled < _MOST_SPOILED:
            begin, spoiled = last + 1, spoiled + 1
            reader = csv.reader(lines[begin:], delimiter=delimiter)


def _unclosed(lines: list[str], first: int, end: int, delimiter: str) -> bool:
    """Tell whether the record of `lines[first:end]` reached the end of the feed inside a quote."""
    if end < len(lines) or (end == first + 1 and '"' not in lines[first]):
        return False
    *_, row = csv.reader([*lines[first : end - 1], lines[end - 1].rstrip("\r\n") + "\n", "end"], delimiter=delimiter)
    return row != ["end"]


def _delimiter(text: str) -> str:
    first = text.split("\n", 1)[0]
    return max(",;\t|", key=first.count)


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}") from error
    if isinstance(data, dict):
        data = next((data[name] for name in _LISTS if isinstance(data.get(name), list)), [data])
    for number, row in enumerate(data if isinstance(data, list) else [], start=1):
        yield number, row if isinstance(row, dict) else DataError("is no object")


def _json_line(line: str) -> dict[str, Any] | DataError:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return DataError(f"not JSON: {error}")
    return row if isinstance(row, dict) else DataError("is no object")


def _files(sources: Sequence[Path], intake: Intake) -> Iterator[tuple[Path, str]]:
    for source in sources:
        if source.is_dir():
            yield from _folder(source, intake)
        elif source.is_file():
            yield source, source.name
        else:
            raise CorpusError(f"{source} does not exist; give a feed, a saved page or a folder of them")


def _folder(folder: Path, intake: Intake) -> Iterator[tuple[Path, str]]:
    """Yield a folder's feeds and pages; what is passed over is told, hidden files and pictures apart."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(part.startswith(".") for part in name.split("/")):
            continue
        if path.suffix.lower() in PICTURE_SUFFIXES:
            continue
        if path.suffix.lower() not in FEED_SUFFIXES | HTML_SUFFIXES:
            intake.skip(name, f"files of kind {path.suffix or 'without ending'} are no listing feeds")
        elif not path.resolve().is_relative_to(folder.resolve()):
            intake.skip(name, "is a link that leaves the folder")
        else:
            yield path, name


def _of_file(
    path: Path, name: str, converter: GuardedConverter, intake: Intake, language: str
) -> list[tuple[str, Listing]]:
    suffix = path.suffix.lower()
    if suffix in HTML_SUFFIXES:
        rows = converter.listings(path, Source("html", path.stem))
        return [(name, listing_of_row({**row, "id": row.get("id") or path.stem}, 1, language)) for row in rows]
    if suffix not in FEED_SUFFIXES:
        raise DataError(f"files of kind {path.suffix or 'without ending'} are no listing feeds")
    if path.stat().st_size > MAX_FEED_BYTES:
        raise DataError(f"more than {MAX_FEED_BYTES // 1_000_000} MB; split it")
    found = []
    for number, row in feed_rows(path.read_bytes(), suffix):
        try:
            if isinstance(row, DataError):
                raise row
            found.append((name, listing_of_row(row, number, language)))
        except (DataError, ValueError) as error:
            intake.skip(f"{name}, line {number}", str(error))
    return found


def _write(intake: Intake, found: Sequence[tuple[str, Listing]], regions: Sequence[str] | None) -> None:
    """Write records and documents; records of an earlier scrape stay unless they come again."""
    kept = [one if regions is None else without_personal_data(one, regions) for _, one in found]
    listings = group_variants(unique_ids(kept))
    for (source, _), listing in zip(found, listings, strict=True):
        document = Converted(listing.title, listing_markdown(listing))
        intake.take(listing.id, listing.url or source, [document], lambda target: None)
    if not listings:
        return
    path = intake.path / "listings.jsonl"
    names = {listing.id for listing in listings}
    before = [old for old in read_listings(path) if old.id not in names] if path.exists() else []
    write_listings(path, [*before, *listings])
