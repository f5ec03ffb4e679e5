"""Where in its source a passage stands: the page of a PDF, the section's address of a web page."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from urllib.parse import quote

from data_prep.corpus import ManifestEntry

_IN_FRAGMENTS = "!$&'()*+,;=:@/?%"
"""Characters that a fragment may hold as they are (RFC 3986); a percent sign is taken to be a code already."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a source: its page (counted from 1), the id of its section, and a link that opens it there."""

    page: int | None = None
    anchor: str | None = None
    link: str | None = None


def place_of(entry: ManifestEntry, offset: int) -> Place:
    """Return the place of the character at `offset` of a document.

    The link is the source's address with `#anchor` or `#page=N`; None where the source is no web address.
    """
    page = max(1, bisect_right(entry.page_offsets, offset)) if entry.page_offsets else None
    anchor = None
    if entry.anchors:
        before = bisect_right([start for start, _ in entry.anchors], offset)
        anchor = entry.anchors[before - 1][1] if before else None
    source = entry.source or ""
    if not source.startswith(("http://", "https://")):
        return Place(page, anchor)
    fragment = f"#{quote(anchor, safe=_IN_FRAGMENTS)}" if anchor else f"#page={page}" if page else ""
    return Place(page, anchor, source.split("#")[0] + fragment)
