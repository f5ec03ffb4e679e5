"""Texts made clean: Unicode, white space, repeated boilerplate, near-duplicates, language, personal data.

Everything here is a pure function of texts, and texts are light markdown. One call does all of it:

    cleaned, report = clean_documents(documents, config)

`documents` maps each id to its markdown (a lazy mapping will do: each text is read twice and none is kept but those
that are returned); `cleaned` maps the ids that stay to their clean text, in the order given; `report` tells what was
changed and what was left out, with its reason. `CleaningConfig()` mends Unicode and white space, takes out boilerplate,
leaves out near-duplicates and names languages; personal data is removed on request only.

For a corpus that should not be in memory at once: `survey = survey_documents(documents.items(), config)`, then
`survey.clean(text)` for each document that is not in `survey.dropped`. Offsets into a text are void after cleaning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from data_prep.errors import DataError
from data_prep.near_duplicates import DuplicateFinder
from data_prep.personal_data import remove_personal_data

if TYPE_CHECKING:
    from data_prep.near_duplicates import NearDuplicate

MIN_LETTERS = 40
"""A text with fewer letters is too short for its language to be told."""

_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^(?P=fence)[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_SPACE = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_INVISIBLE = re.compile(r"[\u00ad\u200b\u2060\ufeff]")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_INNER = re.compile(r"(?<=\S)[ \t]{2,}(?=\S)")
_BLANK_LINES = re.compile(r"\n{3,}")
_DIGITS = re.compile(r"\d+")
_HEADING = re.compile(r"(#{1,6})\s")
_LINK = re.compile(r"!?\[[^\]]*\]\([^)]*\)")


@dataclass(frozen=True, slots=True)
class CleaningConfig:
    """What is done. Shares are from 0 to 1; a share over 1 switches its step off.

    A block is boilerplate if it stands in `boilerplate_share` of the documents, and in `boilerplate_documents` at
    least; it is taken out where nothing of the page's own stands between it and the page's top or end. Two documents
    are near-duplicates from `duplicate_share` of common word triples on, if title and numbers are the same. Documents
    in other languages than `languages` are left out (empty: all stay). `personal_data` removes phone numbers, e-mail
    addresses and links; national numbers are read as those of `regions` (ISO 3166).
    """

    unicode: bool = True
    boilerplate_share: float = 0.3
    boilerplate_documents: int = 5
    duplicate_share: float = 0.9
    languages: tuple[str, ...] = ()
    personal_data: bool = False
    regions: tuple[str, ...] = ("US", "GB")

    def __post_init__(self) -> None:
        wrong = [name for name in ("boilerplate_share", "duplicate_share") if getattr(self, name) <= 0]
        if self.boilerplate_documents < 2:
            wrong.append("boilerplate_documents (two at least)")
        if wrong:
            raise DataError(f"cleaning: {', '.join(wrong)} must be larger")


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning did.

    `boilerplate` maps each block that was taken out to the number of documents it was taken out of. `duplicates` names
    what was left out and the document it repeats; `variants` are pairs as alike with another title or other numbers:
    both stay. `languages` is the language of each document (None: too short to tell), `dropped` every document that
    does not stay, with its reason, and `personal` counts what was removed by kind.
    """

    documents: int = 0
    kept: int = 0
    changed: int = 0
    boilerplate: dict[str, int] = field(default_factory=dict)
    duplicates: list[NearDuplicate] = field(default_factory=list)
    variants: list[NearDuplicate] = field(default_factory=list)
    languages: dict[str, str | None] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    personal: dict[str, int] = field(default_factory=dict)


def clean_documents(
    documents: Mapping[str, str], config: CleaningConfig | None = None
) -> tuple[dict[str, str], CleaningReport]:
    """Clean the documents of one site or corpus; see the module's docstring."""
    config = config or CleaningConfig()
    survey = survey_documents(documents.items(), config)
    cleaned: dict[str, str] = {}
    changed, boilerplate, personal = 0, Counter[str](), Counter[str]()
    for name, text in documents.items():
        if name in survey.dropped:
            continue
        result = survey.clean(text)
        boilerplate.update(result.boilerplate)
        personal += result.personal
        changed += result.text != text
        cleaned[name] = result.text
    return cleaned, survey.report(kept=len(cleaned), changed=changed, boilerplate=boilerplate, personal=personal)


