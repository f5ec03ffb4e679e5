"""Whether a question makes sense to somebody who does not see the text that it was made from.

Rules for English and Russian, by what gives such questions away: a pointer to the text ("this section", "mentioned
above"), a demonstrative before a general noun ("this feature"), a pronoun with nothing before it to stand for.
"""

from __future__ import annotations

import re

from data_prep.checks import content_words

_TEXT = (
    "text|passage|section|paragraph|document|excerpt|context|article|chapter|page|table|figure|example|sentence|"
    "information|content|list|note|snippet"
)
_GENERAL = (
    "feature|features|function|functions|alert|alerts|message|warning|step|steps|process|procedure|system|systems|"
    "setting|settings|option|options|device|product|item|component|part|parts|mode|method|issue|problem|condition|"
    "error|code|symbol|icon|button|tool|action|type|kind|topic|subject|thing|things"
)
_POINTERS = re.compile(
    rf"\b(?:(?:this|these|the given|the provided|the above|the following|the previous|said) "
    rf"(?:[\w-]+ )?(?:{_TEXT}|{_GENERAL})\b"
    rf"|(?:in|by|from|of|to|with) the (?:{_TEXT})\b(?! (?:of|for|on|about|in)\b)"
    rf"|the (?:{_TEXT}) (?:say|state|mention|describe|recommend|suggest|provide|give|tell|explain|list|advise)s?\b"
    r"|(?:mentioned|described|listed|shown|given|stated|discussed|provided|specified|outlined|explained)"
    r" (?:above|below|here|earlier|in the)\b"
    r"|according to the (?:author|writer|speaker)"
    r"|^[^,]*\bin (?:this|that|such a) (?:case|situation)\b"
    r"|\bthe (?:above|aforementioned)\b|\bthe author\b)",
    re.IGNORECASE,
)
_OPENING = (
    r"^(?:what|who|when|where|why|how|which|is|are|does|do|did|can|should|will|would|must)\b"
    r"(?: (?:many|much|long|often|far|does|do|did|is|are|was|were|can|should|will|would|must|happens|if|when))*"
)
_PRONOUN = re.compile(
    _OPENING + r" (?:(?:it|they|them|he|she)\b(?!.* (?:to|that|when|if|whether|for|before|after) )"
    r"|(?:this|these|that|those)(?:\?| (?:mean|happen|occur|work|apply|be|do|differ|affect|help|refer)\b))",
    re.IGNORECASE,
)
"""An "it" that a clause follows ("is it safe to …") stands for the clause."""
_UNNAMED = re.compile(
    r"\bthe (?:alert|issue|problem|error|fault|feature|function|message)\b"
    r"(?!'s)(?! (?:of|for|on|about|in|with|called|named|when|that|which|from|to|light|lamp)\b)",
    re.IGNORECASE,
)
_NAMING = re.compile(r"\w*\d\w*|(?<=\s)[A-Z][\w-]+|\w+_\w+|[\"“«‘'].+?[\"”»’']")
_POINTERS_RU = re.compile(
    r"\b(?:эт(?:от|а|о|и|ой|ого|ому|их|им|у) (?:[\w-]+ )?"
    r"(?:функци|раздел|текст|документ|абзац|отрыв|таблиц|предупрежд|сообщен|режим|систем|устройств|шаг|случа|ситуаци|"
    r"пример|страниц|кнопк|настройк|проблем|ошибк|объявлен)\w*"
    r"|(?:в|по|из|согласно) (?:данн\w+ |приведённ\w+ |приведенн\w+ )?"
    r"(?:тексте?|отрывк\w+|абзац\w+|раздел[еау])(?!\w| «| \")"
    r"|(?:указан|упомянут|описан|приведён|приведен)\w* (?:выше|ниже|здесь))",
    re.IGNORECASE,
)
_PRONOUN_RU = re.compile(
    r"^(?:что|как|когда|где|почему|зачем|сколько|можно ли|нужно ли)(?: \w+)? "
    r"(?:он|она|оно|они|его|её|ее|их|это|ему|ей)\b",
    re.IGNORECASE,
)

LANGUAGES = ("en", "ru")
"""The languages that have rules; in others only questions that name nothing are found."""


def why_not_alone(question: str) -> str | None:
    """Return what keeps a question from making sense alone, as a stretch of it or in words; None if nothing does."""
    for pattern in (_POINTERS, _POINTERS_RU, _PRONOUN, _PRONOUN_RU):
        found = pattern.search(question)
        if found:
            return f"“{found.group().strip()}”"
    unnamed = _UNNAMED.search(question)
    if unnamed and not _NAMING.search(question):
        return f"“{unnamed.group()}”, which is not named"
    if not content_words(question):
        return "names nothing"
    return None
