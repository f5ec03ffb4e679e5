"""`versus scrape`: somebody's documents into a corpus."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison_app.commands import add_command
from comparison_app.console import console, print_json, progress_bar
from comparison_app.workspace import Workspace
from data_prep.errors import DataError
from data_prep.intake import Intake, ScrapeReport

if TYPE_CHECKING:
    from data_prep.cleaning import CleaningReport

Progress = Callable[[int, int], None]
_EXAMPLE = """versus scrape my-manual/ --into my-manual
  versus scrape https://docs.example.org/guide/ --into guide --pages 500
  versus scrape https://docs.example.org/sitemap.xml --into guide --prefix https://docs.example.org/guide/
  versus scrape feed.csv --into shop --listings"""
_SHOWN = 20


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = add_command(
        subparsers, "scrape", run, "turn sites, folders, files and listing feeds into a corpus", _EXAMPLE
    )
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="a folder, a file, a web address, a sitemap, a listing feed"
    )
    parser.add_argument("--into", required=True, metavar="CORPUS", help="a name (kept in the workspace) or a path")
    parser.add_argument("--language", default="en", help="language of the documents, ISO 639-1 (default: en)")
    parser.add_argument("--licence", help="licence of the documents, for the manifest")
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="site profiles (TOML): where pages keep their text"
    )
    parser.add_argument(
        "--listings", action="store_true", help="the sources are ads or products: records and documents"
    )
    cleaning = parser.add_argument_group("cleaning")
    cleaning.add_argument(
        "--clean", action="store_true", help="mend Unicode, drop what repeats over pages and near-duplicates"
    )
    cleaning.add_argument(
        "--only-language", action="append", default=[], metavar="CODE", help="leave out other languages"
    )
    cleaning.add_argument(
        "--remove-personal", action="store_true", help="remove phone numbers, e-mail addresses, links"
    )
    cleaning.add_argument(
        "--regions",
        metavar="CODES",
        help="whose national phone numbers are removed, ISO 3166, by commas (default: by --language)",
    )
    _add_crawl_options(parser.add_argument_group("crawling"))


def _add_crawl_options(group: Any) -> None:
    group.add_argument("--prefix", metavar="URL", help="what page addresses begin with (default: the start's folder)")
    group.add_argument("--pages", type=int, default=1_000, help="budget of pages for one run (default: 1000)")
    group.add_argument("--depth", type=int, help="links from the start (default: 20; 0 for a sitemap)")
    group.add_argument("--delay", type=float, default=0.5, help="least seconds between requests (default: 0.5)")
    group.add_argument("--timeout", type=float, default=60.0, help="seconds for each answer (default: 60)")
    group.add_argument("--max-megabytes", type=int, default=50, help="size of each answer (default: 50)")
    group.add_argument("--no-pictures", action="store_true", help="do not fetch the pages' pictures")
    group.add_argument("--allow-private", action="store_true", help="also addresses of private networks and localhost")


def run(arguments: argparse.Namespace) -> int:
    """Scrape, and say what was added, changed, left and passed over."""
    folder = Workspace.resolve(arguments.workspace).corpus_folder(arguments.into)
    report, cleaned = _scrape(arguments, folder)
    if arguments.json:
        print_json({"corpus": str(folder), **asdict(report), "cleaning": asdict(cleaned) if cleaned else None})
        return 0
    out = console()
    out.print(
        f"[bold]{folder}[/bold]: {len(report.added)} added, {len(report.changed)} changed, "
        f"{len(report.unchanged)} unchanged, {len(report.skipped)} passed over"
    )
    for name, reason in list(report.skipped.items())[:_SHOWN]:
        out.print(f"  passed over {name}: {reason}", markup=False)
    if len(report.skipped) > _SHOWN:
        out.print(f"  and {len(report.skipped) - _SHOWN} more; --json lists all")
    for name, notes in list(report.notes.items())[:_SHOWN]:
        out.print(f"  {name}: {'; '.join(notes)}", markup=False)
    out.print(f"next: versus questions import FILE --into {arguments.into}, or versus index --corpus {arguments.into}")
    return 0


def _scrape(arguments: argparse.Namespace, folder: Path) -> tuple[ScrapeReport, CleaningReport | None]:
    from data_prep.converting.profiles import read_profiles
    from data_prep.folders import take_files

    profiles = read_profiles(arguments.profile) if arguments.profile else ()
    sites = [source for source in arguments.sources if "://" in source]
    files = [Path(source) for source in arguments.sources if "://" not in source]
    intake = Intake(folder, arguments.licence)
    for site in sites:
        _crawl(arguments, intake, site, profiles)
    if arguments.listings:
        _listings(arguments, intake, files)
    elif files:
        with progress_bar("files", quiet=arguments.json) as progress:
            take_files(intake, files, profiles=profiles, progress=progress)
    wanted = arguments.clean or arguments.only_language or arguments.remove_personal
    cleaned = _clean(arguments, intake) if wanted else None
    return intake.finish(", ".join(arguments.sources), language=arguments.language), cleaned


def _personal_regions(arguments: argparse.Namespace) -> tuple[str, ...] | None:
    """Return the regions whose phone numbers are removed, None if nothing personal is to go."""
    from data_prep.personal_data import checked_regions, regions_of

    if not arguments.remove_personal:
        return None
    return checked_regions(arguments.regions.split(",")) if arguments.regions else regions_of(arguments.language)


def _clean(arguments: argparse.Namespace, intake: Intake) -> CleaningReport:
    from data_prep.cleaning import CleaningConfig
    from data_prep.intake_cleaning import clean_intake

    personal = arguments.remove_personal and not arguments.listings  # listings: done to their records before
    regions = _personal_regions(arguments) or ()
    config = CleaningConfig(languages=tuple(arguments.only_language), personal_data=personal, regions=regions)
    if not arguments.clean:
        config = replace(config, boilerplate_share=2.0, duplicate_share=2.0)
    found = clean_intake(intake, config)
    if arguments.listings:
        from data_prep.listing_sources import drop_records

        drop_records(intake.path, found.dropped.keys())
    if not arguments.json:
        _tell_cleaning(found, arguments.language)
    return found


def _tell_cleaning(found: CleaningReport, language: str) -> None:
    """Say what cleaning did, which languages the documents are in, and which of them are not in the corpus's."""
    out = console()
    out.print(
        f"cleaned: {found.changed} texts mended, {len(found.boilerplate)} repeated blocks taken out, "
        f"{len(found.dropped)} left out, {sum(found.personal.values())} pieces of personal data removed"
    )
    kept = {name: code for name, code in found.languages.items() if name not in found.dropped}
    counts = Counter(code or "too short to tell" for code in kept.values()).most_common()
    out.print("languages: " + ", ".join(f"{code} {count}" for code, count in counts), markup=False)
    others = [name for name, code in kept.items() if code not in (None, language.split("-")[0].lower())]
    if others:
        names = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        out.print(
            f"warning: {len(others)} documents are not in the corpus's language ({language}): {names}; "
            "--only-language leaves such out",
            markup=False,
        )


