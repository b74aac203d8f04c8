"""Names in Twisted's own clients are asked of our resolver."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from smtpproxy.net.dnsnames import DnsNames, NamedReactor

from .routing import Names, Zones

WEB: Zones = {
    ("web.example", "A"): ["192.0.2.1", "192.0.2.2"],
    ("web.example", "AAAA"): ["2001:db8::1"],
    ("down.example", "A"): "tempfail",
    ("down.example", "AAAA"): "tempfail",
}


class Receiver:
    """An IResolutionReceiver that writes everything down."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def resolutionBegan(self, resolution: Any) -> None:  # noqa: N802  # Twisted's interface
        assert verifyObject(IHostResolution, resolution)
        self.told.append(resolution.name)

    def addressResolved(self, address: Any) -> None:  # noqa: N802  # the same
        self.told.append(address)

    def resolutionComplete(self) -> None:  # noqa: N802  # the same
        self.told.append("end")


def resolve(name: str, *arguments: Any, waits: bool = False) -> tuple[Receiver, Names]:
    names, receiver = Names(WEB, waits=waits), Receiver()
    resolver: Any = names
    own = DnsNames(resolver)
    assert verifyObject(IHostnameResolver, own)
    own.resolveHostName(receiver, name, 443, *arguments)
    return receiver, names


def test_the_families_take_turns() -> None:
    receiver, names = resolve("web.example")
    six, first, second = (
        IPv6Address("TCP", "2001:db8::1", 443),
        IPv4Address("TCP", "192.0.2.1", 443),
        IPv4Address("TCP", "192.0.2.2", 443),
    )
    assert receiver.told == ["web.example", six, first, second, "end"]
    assert names.asked == [("web.example", "AAAA"), ("web.example", "A")]


def test_one_family_only() -> None:
    receiver, _ = resolve("web.example", [IPv6Address], "UDP")
    assert receiver.told == ["web.example", IPv6Address("UDP", "2001:db8::1", 443), "end"]


@pytest.mark.parametrize("name", ["down.example", "nowhere.example"])
def test_no_address_is_an_end_too(name: str) -> None:
    assert resolve(name)[0].told == [name, "end"]


def test_answers_may_come_later() -> None:
    receiver, names = resolve("web.example", waits=True)
    assert receiver.told == ["web.example"]
    receiver.told[0] = None
    for answer in names.waiting or []:
        answer()
    assert len(receiver.told) == 5


@pytest.mark.parametrize(("name", "address"), [("web.example", "2001:db8::1"), ("nowhere.example", "")])
def test_twisteds_endpoint_connects_to_what_our_resolver_says(name: str, address: str) -> None:
    reactor, resolver = MemoryReactorClock(), Names(WEB)
    named = NamedReactor(reactor, resolver)  # type: ignore[arg-type]  # all of a resolver that is asked for
    problems: list[Any] = []
    connecting = HostnameEndpoint(named, name, 443).connect(Factory())
    connecting.addErrback(lambda failure: problems.append(failure.check(DNSLookupError)))
    assert [(host, port) for host, port, *_ in reactor.tcpClients] == ([(address, 443)] if address else [])
    assert problems == ([] if address else [DNSLookupError])
    connecting.cancel()
