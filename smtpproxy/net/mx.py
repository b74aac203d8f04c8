"""The hosts that take mail for a domain: its MX records, or itself (RFC 5321, 5.1; RFC 7505)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smtpproxy.net.tlspolicy import MxHost, unroutable

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from smtpproxy.net.dnslookup import Answer
    from smtpproxy.net.resolver import Resolver
    from smtpproxy.session.outbound.target import Unroutable

# Nobody has so many; each costs two questions.
_MOST_HOSTS: Final = 32


def find_mx(
    resolver: Resolver, domain: str, port: int, random: Random, found: Callable[[list[MxHost] | Unroutable], None]
) -> None:
    """Find the hosts of a domain (an A-label), best first, those of equal preference shuffled; without addresses yet.

    - No MX records: the domain itself is the host ("implicit MX").
    - The one record ``0 .``: the domain takes no mail (null MX): 556 5.1.10.  Beside others, where it must not be, it
      is ignored, as it names no host.
    - No such domain: 550 5.1.2.  Not to be found out now: 451 4.4.3.

    ``found`` is called exactly once, perhaps before this returns.
    """
    resolver.query(domain, "MX", lambda answer: found(_hosts(answer, domain, port, random)))


def _hosts(answer: Answer, domain: str, port: int, random: Random) -> list[MxHost] | Unroutable:
    if answer.status == "tempfail":
        return unroutable(b"451 4.4.3", f"{domain}: DNS gives no answer now")
    if answer.status == "nxdomain":
        return unroutable(b"550 5.1.2", f"{domain}: no such domain")
    expanded = answer.name if answer.secure else domain
    if answer.status == "nodata":
        implicit = MxHost(domain, port, source="implicit", mx_secure=answer.secure, domain=domain, expanded=expanded)
        return [implicit]
    best: dict[str, int] = {}
    for preference, name in answer.records:
        if name:
            best[name] = min(preference, best.get(name, preference))
    if not best:
        return unroutable(b"556 5.1.10", f"{domain} takes no mail (null MX)")
    # Equal ones in an order of chance: each sender's share of the load goes to another of them (RFC 5321, 5.1).
    order = sorted(best, key=lambda name: (best[name], random.random()))
    return [
        MxHost(name, port, preference=best[name], mx_secure=answer.secure, domain=domain, expanded=expanded)
        for name in order[:_MOST_HOSTS]
    ]
