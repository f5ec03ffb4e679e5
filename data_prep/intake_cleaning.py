"""Documents that were taken into a corpus, cleaned before its manifest is written; places in them move along."""

from __future__ import annotations

from data_prep.cleaning import CleaningConfig, CleaningReport, survey_documents
from data_prep.intake import Intake


def clean_intake(intake: Intake, config: CleaningConfig | None = None) -> CleaningReport:
    """Clean the documents that an intake has taken so far: boilerplate, near-duplicates, Unicode, languages.

    A document that cleaning leaves out is passed over with its reason, and its file goes. Each text is read twice and
    none is kept.
    """
    config = config or CleaningConfig()
    survey = survey_documents(((name, intake.text(name)) for name in intake.names()), config)
    boilerplate: dict[str, int] = {}
    personal: dict[str, int] = {}
    changed = 0
    for name in intake.names():
        if name in survey.dropped:
            intake.drop(name, survey.dropped[name])
            continue
        text = intake.text(name)
        result = survey.clean(text)
        for block in result.boilerplate:
            boilerplate[block] = boilerplate.get(block, 0) + 1
        for kind, count in result.personal.items():
            personal[kind] = personal.get(kind, 0) + count
        changed += result.text != text
        intake.replace(name, text, result.text)
    return survey.report(kept=len(intake.names()), changed=changed, boilerplate=boilerplate, personal=personal)


def moved(offsets: list[int], old: str, new: str) -> list[int | None]:
    """Return where the places at `offsets` of `old` are in `new`; None for one whose line is no longer there.

    A place is found again by the words of its line, after the place before it.
    """
    found: list[int | None] = []
    cursor = 0
    for offset in offsets:
        line = old[offset:].lstrip("\n").split("\n", 1)[0].strip()
        place = new.find(line, cursor) if line else -1
        found.append(place if place >= 0 else None)
        cursor = place if place >= 0 else cursor
    return found
