"""Which addresses a crawl may fetch: http and https, and no host of a private network unless that is allowed."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urljoin, urlsplit

from w3lib.url import canonicalize_url

SKIPPED_SUFFIXES = frozenset(
    {
        ".css", ".js", ".mjs", ".json", ".map", ".ico", ".woff", ".woff2", ".ttf", ".eot", ".otf", ".zip", ".gz",
        ".tgz", ".bz2", ".xz", ".7z", ".rar", ".tar", ".exe", ".msi", ".dmg", ".deb", ".rpm", ".apk", ".iso",
        ".img", ".jar",
        ".mp3", ".mp4", ".m4a", ".avi", ".mov", ".mkv", ".webm", ".ogg", ".wav", ".flac", ".xls", ".xlsx",
        ".ppt", ".pptx", ".rss", ".atom", ".ics",
    }
)  # fmt: skip
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg"})
_LONGEST = 2_000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the public internet, also one that an IPv6 address carries inside."""
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if inner is None and parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast


def literal_address(url: str) -> str | None:
    """Return the IP address that a URL names itself, or None if it names a host."""
    host = urlsplit(url).hostname or ""
    try:
        return str(ipaddress.ip_address(host.split("%")[0]))
    except ValueError:
        return None


def clean(url: str, base: str = "") -> str | None:
    """Return a link as one canonical URL, or None if it is none that a crawl could fetch."""
    try:
        joined = urljoin(base, url.strip())
        parts = urlsplit(joined)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or len(joined) > _LONGEST:
            return None
        _ = parts.port
        return str(canonicalize_url(joined, keep_fragments=False))
    except ValueError:
        return None


def suffix(url: str) -> str:
    """Return the ending of a URL's path in lower case, with its point."""
    found = re.search(r"\.[A-Za-z0-9]{1,5}$", urlsplit(url).path)
    return found.group().lower() if found else ""


def default_prefix(url: str) -> str:
    """Return the folder that a start page lies in: what a crawl stays inside of."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rsplit('/', 1)[0]}/"


def site_root(url: str) -> str:
    """Return the root of a URL's site."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/"