@dataclass(frozen=True)
class CleanedText:
    """One document's clean text, the keys of the blocks taken out, and how much personal data of each kind was."""

    text: str
    boilerplate: tuple[str, ...] = ()
    personal: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Survey:
    """What the first reading of a corpus found: enough to clean each of its documents alone."""

    config: CleaningConfig
    documents: int
    repeated: frozenset[str]
    duplicates: tuple[NearDuplicate, ...]
    languages: Mapping[str, str | None]
    dropped: Mapping[str, str]

    def clean(self, text: str) -> CleanedText:
        """Clean one document's text."""
        text, taken = without_boilerplate(_mended(text, self.config), self.repeated)
        if not self.config.personal_data:
            return CleanedText(text, taken)
        text, personal = remove_personal_data(text, self.config.regions)
        return CleanedText(text, taken, personal)

    def report(
        self, *, kept: int, changed: int, boilerplate: Mapping[str, int], personal: Mapping[str, int]
    ) -> CleaningReport:
        """Return the report of a cleaning that kept, changed and removed so much."""
        return CleaningReport(
            documents=self.documents,
            kept=kept,
            changed=changed,
            boilerplate=dict(boilerplate),
            duplicates=[pair for pair in self.duplicates if pair.repeats],
            variants=[pair for pair in self.duplicates if not pair.repeats],
            languages=dict(self.languages),
            dropped=dict(self.dropped),
            personal=dict(personal),
        )


def survey_documents(documents: Iterable[tuple[str, str]], config: CleaningConfig) -> Survey:
    """Read every document once: find what repeats, what is nearly the same, and the languages.

    Near-duplicates are compared with their boilerplate: short pages of one site may look more alike than they are.
    """
    blocks, finder = _BlockCounter(), DuplicateFinder(config.duplicate_share)
    languages: dict[str, str | None] = {}
    dropped: dict[str, str] = {}
    for name, text in documents:
        mended = _mended(text, config)
        languages[name] = language_of(mended)
        blocks.add(mended)
        if not mended.strip():
            dropped[name] = "holds no text"
        elif config.languages and languages[name] not in (None, *config.languages):
            dropped[name] = f"is in language {languages[name]}, not in {', '.join(config.languages)}"
        elif config.duplicate_share <= 1:
            finder.add(name, mended)
    for pair in finder.pairs:
        if pair.repeats:
            dropped.setdefault(pair.document, f"nearly the same as {pair.of} ({pair.share:.2f})")
    return Survey(config, blocks.documents, blocks.repeated(config), tuple(finder.pairs), languages, dropped)


def clean_text(text: str) -> str:
    """Mend a text's Unicode and white space; code fences keep theirs.

    Mojibake is undone, ligatures are taken apart, the form is NFC; odd spaces become plain ones, invisible characters
    and trailing spaces go, and at most one blank line stands between two blocks. HTML entities and quotation marks stay
    as written.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    pieces, position = [], 0
    for fence in _FENCE.finditer(text):
        pieces += [_tidy(text[position : fence.start()]), fence.group()]
        position = fence.end()
    pieces.append(_tidy(text[position:]))
    body = "".join(pieces).strip("\n")
    return body + "\n" if body.strip() else ""


def _tidy(text: str) -> str:
    import ftfy

    text = ftfy.fix_text(
        text, unescape_html=False, uncurl_quotes=False, fix_character_width=False, normalization="NFC", explain=False
    )
    text = _TRAILING.sub("", _SPACE.sub(" ", _INVISIBLE.sub("", text)))
    lines = [line if line.startswith(("    ", "\t")) else _INNER.sub(" ", line) for line in text.split("\n")]
    return _BLANK_LINES.sub("\n\n", "\n".join(lines))


def _mended(text: str, config: CleaningConfig) -> str:
    return clean_text(text) if config.unicode else text


def blocks_of(text: str) -> list[str]:
    """Split markdown at blank lines; a code fence is one block with all its blank lines."""
    blocks, position = [], 0
    for fence in _FENCE.finditer(text):
        blocks += text[position : fence.start()].split("\n\n")
        blocks.append(fence.group())
        position = fence.end()
    blocks += text[position:].split("\n\n")
    return [block.strip("\n") for block in blocks if block.strip()]


def block_key(block: str) -> str:
    """Return the form under which two blocks are the same: case, white space and the numbers' values ignored."""
    return _DIGITS.sub("0", " ".join(block.casefold().split()))


