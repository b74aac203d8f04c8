"""A whole probe: look the destination up, visit its addresses one after the other, try them if that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from twisted.internet.defer import Deferred

from smtpproxy.net.resolver import Resolver
from smtpproxy.net.stspolicy import StsPolicy
from smtpproxy.net.tlspolicy import MxHost
from smtpproxy.ops.probe.destination import Destination
from smtpproxy.ops.probe.facts import Found, Host, Phase, Server, Sts
from smtpproxy.ops.probe.lookup import Hosts, find_hosts, find_policy, find_records
from smtpproxy.ops.probe.tlsview import dane_of
from smtpproxy.ops.probe.trial import Envelope, tried
from smtpproxy.ops.probe.visit import Place, Tools, visit

__all__ = ["MOST_ADDRESSES", "Look", "Probe", "probe"]

MOST_ADDRESSES: Final = 20
"""Addresses that are visited; beyond them only their number is told."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What is to be done, and with what.

    ``fetch`` gets policies of MTA-STS, None where they are not wanted; ``envelope``: for the early flight, None for
    none.
    """

    tools: Tools
    resolver: Resolver
    fetch: Callable[[str], Deferred[bytes]] | None = None
    envelope: Envelope | None = None


class Look:
    """Told what is found while it is being found; does nothing by itself."""

    def known(self, found: Found) -> None:
        """The destination is looked up; its hosts have no servers yet."""

    def host(self, host: Host) -> None:
        """A host begins."""

    def server(self, host: Host, server: Server) -> None:
        """An address was visited."""


async def probe(what: Destination, order: Probe, look: Look | None = None, *, asked: str = "") -> Found:
    """Probe a destination; never raises for what servers and DNS do.

    ``asked``: how it was written, for the report.
    """
    look = look or Look()
    clock = order.tools.reactor
    began = clock.seconds()
    hosts = await find_hosts(order.resolver, what)
    seconds = max(0.0, clock.seconds() - began)
    sts, policy = Sts("not asked"), None
    if hosts.hosts:
        sts, policy = await find_policy(order.resolver, order.fetch, clock, hosts.hosts[0])
    found = Found(
        asked or what.name,
        hosts.kind,
        order.tools.ehlo,
        seconds,
        sts,
        tuple(_host(host, hosts, policy) for host in hosts.hosts),
        hosts.trouble,
    )
    look.known(found)
    room = MOST_ADDRESSES
    done = []
    for mx, host in zip(hosts.hosts, found.hosts, strict=True):
        addresses = mx.addresses[:room]
        room -= len(addresses)
        begun = replace(host, left_out=len(mx.addresses) - len(addresses))
        look.host(begun)
        done.append(replace(begun, servers=await _servers(order, mx, addresses, seconds, begun, look)))
    return replace(found, hosts=tuple(done))


async def _servers(  # noqa: PLR0917  # all of it is one step of probe
    order: Probe, mx: MxHost, addresses: tuple[str, ...], dns_seconds: float, host: Host, look: Look
) -> tuple[Server, ...]:
    if not addresses:
        return ()
    tlsa, secure = await find_records(order.resolver, mx)
    dane = dane_of(tlsa, asked=mx.name != addresses[0], secure=secure)
    names = tuple(dict.fromkeys(name for name in (tlsa.base, mx.domain, mx.expanded) if name))
    servers = []
    for address in addresses:
        place = Place(mx.name, address, mx.port, tlsa, names, dane, (Phase("DNS", dns_seconds),))
        server = await visit(order.tools, place)
        if order.envelope is not None and not server.trouble:
            server = replace(server, trial=await tried(order.tools, place, server, order.envelope))
        look.server(host, server)
        servers.append(server)
    return tuple(servers)


def _host(mx: MxHost, hosts: Hosts, policy: StsPolicy | None) -> Host:
    trouble = ""
    if not mx.addresses:
        trouble = "DNS gives no address now" if mx in hosts.unknown else "it has no address"
    return Host(
        mx.name,
        mx.preference if mx.source == "mx" else None,
        secure=mx.mx_secure and mx.secure,
        sts_allows=None if policy is None or policy.mode == "none" else policy.allows(mx.name),
        trouble=trouble,
    )
