"""What DNS says of a destination: its hosts and their addresses, TLSA records, and the policy of MTA-STS."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred

from smtpproxy.config.domains import is_hostname
from smtpproxy.net.danelookup import NO_DANE, TlsaFound, base_domains, find_tlsa
from smtpproxy.net.hosts import find_addresses, is_address
from smtpproxy.net.mtasts import MtaSts
from smtpproxy.net.mx import find_mx
from smtpproxy.net.resolver import Resolver, a_label
from smtpproxy.net.stspolicy import StsPolicy
from smtpproxy.net.tlspolicy import MxHost
from smtpproxy.ops.probe.destination import Destination
from smtpproxy.ops.probe.facts import Sts
from smtpproxy.session.outbound.target import Unroutable

__all__ = ["Hosts", "find_hosts", "find_policy", "find_records"]

T = TypeVar("T")

_NO_DOMAIN: Final = frozenset({"nexthop", "literal"})


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of a destination, in the order of their preference."""

    kind: str
    """``domain`` or ``host``."""
    hosts: tuple[MxHost, ...] = ()
    unknown: tuple[MxHost, ...] = ()
    """Those of which not all could be found out now."""
    trouble: str = ""


async def find_hosts(resolver: Resolver, what: Destination) -> Hosts:
    """Look for hosts: the MX of a name without port, else the host itself.

    A name without MX is a host, as it is for mail (RFC 5321, 5.1).
    """
    hosts: list[MxHost] | Unroutable
    if is_address(what.name):
        hosts = [MxHost(what.name, what.port, source="literal", mx_secure=True)]
    else:
        try:
            name = a_label(what.name)
        except ValueError as problem:
            return Hosts("domain", trouble=str(problem))
        if not is_hostname(name):
            return Hosts("domain", trouble="this is no name that could be in DNS")
        hosts = [MxHost(name, what.port, source="nexthop", mx_secure=True)]
        if not what.is_host:
            ask = partial(find_mx, resolver, name, what.port, random.SystemRandom())
            hosts = await _answer_of(ask)
    if isinstance(hosts, Unroutable):
        return Hosts("domain", trouble=hosts.why)
    unknown = await _answer_of(partial(find_addresses, resolver, hosts, "any"))
    kind = "domain" if hosts[0].source == "mx" else "host"
    return Hosts(kind, tuple(hosts), tuple(unknown))


async def find_records(resolver: Resolver, host: MxHost) -> tuple[TlsaFound, bool]:
    """Look for TLSA records; the second is whether DNSSEC vouches for the host, so that they could count."""
    if is_address(host.name) or not base_domains(host):
        return NO_DANE, False
    return await _answer_of(partial(find_tlsa, resolver, host)), True


async def find_policy(
    resolver: Resolver,
    fetch: Callable[[str], Deferred[bytes]] | None,
    clock: Any,  # noqa: ANN401  # IReactorTime
    host: MxHost,
) -> tuple[Sts, StsPolicy | None]:
    """Look for the policy of MTA-STS that holds for a host, if this is about a domain."""
    if fetch is None or host.source in _NO_DOMAIN:
        return Sts("not asked"), None
    failures: list[str] = []
    mta_sts = MtaSts(resolver, fetch, clock.seconds, lambda _, why: failures.append(why))
    policy: StsPolicy | None = await _answer_of(partial(mta_sts.find, host.domain))
    if policy is not None:
        return Sts("found", policy.mode, policy.mx, policy.max_age), policy
    return (Sts("failed", why=failures[0]) if failures else Sts("none")), None


def _answer_of(ask: Callable[[Callable[[T], None]], object]) -> Deferred[T]:
    """Make a Deferred of a question that calls back once."""
    answer: Deferred[T] = Deferred()
    ask(answer.callback)
    return answer
