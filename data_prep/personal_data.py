"""Phone numbers, e-mail addresses and links taken out of a text, for ads and chats that are shown to others.

Found are what can be recognised by its form. Names, addresses in words and spelled-out numbers stay: a text is not
anonymous because it went through here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_EMAIL = re.compile(r"[\w.+-]+\s?(?:@|\[at\]|\(at\))\s?[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}", re.IGNORECASE)
_MARKDOWN_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?:https?://|www\.|mailto:|tel:)[^)\s]*(?:\s+\"[^\"]*\")?\)")
_LINK = re.compile(
    r"<?\b(?:https?://|www\.)[^\s<>\"')\]]+>?|\b(?:t\.me|wa\.me|vk\.com|instagram\.com|facebook\.com)/[^\s<>\"')\]]+",
    re.IGNORECASE,
)
PLACEHOLDERS = {"phones": "[phone]", "e-mails": "[e-mail]", "links": "[link]"}


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
