"""Scraped documents are cleaned before the manifest is written; pages and anchors stay where their lines are."""

from __future__ import annotations

from pathlib import Path

from data_prep.cleaning import CleaningConfig
from data_prep.converting.result import Converted
from data_prep.corpus import load_corpus, verify_manifest
from data_prep.intake import Intake, ScrapeReport
from data_prep.intake_cleaning import clean_intake

TOPICS = ("valves", "pumps", "pipes", "wells", "filters", "motors")


def _document(topic: str) -> Converted:
    body = f"Text on {topic} only, with a\u00a0space."
    text = f"Home of all that is wet\n\n# About {topic}\n\n{body}\n\n## Care\n\nOil {topic}.\n"
    return Converted(
        f"About {topic}", text, pages=(0, text.index("## Care")), anchors=((text.index("## Care"), "care"),)
    )


def _scraped(path: Path) -> ScrapeReport:
    intake = Intake(path)
    for topic in TOPICS:
        intake.take(topic, f"{topic}.html", [_document(topic)], lambda target: None)
    intake.take("again", "again.html", [_document("pumps")], lambda target: None)
    clean_intake(intake, CleaningConfig())
    return intake.finish("site", language="en")


def test_cleaning_moves_places_and_leaves_out_what_repeats(tmp_path: Path) -> None:
    """The line that all pages share goes, a copy is passed over, the anchor still stands at its heading."""
    report = _scraped(tmp_path / "corpus")
    assert sorted(report.added) == sorted(TOPICS)
    assert "nearly the same as pumps" in report.skipped["again.html"]
    corpus = load_corpus(tmp_path / "corpus")
    assert verify_manifest(corpus) == []
    for name in TOPICS:
        text, entry = (corpus.path / "documents" / f"{name}.md").read_text(encoding="utf-8"), corpus.manifest[name]
        assert "all that is wet" not in text
        assert "with a space" in text
        assert entry.anchors is not None
        assert entry.page_offsets is not None
        assert text[entry.anchors[0][0] :].startswith("## Care")
        assert entry.page_offsets == (0, text.index("## Care"))


def test_a_cleaned_corpus_scraped_again_is_unchanged(tmp_path: Path) -> None:
    """What is compared is the text after cleaning."""
    _scraped(tmp_path / "corpus")
    report = _scraped(tmp_path / "corpus")
    assert (report.added, report.changed, sorted(report.unchanged)) == ([], [], sorted(TOPICS))
