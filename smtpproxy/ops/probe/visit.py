"""A polite visit to one address: in clear, then inside TLS on the same connection, and good-bye.

Nothing is sent before the greeting; each step waits for the one before it.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from typing import Any, Final

from twisted.internet.error import ConnectError, NoRouteError

from smtpproxy.net.danelookup import TlsaFound
from smtpproxy.ops.probe.facts import Dane, Hello, Phase, Server, Tls
from smtpproxy.ops.probe.line import Line, LineError
from smtpproxy.ops.probe.savings import savings
from smtpproxy.ops.probe.tlsview import TlsView
from smtpproxy.smtp.offer import Offer

__all__ = ["Place", "Tools", "reach", "visit"]

_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


@dataclass(frozen=True, slots=True)
class Tools:
    """What visits need: ``reactor`` is IReactorTCP and IReactorTime, ``ehlo`` our name, ``patience`` in seconds.

    ``tls`` is None where STARTTLS is not to be used.
    """

    reactor: Any
    ehlo: str
    patience: float
    tls: TlsView | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a visit goes to, and what is known of it already.

    ``names``: what a certificate may be for where a TLSA record names a trust anchor (RFC 7672, 3.2.2).
    """

    host: str
    address: str
    port: int
    tlsa: TlsaFound
    names: tuple[str, ...]
    dane: Dane
    before: tuple[Phase, ...] = ()


async def reach(tools: Tools, place: Place) -> Line:
    """Connect; raises LineError, with the errno as second argument where this machine is the reason."""
    try:
        return await Line.connect(tools.reactor, place.address, place.port, tools.patience)
    except ConnectError as problem:
        number = errno.ENETUNREACH if isinstance(problem, NoRouteError) else problem.osError
        why = problem.args[0] if problem.args else str(problem).rstrip(".")
        raise LineError(f"cannot connect: {why}", number) from None


async def visit(tools: Tools, place: Place) -> Server:
    """See what there is; never raises for what the server does."""
    steps = _Visit(tools, place)
    try:
        line = await steps.begin()
    except LineError as problem:
        unreachable = problem.args[1] in _NO_WAY
        return replace(steps.found(), trouble=str(problem.args[0]), unreachable=unreachable)
    trouble = ""
    try:
        await steps.go(line)
    except LineError as problem:
        trouble = str(problem)
    await line.quit()
    return replace(steps.found(), trouble=trouble)


class _Visit:
    """A visit under way."""

    def __init__(self, tools: Tools, place: Place) -> None:
        self._tools = tools
        self._place = place
        self._phases = list(place.before)
        self._since: float = tools.reactor.seconds()
        self._round_trip: float | None = None
        self._greeting = ""
        self._clear: Hello | None = None
        self._inside: Hello | None = None
        self._tls: Tls | None = None
        self._dane = place.dane

    def found(self) -> Server:
        """Give what was seen so far."""
        trip = self._round_trip
        return Server(
            self._place.address,
            self._place.port,
            phases=tuple(self._phases),
            greeting=self._greeting,
            clear=self._clear,
            tls=self._tls,
            inside=self._inside,
            dane=self._dane,
            round_trip=trip,
            savings=() if self._clear is None else savings(self._clear, self._inside, self._tls),
        )

    async def begin(self) -> Line:
        """Connect."""
        line = await reach(self._tools, self._place)
        self._round_trip = self._done("TCP connect")
        return line

    async def go(self, line: Line) -> None:
        """Talk; raises LineError."""
        reply = await line.reply()
        self._done("greeting")
        self._greeting = text_of(reply.raw)
        if reply.code // 100 != 2:
            raise LineError(f"it does not want to talk to us: {text_of(reply.raw)}")
        self._clear = await self._hello(line, "EHLO")
        if self._tools.tls is None or not self._clear.starttls:
            return
        line.send(b"STARTTLS\r\n")
        reply = await line.reply()
        self._done("STARTTLS")
        if reply.code // 100 != 2:
            raise LineError(f"STARTTLS is offered and refused: {text_of(reply.raw)}")
        await self._handshake(line, self._tools.tls)
        self._inside = await self._hello(line, "EHLO inside")

    async def _handshake(self, line: Line, view: TlsView) -> None:
        place = self._place
        connection = view.connection(place.host, place.address, place.port, place.tlsa)
        await line.secure(connection)
        self._done("TLS handshake")
        self._tls = view.facts(connection, place.host)
        if place.tlsa.records:
            why = view.dane(connection, place.tlsa, place.names)
            self._dane = replace(self._dane, matches=not why, why=why)

    async def _hello(self, line: Line, phase: str) -> Hello:
        name = self._tools.ehlo.encode("ascii")
        line.send(b"EHLO " + name + b"\r\n")
        reply = await line.reply()
        helo_only = reply.code // 100 == 5
        if helo_only:
            line.send(b"HELO " + name + b"\r\n")
            reply = await line.reply()
        self._done(phase)
        if reply.code // 100 != 2:
            raise LineError(f"{phase} is refused: {text_of(reply.raw)}")
        return Hello.of(Offer.NONE if helo_only else Offer.parse(reply.raw), helo_only=helo_only)

    def _done(self, phase: str) -> float:
        """Note that a step is over; give how long it took."""
        now: float = self._tools.reactor.seconds()
        took = max(0.0, now - self._since)
        self._since = now
        self._phases.append(Phase(phase, took))
        return took


def text_of(raw: bytes) -> str:
    """Write a reply in one line."""
    return " / ".join(line.decode("latin-1") for line in raw.rstrip(b"\r\n").split(b"\r\n"))
