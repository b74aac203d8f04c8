"""The addresses of many hosts, all asked for at the same time."""

from __future__ import annotations

from functools import lru_cache, partial
from ipaddress import IPv6Address, ip_address
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smtpproxy.net.dnslookup import Answer, Kind
    from smtpproxy.net.resolver import Resolver
    from smtpproxy.net.tlspolicy import MxHost

_FAMILIES: Final[dict[str, tuple[Kind, ...]]] = {
    "any": ("AAAA", "A"),
    "ipv4": ("A",),
    "ipv6": ("AAAA",),
    "prefer-ipv4": ("A", "AAAA"),
    "prefer-ipv6": ("AAAA", "A"),
}
_LOCALHOST: Final[dict[Kind, str]] = {"A": "127.0.0.1", "AAAA": "::1"}


def find_addresses(
    resolver: Resolver, hosts: Sequence[MxHost], which: str, found: Callable[[list[MxHost]], None]
) -> None:
    """Fill in the addresses of hosts, and what DNSSEC says of them.

    ``which``: as the setting ``addresses`` of a route.  Within a family addresses stay in the order in which DNS gave
    them (RFC 5321, 5.1); with ``any`` the families alternate, IPv6 first, so that one that does not work here does not
    use up the tries.

    ``found`` is called exactly once, perhaps before this returns, with the hosts of which not all could be found out
    now.  One that has no address and is not among them has none that may be used.
    """
    _Collection(hosts, which, found).begin(resolver)


class _Collection:
    """Answers that come in."""

    __slots__ = ("_answers", "_families", "_found", "_hosts", "_left", "_which")

    def __init__(self, hosts: Sequence[MxHost], which: str, found: Callable[[list[MxHost]], None]) -> None:
        self._hosts = hosts
        self._which = which
        self._families = _FAMILIES[which]
        self._found = found
        self._answers: list[dict[Kind, Answer]] = [{} for _ in hosts]
        self._left = 1  # ourselves: nothing is complete before everything was asked

    def begin(self, resolver: Resolver) -> None:
        for place, host in enumerate(self._hosts):
            if self._is_written_down(host):
                continue
            for kind in self._families:
                self._left += 1
                resolver.query(host.name, kind, partial(self._answered, place, kind))
        self._one_less()

    def _is_written_down(self, host: MxHost) -> bool:
        """Whether a host needs no DNS: an address, or localhost (RFC 6761, 6.3)."""
        if host.name == "localhost":
            host.addresses = tuple(_LOCALHOST[kind] for kind in self._families)
            return True
        if not is_address(host.name):
            return False
        if ("AAAA" if ":" in host.name else "A") in self._families:
            host.addresses = (host.name,)
        return True

    def _answered(self, place: int, kind: Kind, answer: Answer) -> None:
        self._answers[place][kind] = answer
        self._one_less()

    def _one_less(self) -> None:
        self._left -= 1
        if self._left:
            return
        unknown = []
        for host, answers in zip(self._hosts, self._answers, strict=True):
            if not answers:
                continue
            _fill_in(host, [answers[kind] for kind in self._families], alternate=self._which == "any")
            if any(answer.status == "tempfail" for answer in answers.values()):
                unknown.append(host)
        self._found(unknown)


def _fill_in(host: MxHost, answers: list[Answer], *, alternate: bool) -> None:
    families = [[record.address for record in answer.records if _can_be_used(record.address)] for answer in answers]
    in_order = chain.from_iterable(zip_longest(*families)) if alternate else chain.from_iterable(families)
    host.addresses = tuple(address for address in in_order if address is not None)
    given = [answer for answer in answers if answer.status != "tempfail"]
    host.secure = bool(given) and all(answer.secure for answer in given)
    for answer in given:
        if answer.aliases and answer.status == "ok":
            host.canonical = answer.name
            host.alias_secure = answer.alias_secure


@lru_cache(4096)
def _can_be_used(address: str) -> bool:
    """Whether an address that DNS gave can be one of a mail server somewhere else."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and (ip.ipv4_mapped is not None or ip.is_link_local):
        return False
    return not (ip.is_unspecified or ip.is_multicast or address == "255.255.255.255")


@lru_cache(1024)
def is_address(text: str) -> bool:
    """Tell whether a text is an IPv4 or IPv6 address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
