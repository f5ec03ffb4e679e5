"""Names to addresses, each answer checked before anything connects to it; addresses written into links as well."""

from __future__ import annotations

from typing import Any

from scrapy.exceptions import IgnoreRequest
from scrapy.resolver import CachingThreadedResolver
from twisted.internet.error import DNSLookupError

from data_prep.crawling.addresses import is_public, literal_address

PRIVATE = "leads to a private or link-local address; --allow-private takes it"
refused: set[str] = set()
"""Hosts whose addresses were refused in this process: the error that reaches the spider does not say so."""


class CheckingResolver(CachingThreadedResolver):  # type: ignore[misc]
    """Scrapy's resolver, with every answer refused that is not on the public internet."""

    def getHostByName(self, name: str, timeout: Any = ()) -> Any:  # noqa: N802
        """Resolve a name; fails for a private answer, also for one from the cache."""

        def check(address: str) -> str:
            if is_public(address):
                return address
            refused.add(name)
            raise DNSLookupError(f"{name} {PRIVATE}")

        return super().getHostByName(name, timeout).addCallback(check)


class PrivateAddressMiddleware:
    """Refuses requests to addresses written as numbers, which are never resolved; redirects and robots.txt included."""

    def process_request(self, request: Any) -> None:
        """Raise `IgnoreRequest` for a private address."""
        address = literal_address(request.url)
        if address is not None and not is_public(address):
            raise IgnoreRequest(PRIVATE)
