"""Connections with remotes: how they are opened, the ones that are kept for the next message, how they are left.

A kept session is lent only to where it makes no difference to a fresh one (rule S18): everything that could is in the
target's key, or belongs to the route of a listener, which has its sessions for itself (pace, source, time-outs).
Before that it is looked at once more, because a 421 may have come in the meantime.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol

from smtpproxy.session.outbound.target import TlsWish

from . import dialling, fastopen
from .leg import NOBODY, Approach, BackendLeg
from .parting import part
from .rests import Rests
from .servers import Server
from .tls import TlsLayer
from .transparent import Ends, OwnConnections
from .transport import LeanTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from twisted.python.failure import Failure

    from smtpproxy.session.outbound.remote import Remote
    from smtpproxy.session.outbound.target import Target

    from .leg import LegOwner
    from .remoteroute import RemoteRoute
    from .sweep import Sweep


class RemoteLeg(BackendLeg):
    """A connection with a remote, and the session upon it while nobody else keeps that."""

    __slots__ = (
        "_heard",
        "_in_syn",
        "_refused",
        "_syn_octets",
        "_unsent",
        "deferred",
        "ends",
        "lean",
        "remote",
        "route",
        "target",
    )

    def __init__(self, owner: LegOwner, target: Target, route: RemoteRoute) -> None:
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        implicit = route.tls if target.tls is TlsWish.IMPLICIT else None
        super().__init__(owner, Server(target.name, family, (target.address, target.port)), Approach(tls=implicit))
        self.target = target
        self.route = route
        self.remote: Remote | None = None
        self.lean: LeanTransport | None = None
        """The transport below everything, where it is ours."""
        self._in_syn = False
        """Whether data was given to the SYN, and nobody has asked what became of it."""
        self.deferred = False
        """Whether the SYN waits for the first write (TCP Fast Open)."""
        self._heard = False
        self._refused = False
        self._syn_octets = 0
        """Octets that the kernel has taken for the SYN."""
        self._unsent: list[bytes] = []
        self.ends: tuple[OwnConnections, Ends] | None = None

    @property
    def peer(self) -> Target:
        """Who the other end should be."""
        return self.target

    def makeConnection(self, transport: Any) -> None:
        """Begin."""
        if self.owner is NOBODY:
            # A stock transport comes when nobody waits for it any more.
            part(transport, reset=True)
            return
        implicit = self.target.tls is TlsWish.IMPLICIT
        if implicit:
            # The ClientHello rides on the SYN.
            self.deferred, self._in_syn = False, self.deferred
        super().makeConnection(transport)
        for data in self._unsent:
            self.transport.write(data)
        self._unsent.clear()

    def dataReceived(self, data: bytes) -> None:
        """Pass it to the owner."""
        self._heard = True
        super().dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone, or never came about; from outside an established one can be refused as well."""
        self._refused = reason.check(error.ConnectError) is not None
        super().connectionLost(reason)

    def send(self, data: bytes, message_begins: int | None) -> None:
        """Write; ``message_begins``: where in ``data`` the command stands that a message's first octets follow."""
        if self.transport is None:
            # A stock transport is there when the connection is.
            self._unsent.append(data)
            return
        if not self.deferred:
            self.transport.write(data)
            return
        self.deferred = False
        behind = None if message_begins is None else data.index(b"\n", message_begins) + 1
        whole = self.route.settings.fast_open == "whole_message"
        first, later = dialling.open_flight(data, behind, whole_message=whole)
        if not first:
            self.open_now()
        self._in_syn = True
        self.transport.write(first)
        self._syn_octets = self.taken
        self.transport.write(later)

    def open_now(self) -> None:
        """Let the connection come about, though there is nothing to be sent yet."""
        self.deferred = False
        if self.lean is not None and self.lean.fileno() >= 0:
            try:
                fastopen.open_now(self.lean.socket)
            except OSError as problem:
                self.lean.fail(problem)

    def handed(self, position: int | None) -> bool:
        """Say whether the octet at ``position`` of what was sent in this state of TLS may have left (rule C7).

        Also what the SYN carried has left, and how the connection ended is no matter: a server may take a message from
        a SYN whose answer is lost, and refuse the SYN when it comes again.
        """
        if position is None or self.transport is None or self.tls_trouble:
            return False
        if isinstance(self.transport, TlsLayer):
            return self.transport.is_connected()
        return self.lean is None or self.lean.sent > position

    @property
    def taken(self) -> int:
        """Octets that the kernel has taken of what was written, as far as that is known."""
        return 0 if self.lean is None else self.lean.sent

    @property
    def established(self) -> bool:
        """Whether there is a TCP connection now."""
        return self.transport is not None if self.lean is None else self.lean.is_connected()

    @property
    def reached(self) -> bool:
        """Whether the connection has come about, as far as can be told when it is gone."""
        if self._heard or self.established:
            return True
        lean = self.lean
        # What the kernel has taken for the SYN may have reached nobody.
        return lean is not None and lean.fileno() < 0 and lean.sent > (self._syn_octets if self._refused else 0)

    @property
    def carried_data(self) -> bool:
        """Whether the SYN carried data that the remote took: asked once, no other delivery has opened it."""
        asked, self._in_syn = self._in_syn, False
        lean = self.lean
        return asked and lean is not None and lean.fileno() >= 0 and fastopen.carried_data(lean.socket)

    def close(self, *, reset: bool = False) -> None:
        """Close, as BackendLeg does."""
        self._unsent.clear()
        if self.ends is not None:
            opened, ends = self.ends
            opened.discard(ends)
        super().close(reset=reset)

    @property
    def secure(self) -> Any:
        """The TLS of the connection (OpenSSL's object), None without."""
        return self.transport.connection if isinstance(self.transport, TlsLayer) else None


