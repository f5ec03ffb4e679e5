"""Phone numbers, e-mail addresses and links taken out of a text, for ads and chats that are shown to others.

Found are what can be recognised by its form. Names, addresses in words and spelled-out numbers stay: a text is not
anonymous because it went through here. Commands remove it from the documents and listings that they take in; support
chats of a corpus (`chats.jsonl`) are its owner's own file, which no command writes: clean their texts one by one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from data_prep.errors import DataError

_EMAIL = re.compile(r"[\w.+-]+\s?(?:@|\[at\]|\(at\))\s?[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}", re.IGNORECASE)
_MARKDOWN_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?:https?://|www\.|mailto:|tel:)[^)\s]*(?:\s+\"[^\"]*\")?\)")
_LINK = re.compile(
    r"<?\b(?:https?://|www\.)[^\s<>\"')\]]+>?|\b(?:t\.me|wa\.me|vk\.com|instagram\.com|facebook\.com)/[^\s<>\"')\]]+",
    re.IGNORECASE,
)
PLACEHOLDERS = {"phones": "[phone]", "e-mails": "[e-mail]", "links": "[link]"}

_REGIONS = {
    "ar": ("EG", "SA", "AE"), "bg": ("BG",), "cs": ("CZ",), "da": ("DK",), "de": ("DE", "AT", "CH"), "el": ("GR",),
    "en": ("US", "GB"), "es": ("ES", "MX", "AR"), "et": ("EE",), "fa": ("IR",), "fi": ("FI",), "fr": ("FR", "BE", "CH"),
    "he": ("IL",), "hi": ("IN",), "hr": ("HR",), "hu": ("HU",), "id": ("ID",), "it": ("IT",), "ja": ("JP",),
    "kk": ("KZ",), "ko": ("KR",), "lt": ("LT",), "lv": ("LV",), "nl": ("NL", "BE"), "no": ("NO",), "pl": ("PL",),
    "pt": ("PT", "BR"), "ro": ("RO",), "ru": ("RU",), "sk": ("SK",), "sl": ("SI",), "sr": ("RS",), "sv": ("SE",),
    "th": ("TH",), "tr": ("TR",), "uk": ("UA",), "vi": ("VN",), "zh": ("CN", "TW"),
}  # fmt: skip


def regions_of(language: str) -> tuple[str, ...]:
    """Return the regions (ISO 3166) whose national phone numbers a text in a language (ISO 639-1) is likely to hold.

    A language that is not known has none: numbers with a country code are found all the same.
    """
    return _REGIONS.get(language.split("-")[0].lower(), ())


def checked_regions(regions: Sequence[str]) -> tuple[str, ...]:
    """Return regions in capitals; raises `DataError` that names those without a numbering plan."""
    import phonenumbers

    codes = tuple(region.strip().upper() for region in regions)
    if unknown := [code for code in codes if code not in phonenumbers.SUPPORTED_REGIONS]:
        raise DataError(
            f"no phone numbers are known of the region {', '.join(unknown)}; give codes such as US, DE or RU"
        )
    return codes


def remove_personal_data(text: str, regions: Sequence[str] = ("US", "GB")) -> tuple[str, Counter[str]]:
    """Return the text with a placeholder for each phone number, e-mail address and link, and how many there were.

    A markdown link keeps its words; a picture of the corpus keeps its path. Numbers with a country code are read
    anywhere, national ones as those of `regions` (ISO 3166), and only if the numbering plan of the region knows them.
    """
    counts: Counter[str] = Counter()

    def gone(kind: str) -> str:
        counts[kind] += 1
        return PLACEHOLDERS[kind]

    def words(match: re.Match[str]) -> str:
        counts["links"] += 1
        return match.group(1)

    text = _MARKDOWN_LINK.sub(words, text)
    text = _EMAIL.sub(lambda _: gone("e-mails"), text)
    text = _LINK.sub(lambda _: gone("links"), text)
    for start, end in reversed(_phones(text, regions)):
        text = text[:start] + gone("phones") + text[end:]
    return text, counts


def _phones(text: str, regions: Sequence[str]) -> list[tuple[int, int]]:
    """Return the spans of the phone numbers, in order, none within another."""
    import phonenumbers

    found: list[tuple[int, int]] = []
    for region in regions or ("ZZ",):
        for match in phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.VALID):
            if all(match.end <= start or match.start >= end for start, end in found):
                found.append((match.start, match.end))
    return sorted(found)