def _crawl(arguments: argparse.Namespace, intake: Intake, site: str, profiles: Any) -> None:
    from data_prep.crawl import CrawlConfig, crawl, crawl_folder, take_pages

    config = CrawlConfig(
        start=site,
        folder=crawl_folder(intake.path, site),
        prefix=arguments.prefix,
        max_pages=arguments.pages,
        max_depth=_depth(arguments.depth, site),
        delay=arguments.delay,
        timeout=arguments.timeout,
        max_bytes=arguments.max_megabytes * 1_000_000,
        pictures=not arguments.no_pictures,
        allow_private=arguments.allow_private,
    )
    with progress_bar("pages fetched", quiet=arguments.json) as progress:
        crawl(config, progress)
    if arguments.listings:
        from data_prep.listing_sources import take_listing_pages

        take_listing_pages(intake, config, language=arguments.language, personal_regions=_personal_regions(arguments))
        return
    with progress_bar("pages converted", quiet=arguments.json) as progress:
        take_pages(intake, config, profiles=profiles, progress=progress)


def _depth(given: int | None, site: str) -> int:
    if given is not None:
        return given
    return 0 if site.lower().endswith((".xml", ".xml.gz")) else 20


def _listings(arguments: argparse.Namespace, intake: Intake, files: list[Path]) -> None:
    from data_prep.listing_sources import take_listing_files

    if not files and not [source for source in arguments.sources if "://" in source]:
        raise DataError("no listing feed given")
    take_listing_files(intake, files, language=arguments.language, personal_regions=_personal_regions(arguments))
