"""A tiny corpus about a lamp, for tests: small enough to read, with a question in every slice."""

from __future__ import annotations

import hashlib
from pathlib import Path

from data_prep.corpus import ManifestEntry, title_of, write_manifest, write_settings
from data_prep.facts import Fact, SplitPlan, split_facts, write_facts, write_splits
from data_prep.questions import Evidence

DOCUMENTS = {
    "battery": """# Battery

## Charging

Charge the lamp for 4 hours before its first use. The charging light glows amber while it charges and goes out when
the battery is full.

## Storage

Store the lamp at a charge of about 50 percent, in a dry place between 5 °C and 25 °C.
""",
    "brightness": """# Brightness

## Levels

The lamp has 5 brightness levels. Turn the ring clockwise for a brighter light.

| Level | Output | Runs for |
|---|---|---|
| 1 | 40 lm | 60 h |
| 5 | 800 lm | 3 h |

## Night mode

Press the ring twice for night mode. It gives a red light of 5 lm and ends by itself after 8 hours.
""",
    "cleaning": """# Cleaning

Wipe the shade with a damp cloth. Never hold the lamp under water: its seal keeps out splashes, but no more.

1. Switch the lamp off.
2. Pull out the plug.
3. Wipe the shade from top to bottom.
""",
    "warranty": """# Warranty

The warranty of the lamp lasts 3 years from the day of purchase. The battery is covered for 1 year. Send a faulty
lamp to the service address on the box, with the receipt.
""",
}
NEW_DOCUMENTS = {
    "recall": """# Recall of the first plugs

Plugs with a serial number below 2000 can grow hot. Stop using them at once; a new plug is sent within 10 days.
""",
}
_FACTS = [
    (
        "charge-time",
        "battery",
        "Charge the lamp for 4 hours before its first use.",
        "Charge the lamp for 4 hours first.",
        ("How long must the lamp charge before I first use it?", "What charging time is needed before first use?"),
        "My new light just arrived, when can it be switched on?",
    ),
    (
        "charge-light",
        "battery",
        "The charging light glows amber while it charges",
        "It glows amber while it charges.",
        ("What colour is the charging light while the lamp charges?", "Which colour shows that the lamp is charging?"),
        "There is an orange glow after plugging in, is that normal?",
    ),
    (
        "store-charge",
        "battery",
        "Store the lamp at a charge of about 50 percent",
        "Store it at about 50 percent charge.",
        ("At what charge should the lamp be stored?", "How full should the battery be for storage?"),
        "I put the light away for winter; half empty or topped up?",
    ),
    (
        "levels",
        "brightness",
        "The lamp has 5 brightness levels.",
        "The lamp has 5 brightness levels.",
        ("How many brightness levels does the lamp have?", "What number of brightness steps are there?"),
        "In how many stages can its light be dimmed?",
    ),
    (
        "brighter",
        "brightness",
        "Turn the ring clockwise for a brighter light.",
        "Turn the ring clockwise.",
        ("Which way do I turn the ring for more light?", "How do I make the lamp brighter?"),
        "It is too dim for reading, what can be done?",
    ),
    (
        "night",
        "brightness",
        "It gives a red light of 5 lm and ends by itself after 8 hours.",
        "Night mode gives a red light of 5 lm and ends after 8 hours.",
        ("What light does night mode give and when does it end?", "How strong is the light in night mode?"),
        "Will the red glow go off before morning?",
    ),
    (
        "wipe",
        "cleaning",
        "Wipe the shade with a damp cloth.",
        "Wipe the shade with a damp cloth.",
        ("What do I clean the shade with?", "How is the shade of the lamp cleaned?"),
        "Dust has gathered on top, now what?",
    ),
    (
        "warranty",
        "warranty",
        "The warranty of the lamp lasts 3 years from the day of purchase.",
        "The warranty lasts 3 years from the day of purchase.",
        ("How long does the warranty of the lamp last?", "For how many years is the lamp under warranty?"),
        "It broke two years after buying it, am I covered?",
    ),
    (
        "plug",
        "recall",
        "a new plug is sent within 10 days",
        "A new plug is sent within 10 days.",
        ("When do I get a new plug after the recall?", "How soon is a recalled plug replaced?"),
        "Mine ran hot, what is the wait for another?",
    ),
]
_UNANSWERABLE = [
    "Can the lamp play music?",
    "What does the lamp weigh?",
    "Who won the chess final?",
    "Is there a timer for sunrise?",
    "Does the lamp charge a phone?",
    "How do I boil an egg?",
]


def write_small_corpus(path: Path) -> Path:
    """Write the corpus to `path` and return it: `cleaning` is the unseen page, `recall` the new document."""
    for folder, documents in (("documents", DOCUMENTS), ("new_documents", NEW_DOCUMENTS)):
        for name, text in documents.items():
            file = path / folder / f"{name}.md"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    write_settings(path, language="en", licence="CC0-1.0", description="The manual of a lamp.")
    write_manifest(path, [_entry(file, path) for file in sorted(path.glob("*documents/*.md"))])
    plan = SplitPlan(
        frozenset({"cleaning", "warranty"}),
        new_documents=frozenset(NEW_DOCUMENTS),
        trained_share=0.67,
        repeated=3,
        subsets=(2,),
        seed=1,
    )
    facts = [_fact(*row) for row in _FACTS]
    facts += [Fact(f"none-{number}", (text,), category="absent") for number, text in enumerate(_UNANSWERABLE)]
    write_facts(path / "questions" / "facts.jsonl", facts)
    write_splits(path / "questions", split_facts(facts, plan))
    return path


def _entry(file: Path, corpus: Path) -> ManifestEntry:
    text = file.read_text(encoding="utf-8")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return ManifestEntry(file.stem, title_of(text, file.stem), file.relative_to(corpus).as_posix(), sha256=digest)


def _fact(name: str, document: str, quote: str, answer: str, wordings: tuple[str, str], paraphrase: str) -> Fact:
    text = {**DOCUMENTS, **NEW_DOCUMENTS}[document]
    start = text.index(quote)
    return Fact(name, wordings, (paraphrase,), (answer,), (Evidence(document, start, start + len(quote)),), "fact")
