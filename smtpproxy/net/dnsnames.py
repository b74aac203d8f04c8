"""Names that Twisted's own clients connect to, asked of our resolver: as ``dns`` says, not as the system would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
)
from zope.interface import implementer

from .hosts import find_addresses
from .tlspolicy import MxHost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .resolver import Resolver

__all__ = ["DnsNames", "NamedReactor"]


@implementer(IReactorPluggableNameResolver, IReactorTCP, IReactorTime)
class NamedReactor:
    """A reactor as it is, but for the names of hosts: for Twisted's HostnameEndpoint, and what is built upon it."""

    def __init__(self, reactor: Any, resolver: Resolver) -> None:
        """``reactor``: IReactorTCP and IReactorTime."""
        self._reactor = reactor
        self.nameResolver = DnsNames(resolver)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IHostnameResolver)
class DnsNames:
    """Finds the addresses of hosts as deliveries do: IPv6 and IPv4 in turns, remembered, within the limits of time."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def resolveHostName(
        self,
        resolutionReceiver: Any,  # noqa: N803  # Twisted's interface
        hostName: str,  # noqa: N803  # the same
        portNumber: int = 0,  # noqa: N803  # the same
        addressTypes: Sequence[type] | None = None,  # noqa: N803  # the same
        transportSemantics: Literal["TCP", "UDP"] = "TCP",  # noqa: N803  # the same
    ) -> _Resolution:
        """Tell an IResolutionReceiver the addresses of a host; none if it has none, or DNS is down."""
        host = MxHost(hostName, portNumber)
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def found(_unknown: list[MxHost]) -> None:
            for text in host.addresses:
                kind = IPv6Address if ":" in text else IPv4Address
                if addressTypes is None or kind in addressTypes:
                    resolutionReceiver.addressResolved(kind(transportSemantics, text, portNumber))
            resolutionReceiver.resolutionComplete()

        find_addresses(self._resolver, [host], "any", found)
        return resolution


@implementer(IHostResolution)
class _Resolution:
    """A search for addresses."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Do nothing: it ends by itself, and others may wait for the same answers."""
