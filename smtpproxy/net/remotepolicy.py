"""What TLS has to be with each mail host of a destination: the route's word, DANE, MTA-STS, and what wins over what.

    mode: none                                         clear text, nobody is asked
    verified or implicit, with pins, name or a CA      that decides, nobody is asked
    usable TLSA records                                DANE decides, whatever MTA-STS says (RFC 8461, 2)
    TLSA records could not be had                      the host is left out
    MTA-STS in mode enforce                            the host must be one of its patterns, and prove its name
    TLSA records, none of them usable                  at least TLS, without proof (RFC 7672, 2.2)
    else                                               the route's word

No rule makes the demands of another smaller: what TLS there has to be is the most that any of them asks for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from smtpproxy.session.outbound.target import TlsWish

from .danelookup import NO_DANE, TlsaFound, find_tlsa
from .security import Security, is_proved_by_route, security_by_route
from .tlspolicy import unroutable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smtpproxy.config import RemoteTls as Settings
    from smtpproxy.config import Route
    from smtpproxy.session.outbound.target import Unroutable

    from .mtasts import MtaSts
    from .resolver import Resolver
    from .stspolicy import StsPolicy
    from .tlspolicy import Decision, MxHost

__all__ = ["PolicyReport", "RemotePolicy", "decide_host"]


class PolicyReport(Protocol):
    """Who is told what policies have come to, for the log."""

    def host_left_out(self, domain: str, host: str, why: str) -> None:
        """A mail host must not be used for a domain."""


class RemotePolicy:
    """Decides on the hosts of a destination (a TlsPolicy)."""

    def __init__(self, resolver: Resolver, mta_sts: MtaSts | None, report: PolicyReport) -> None:
        """``mta_sts``: None where no route wants it."""
        self._resolver = resolver
        self._mta_sts = mta_sts
        self._report = report

    def prepare(self, route: Route, domain: str) -> None:
        """See TlsPolicy: the policy of MTA-STS is asked for at the same time as the MX, not after it."""
        settings = route.tls
        if self._mta_sts is not None and settings.mta_sts and _is_open(settings):
            self._mta_sts.find(domain, _kept)

    def decide(
        self,
        route: Route,
        domain: str,
        hosts: Sequence[MxHost],
        found: Callable[[list[Decision] | Unroutable], None],
    ) -> None:
        """See TlsPolicy."""
        settings = route.tls
        decision = _Decision(self._report, settings, domain, hosts, found)
        if not _is_open(settings) or hosts[0].source not in {"mx", "implicit"}:
            decision.settle()
            return
        if settings.dane:
            for number, host in enumerate(hosts):
                decision.wait_for_tlsa(self._resolver, number, host)
        if settings.mta_sts and self._mta_sts is not None:
            decision.wait_for_policy(self._mta_sts)
        decision.settle()


def _is_open(settings: Settings) -> bool:
    """Whether DNS has a say, for hosts that it has named."""
    return settings.mode != "none" and not is_proved_by_route(settings)


def _kept(_policy: StsPolicy | None) -> None:
    """Mind nothing: the answer is remembered for whoever decides."""


class _Decision:
    """A decision that is under way."""

    __slots__ = ("_domain", "_found", "_hosts", "_policy", "_report", "_settings", "_tlsa", "_waiting")

    def __init__(
        self,
        report: PolicyReport,
        settings: Settings,
        domain: str,
        hosts: Sequence[MxHost],
        found: Callable[[list[Decision] | Unroutable], None],
    ) -> None:
        self._report = report
        self._settings = settings
        self._domain = domain
        self._hosts = hosts
        self._found = found
        self._policy: StsPolicy | None = None
        self._tlsa: list[TlsaFound] = [NO_DANE] * len(hosts)
        self._waiting = 1  # for answers, and for settle, so that nothing is decided while questions are being asked

    def wait_for_tlsa(self, resolver: Resolver, number: int, host: MxHost) -> None:
        """Ask for the TLSA records of a host."""

        def answered(tlsa: TlsaFound) -> None:
            self._tlsa[number] = tlsa
            self.settle()

        self._waiting += 1
        find_tlsa(resolver, host, answered)

    def wait_for_policy(self, mta_sts: MtaSts) -> None:
        """Ask for the policy of the domain."""

        def answered(policy: StsPolicy | None) -> None:
            self._policy = policy
            self.settle()

        self._waiting += 1
        mta_sts.find(self._domain, answered)

    def settle(self) -> None:
        """Decide, if this was the last answer that was waited for."""
        self._waiting -= 1
        if self._waiting:
            return
        decisions: list[Decision] = []
        why = ""
        for host, tlsa in zip(self._hosts, self._tlsa, strict=True):
            security = decide_host(self._settings, host, tlsa, self._policy)
            if isinstance(security, Security):
                decisions.append((host, security.wish, security))
            else:
                why = why or security
                self._report.host_left_out(self._domain, host.name, security)
        self._found(decisions or unroutable(b"451 4.7.5", why))


def decide_host(settings: Settings, host: MxHost, tlsa: TlsaFound, policy: StsPolicy | None) -> Security | str:
    """Give what a host has to prove, or why it must not be used."""
    security = security_by_route(settings, host.name)
    if tlsa.status == "failed":
        return tlsa.why
    if tlsa.records:
        names = tuple(dict.fromkeys(name for name in (tlsa.base, host.domain, host.expanded) if name))
        wish, sni = _at_least(security.wish, TlsWish.VERIFIED), settings.sni or tlsa.base
        return Security(wish, "dane", names, tlsa.records, sni, "dane")
    if policy is not None and policy.mode == "enforce":
        if not policy.allows(host.name):
            return f"{host.name} is none of the MX hosts in the MTA-STS policy of its domain"
        wish, sni = _at_least(security.wish, TlsWish.VERIFIED), settings.sni or host.name
        return Security(wish, "pkix", (host.name,), sni=sni, policy="mta-sts")
    if tlsa.status == "found":
        note = "there are TLSA records, but none that can be used"
        security = replace(security, wish=_at_least(security.wish, TlsWish.REQUIRED), policy="dane", note=note)
    if policy is not None and policy.mode == "testing":
        named = "" if policy.allows(host.name) else ", which does not name this MX host"
        note = f"the domain has an MTA-STS policy in mode testing{named}"
        security = replace(security, note=f"{security.note}; {note}" if security.note else note)
    return security


_ORDER = tuple(TlsWish)


def _at_least(wish: TlsWish, least: TlsWish) -> TlsWish:
    """The greater of two wishes; they are defined in that order."""
    return max(wish, least, key=_ORDER.index)
