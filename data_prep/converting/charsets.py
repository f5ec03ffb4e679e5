"""Bytes of a page or a text file to text, whatever they are declared to be."""

from __future__ import annotations

import codecs
import re

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE)
_HEAD_BYTES = 4096
_SAMPLE_BYTES = 65_536
_LEAST_SIGNS = 24
_USUAL = (
    "cp12",
    "iso8859",
    "latin",
    "koi8",
    "gb",
    "big5",
    "shift_jis",
    "euc",
    "utf",
    "cp932",
    "cp949",
    "cp866",
    "cp874",
)
_TEXT_SHARE = 0.98
"""Where fewer characters than this share are of a text, the bytes are none."""
_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ue000-\uf8ff]")


def decode(data: bytes, declared: str | None = None) -> str:
    """Return the text of `data`; `declared` is the charset that the server named, if it named one.

    In this order: a byte-order mark; UTF-8 if the bytes are valid UTF-8 (a false declaration is more common than text
    in another charset that happens to be valid UTF-8); the declared charset, of the server or of the page's own head;
    a guess; Windows-1252. Bytes that fit nowhere become U+FFFD, never an error.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data.decode(name, "replace")
    named = [name for name in (_known(declared), _known(_in_head(data))) if name]
    if any(name.startswith("iso2022") for name in named):
        return data.decode(named[0], "replace")
    if (text := _utf8(data)) is not None:
        return text
    for charset in [*named, _guess(data), "cp1252"]:
        if charset and charset != "utf-8":
            try:
                return data.decode("cp1252" if charset in {"iso8859-1", "ascii"} else charset)
            except (UnicodeDecodeError, LookupError):
                continue
    return data.decode("utf-8", "replace")


def is_text(text: str) -> bool:
    """Tell whether a decoded text is one: hardly any control characters or replacement characters in it."""
    sample = text[:_SAMPLE_BYTES]
    return len(_NO_TEXT.findall(sample)) <= (1 - _TEXT_SHARE) * len(sample)


def _utf8(data: bytes) -> str | None:
    """Return the text if the bytes are UTF-8, a last character that was cut off left out."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=False)
    except UnicodeDecodeError:
        return None


def _in_head(data: bytes) -> str | None:
    found = _DECLARED.search(data[:_HEAD_BYTES])
    return found.group(1).decode("ascii") if found else None


def _known(name: str | None) -> str | None:
    """Return Python's name of a text charset, or None for an unknown one and for codecs that are no charsets."""
    if not name:
        return None
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    textual = getattr(codec, "_is_text_encoding", True)
    return codec.name if textual and codec.name not in {"utf-7", "idna", "punycode"} else None


def _guess(data: bytes) -> str | None:
    """Guess a charset from enough signs beyond ASCII; charsets that no page is written in are not taken."""
    sample = data[:_SAMPLE_BYTES]
    if sum(byte > 127 for byte in sample) < _LEAST_SIGNS:
        return None
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    return best.encoding if best and best.encoding.startswith(_USUAL) else None
