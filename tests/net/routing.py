"""A world for routers: invented names, routes, and what came of a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import dns.rdata

from smtpproxy.config import Route
from smtpproxy.net.dnslookup import Mx, text_of
from smtpproxy.net.resolver import Answer
from smtpproxy.net.router import Router
from smtpproxy.net.security import WISHES
from smtpproxy.net.tlspolicy import Decision, MxHost
from smtpproxy.session.outbound.target import Target, Unroutable

MX: dict[str, Any] = {"domain": "*", "lookup": "mx"}
Zones = dict[tuple[str, str], list[str] | str | Answer]


class PlainPolicy:
    """What the route says; for routes without DANE and MTA-STS."""

    def __init__(self) -> None:
        self.prepared: list[str] = []

    def prepare(self, route: Route, domain: str) -> None:  # noqa: ARG002  # the interface's
        self.prepared.append(domain)

    def decide(
        self,
        route: Route,
        domain: str,  # noqa: ARG002  # the interface's
        hosts: Sequence[MxHost],
        found: Callable[[list[Decision] | Unroutable], None],
    ) -> None:
        wish = WISHES[route.tls.mode]
        found([(host, wish, None) for host in hosts])


class Names:
    """A resolver with invented names; what it does not know does not exist.  Answers can wait for a word."""

    def __init__(self, zones: Zones, *, waits: bool = False) -> None:
        self.zones = zones
        self.asked: list[tuple[str, str]] = []
        self.waiting: list[Callable[[], None]] | None = [] if waits else None

    def query(self, name: str, kind: str, found: Callable[[Answer], None]) -> None:
        self.asked.append((name, kind))
        answer = self._answer(name, kind)
        if self.waiting is None:
            found(answer)
        else:
            self.waiting.append(lambda: found(answer))

    def _answer(self, name: str, kind: str) -> Answer:
        known = self.zones.get((name, kind))
        if isinstance(known, Answer):
            return known
        if known == "tempfail":
            return Answer("tempfail", name=name)
        if known is None:
            exists = any(other == name for other, _ in self.zones)
            return Answer("nodata" if exists else "nxdomain", name=name)
        return answer(kind, *known, name=name)


def answer(kind: str, *texts: str, name: str = "", **more: Any) -> Answer:
    records: tuple[Any, ...] = tuple(dns.rdata.from_text("IN", kind, text) for text in texts)
    if kind == "MX":
        records = tuple(Mx(record.preference, text_of(record.exchange)) for record in records)
    return Answer("ok", records, name=name, **more)


class World:
    def __init__(self, zones: Zones, *routes: dict[str, Any], waits: bool = False, seed: int = 1, **more: Any) -> None:
        self.names = Names(zones, waits=waits)
        own = {("192.0.2.99", 25), ("2001:db8::99", 25), ("127.0.0.1", 2525), *more.pop("own", ())}
        here = {("192.0.2.98", 25), ("127.0.0.1", 25), ("127.0.0.9", 25), ("127.0.0.1", 2526), *own}
        settings: dict[str, Any] = {"policy": PlainPolicy(), "hostname": "Proxy.example.org", **more}
        self.router = Router(
            [Route(**route) for route in routes or (MX,)],
            self.names,  # type: ignore[arg-type]  # all of a resolver that is asked for
            own=lambda address, port: (address, port) in own,
            own_hosts=lambda address, port: (address, port) in here,
            random=Random(seed),
            **settings,
        )

    def start(self, domain: str) -> list[list[Target] | Unroutable]:
        """Ask; give the list into which the outcome goes."""
        route = self.router.route(domain)
        assert route is not None
        outcomes: list[list[Target] | Unroutable] = []
        self.router.targets(route[0], domain, outcomes.append)
        return outcomes

    def outcome(self, domain: str) -> list[Target] | Unroutable:
        (outcome,) = self.start(domain)
        return outcome

    def targets(self, domain: str) -> list[Target]:
        outcome = self.outcome(domain)
        assert isinstance(outcome, list), outcome
        return outcome

    def addresses(self, domain: str) -> list[str]:
        return [target.address for target in self.targets(domain)]

    def reply(self, domain: str) -> bytes:
        """The beginning of the reply to a recipient who cannot be reached."""
        outcome = self.outcome(domain)
        assert isinstance(outcome, Unroutable), outcome
        assert outcome.reply.endswith(b"\r\n")
        assert len(outcome.reply) <= 512
        assert outcome.why
        return b" ".join(outcome.reply.split()[:2])


TWO: Zones = {
    ("example.org", "MX"): ["20 b.example.org.", "10 a.example.org."],
    ("a.example.org", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.example.org", "AAAA"): ["2001:db8::1"],
    ("b.example.org", "A"): ["192.0.2.3"],
}


def routes(*domains: Any) -> list[dict[str, Any]]:
    return [{"domain": domain, "nexthops": [f"192.0.2.{number}"]} for number, domain in enumerate(domains)]


def hops(*nexthops: str, **more: Any) -> dict[str, Any]:
    return {"domain": "*", "nexthops": list(nexthops), **more}
