"""Names to addresses, each answer checked before anything connects to it; addresses written into links as well."""

from __future__ import annotations

from typing import Any

from scrapy.exceptions import IgnoreRequest
from scrapy.resolver import CachingHostnameResolver
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer  # type: ignore[import-untyped]

from data_prep.crawling.addresses import is_public, literal_address

PRIVATE = "leads to a private or link-local address; --allow-private takes it"
refused: set[str] = set()
"""Hosts whose addresses were refused in this process: the error that reaches the spider does not say so."""


class CheckingResolver(CachingHostnameResolver):  # type: ignore[misc]
    """Scrapy's resolver of IPv4 and IPv6, with every address left out that is not on the public internet.

    What is connected to is one of the very addresses that were checked, never the answer to a second question.
    """

    def resolveHostName(self, receiver: Any, name: str, *rest: Any, **options: Any) -> Any:  # noqa: N802
        """Resolve a name; a host of which no address is left fails to be found, also one from the cache."""
        return super().resolveHostName(_Checked(receiver, name), name, *rest, **options)


@implementer(IResolutionReceiver)
class _Checked:
    """Hands on the public addresses of a host, and notes the host where it has others only."""

    def __init__(self, receiver: Any, name: str) -> None:
        self._receiver, self._name = receiver, name
        self._kept = self._dropped = 0

    def resolutionBegan(self, resolution: Any) -> None:  # noqa: N802
        self._receiver.resolutionBegan(resolution)

    def addressResolved(self, address: Any) -> None:  # noqa: N802
        if is_public(str(getattr(address, "host", ""))):
            self._kept += 1
            self._receiver.addressResolved(address)
        else:
            self._dropped += 1

    def resolutionComplete(self) -> None:  # noqa: N802
        if self._dropped and not self._kept:
            refused.add(self._name)
        self._receiver.resolutionComplete()


class PrivateAddressMiddleware:
    """Refuses requests to addresses written as numbers, which are never resolved; redirects and robots.txt included."""

    def process_request(self, request: Any) -> None:
        """Raise `IgnoreRequest` for a private address."""
        address = literal_address(request.url)
        if address is not None and not is_public(address):
            raise IgnoreRequest(PRIVATE)