class Remotes:
    """Opens connections with remotes, and owns those that nobody uses."""

    def __init__(self, reactor: Any, clock: Callable[[], float], *, lean: bool) -> None:
        """``clock`` is monotonic, in seconds; ``lean``: with our own transports."""
        self._reactor = reactor
        self._clock = clock
        self._lean = lean
        self._kept: dict[tuple[RemoteRoute, Hashable], list[RemoteLeg]] = {}
        self._count = 0
        self._per_route: dict[RemoteRoute, int] = {}
        self._closed = False
        self.rests = Rests(clock)
        self.opened = OwnConnections()
        """What we have opened, to know it again if it is redirected to us."""

    def dial(self, owner: LegOwner, target: Target, route: RemoteRoute, mark: int | None) -> RemoteLeg:
        """Begin to connect. Raises OSError if that fails at once."""
        leg = RemoteLeg(owner, target, route)
        if not self._lean:
            self._dial_stock(leg)
            return leg
        settings = route.settings
        source = settings.source.ipv6 if leg.server.family == socket.AF_INET6 else settings.source.ipv4
        sock = dialling.remote_socket(
            leg.server.family,
            source=source or "",
            mark=settings.mark if settings.mark is not None else mark,
            fast_open=settings.fast_open != "off",
        )
        try:
            leg.deferred = dialling.begin(sock, leg.server.address)
        except OSError:
            sock.close()
            raise
        leg.ends = self.opened, self.opened.add(sock, leg.server.address)
        leg.lean = LeanTransport(self._reactor, sock, leg.server.address)
        leg.lean.start(leg)
        return leg

    def _dial_stock(self, leg: RemoteLeg) -> None:
        kind = TCP6ClientEndpoint if leg.server.family == socket.AF_INET6 else TCP4ClientEndpoint
        endpoint = kind(self._reactor, leg.target.address, leg.target.port, leg.route.settings.timeouts.connect)
        connecting = connectProtocol(endpoint, leg)
        connecting.addCallbacks(_no_delay, leg.connectionLost)

    def borrow(self, owner: LegOwner, target: Target, route: RemoteRoute) -> RemoteLeg | None:
        """Lend a kept session with a target that is still good, the one used last; None if there is none."""
        kept = self._kept.get((route, target.key))
        while kept:
            leg = kept[-1]
            self._take(leg)
            if leg.quiet:
                leg.owner = owner
                return leg
            leg.close()
        return None

    def keep(self, leg: RemoteLeg) -> None:
        """Take a session for another message, if it may serve one and there is room."""
        reuse, remote, route = leg.route.settings.reuse, leg.remote, leg.route
        if reuse is None or remote is None or self._closed or remote.uses >= reuse.uses:
            self.leave(leg)
            return
        if self._per_route.get(route, 0) >= reuse.sessions:
            oldest = min((kept for kept in self._all() if kept.route is route), key=lambda kept: kept.idle_since)
            self._take(oldest)
            self.leave(oldest)
        leg.owner = self
        leg.resume_reading()
        leg.idle_since = self._clock()
        self._kept.setdefault((route, leg.target.key), []).append(leg)
        self._per_route[route] = self._per_route.get(route, 0) + 1
        self._count += 1

    def leave(self, leg: RemoteLeg) -> None:
        """Say QUIT, and close without waiting for the answer (rule C9)."""
        leg.transport.write(b"QUIT\r\n")
        leg.close()

    def _take(self, leg: RemoteLeg) -> None:
        where = leg.route, leg.target.key
        kept = self._kept[where]
        kept.remove(leg)
        if not kept:
            del self._kept[where]
        self._per_route[leg.route] -= 1
        self._count -= 1

    @property
    def busy(self) -> bool:
        """Whether sessions are kept."""
        return self._count > 0

    def close(self) -> None:
        """Keep no session any more."""
        self._closed = True
        for leg in self._all():
            self._take(leg)
            self.leave(leg)

    def _all(self) -> list[RemoteLeg]:
        return [leg for legs in self._kept.values() for leg in legs]

    def sweep(self, now: float) -> None:
        """Leave what has been idle for too long."""
        for leg in self._all():
            reuse = leg.route.settings.reuse
            if reuse is None or now - leg.idle_since > reuse.idle:
                self._take(leg)
                self.leave(leg)

    def watch(self, sweep: Sweep) -> None:
        """Let ``sweep`` visit."""
        sweep.add(self, 0)

    def _forget(self, leg: BackendLeg) -> None:
        if isinstance(leg, RemoteLeg) and leg in self._kept.get((leg.route, leg.target.key), ()):
            self._take(leg)
        leg.close()

    def leg_received(self, leg: BackendLeg, _data: bytes) -> None:
        """A remote that speaks to nobody closes (421)."""
        self._forget(leg)

    def leg_lost(self, leg: BackendLeg, _why: str) -> None:
        """A remote has closed."""
        self._forget(leg)

    def leg_full(self, *, full: bool) -> None:
        """Mind nothing: nothing is sent here."""

    def leg_secured(self, leg: BackendLeg) -> None:
        """Mind nothing: whoever begins TLS waits for it."""


def _no_delay(leg: RemoteLeg) -> None:
    if leg.owner is NOBODY:
        part(leg.transport)
    else:
        leg.transport.setTcpNoDelay(True)