class _BlockCounter:
    """Counts in how many documents each block stands; keeps the text of those alone that repeat."""

    def __init__(self) -> None:
        self.documents = 0
        self._counts: Counter[int] = Counter()
        self._texts: dict[int, str] = {}

    def add(self, text: str) -> None:
        """Count the blocks of one more document; headings and code are structure, never boilerplate."""
        self.documents += 1
        for text_key in {block_key(block) for block in blocks_of(text) if not _is_structure(block)}:
            key = hash(text_key)
            self._counts[key] += 1
            if self._counts[key] == 2:
                self._texts[key] = text_key

    def repeated(self, config: CleaningConfig) -> frozenset[str]:
        """Return the keys of the blocks that stand in as many documents as boilerplate does."""
        least = max(config.boilerplate_documents, config.boilerplate_share * self.documents)
        return frozenset(text for key, text in self._texts.items() if self._counts[key] >= least)


def _is_structure(block: str) -> bool:
    return block.startswith(("```", "~~~")) or (_HEADING.match(block) is not None and "\n" not in block)


def without_boilerplate(text: str, repeated: frozenset[str]) -> tuple[str, tuple[str, ...]]:
    """Take the `repeated` blocks off a text's two ends; return what is left, and the keys of what was taken.

    From each end, headings and blocks of links alone are passed over, and the first block of the page's own text ends
    it: what repeats inside the text (a warning, say) stays. A heading that nothing is left under goes too.
    """
    blocks = blocks_of(text) if repeated else []
    taken = _from_end(blocks, repeated) | {len(blocks) - 1 - place for place in _from_end(blocks[::-1], repeated)}
    if not taken:
        return text, ()
    gone = taken | _emptied_headings(blocks, taken)
    kept = [block for place, block in enumerate(blocks) if place not in gone]
    return "\n\n".join(kept) + "\n" if kept else "", tuple(block_key(blocks[place]) for place in sorted(taken))


def _from_end(blocks: list[str], repeated: frozenset[str]) -> set[int]:
    taken = set()
    for place, block in enumerate(blocks):
        if _is_structure(block):
            continue
        if block_key(block) in repeated:
            taken.add(place)
        elif _LINK.sub("", block).strip(" \n|·•*->«»<:"):
            break
    return taken


def _emptied_headings(blocks: list[str], taken: set[int]) -> set[int]:
    """Return the places of headings under the first level that had nothing under them but what was taken."""
    emptied: set[int] = set()
    for place in range(len(blocks) - 1, -1, -1):
        heading = _HEADING.match(blocks[place])
        if not heading or len(heading.group(1)) == 1 or place + 1 not in taken | emptied:
            continue
        following = place + 1
        while following in taken | emptied:
            following += 1
        next_heading = _HEADING.match(blocks[following]) if following < len(blocks) else None
        if following >= len(blocks) or (next_heading and len(next_heading.group(1)) <= len(heading.group(1))):
            emptied.add(place)
    return emptied


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of a text's language, or None where it has under `MIN_LETTERS` letters.

    Code fences are left out. The identifier is py3langid's (after Lui and Baldwin 2012), which knows 97 languages.
    """
    prose = _FENCE.sub("", text)[:20_000]
    if sum(map(str.isalpha, prose)) < MIN_LETTERS:
        return None
    code: str = _identifier().classify(prose)[0]
    return code


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
