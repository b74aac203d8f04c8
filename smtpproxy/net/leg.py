"""The connection with a server, whoever uses it at the time: a client's session, the pool, or the one who says QUIT."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from .parting import part
from .sourceaddress import bind_as
from .tls import TlsLayer
from .tlsfacts import with_reason
from .transport import LeanTransport, OwnTransport, seems_quiet

if TYPE_CHECKING:
    from OpenSSL import SSL
    from twisted.python.failure import Failure

    from smtpproxy.session.backend import Backend

    from .servers import Server


class LegOwner(Protocol):
    """Who uses a connection with a server."""

    __slots__ = ()

    def leg_received(self, leg: BackendLeg, data: bytes) -> None:
        """Take what the server sent."""

    def leg_lost(self, leg: BackendLeg, why: str) -> None:
        """Learn that the server has closed, or that the connection broke or never came about."""

    def leg_full(self, *, full: bool) -> None:
        """Learn that the server does not read what we send, or reads it again."""

    def leg_secured(self, leg: BackendLeg) -> None:
        """Learn that the TLS handshake is done, with the right server."""


class OutgoingSide(Protocol):
    """TLS as a client speaks it: with a backend (ClientTls) or with a remote (RemoteTls)."""

    __slots__ = ()

    def connection(self, peer: Any, /) -> SSL.Connection:
        """Give a new connection on memory BIOs."""

    def judge(self, connection: SSL.Connection, peer: Any, /) -> str:
        """After the handshake: "" if it is the right server, else why not."""

    def remember(self, connection: SSL.Connection, peer: Any, /) -> None:
        """Keep the session for the next connection."""

    def ended(self, connection: SSL.Connection) -> None:
        """Learn that the connection is over."""


class Approach(NamedTuple):
    """How a connection with a server begins."""

    source: str = ""
    """The address that it comes from; empty: the kernel's choice."""
    preamble: bytes = b""
    """What is sent before all else, in clear: a PROXY header."""
    tls: OutgoingSide | None = None
    """TLS from the first octet on (behind the preamble)."""


PLAINLY: Final = Approach()


@implementer(IHalfCloseableProtocol)
class BackendLeg:
    """A Twisted protocol that tells its owner of the moment what happens to the connection."""

    __slots__ = ("_approach", "backend", "factory", "idle_since", "owner", "server", "tls_trouble", "transport")

    def __init__(self, owner: LegOwner, server: Server, approach: Approach = PLAINLY) -> None:
        self.owner = owner
        self.server = server
        self._approach = approach
        self.backend: Backend | None = None
        """The state of the SMTP session, while nobody else keeps it."""
        self.transport: Any = None
        self.idle_since = 0.0
        self.tls_trouble = False
        """Whether it is TLS that has failed, the handshake or what it has shown."""

    @property
    def peer(self) -> Any:
        """Who the other end should be, as the TLS of the approach wants to know it."""
        return self.server.host

    def makeConnection(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        transport.registerProducer(self, True)
        approach = self._approach
        if approach is PLAINLY:
            return
        transport.write(approach.preamble)
        if approach.tls is not None:
            self.start_tls(approach.tls)

    # --- TLS (TlsOwner) --------------------------------------------------------------------------------------------

    def start_tls(self, tls: OutgoingSide) -> None:
        """Begin the handshake: what the server sends from now on is part of it."""
        self._approach = self._approach._replace(tls=tls)
        layer = TlsLayer(tls.connection(self.peer), self)
        lower, self.transport = self.transport, layer
        layer.start(lower, self, speak=True)

    def tls_secured(self, layer: TlsLayer) -> None:
        """See whether it is the right server."""
        tls = self._approach.tls
        why = "" if tls is None else tls.judge(layer.connection, self.peer)
        if why:
            self.tls_trouble = True
            self.owner.leg_lost(self, f"TLS: {why}")
        else:
            self.owner.leg_secured(self)

    def tls_failed(self, layer: TlsLayer, why: str) -> None:
        """Give the server up."""
        self.tls_trouble = True
        self.owner.leg_lost(self, f"TLS handshake failed: {with_reason(why, layer.connection)}")

    # --- the connection (IProtocol, IHalfCloseableProtocol, IPushProducer) -----------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Pass it to the owner."""
        self.owner.leg_received(self, data)

    def readConnectionLost(self) -> None:
        """The server has closed its side: it will answer nothing more (rule S13)."""
        self.owner.leg_lost(self, "backend closed the connection")

    def writeConnectionLost(self) -> None:
        """Our own doing."""

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        why = reason.value.args if reason.value is not None else ()
        self.owner.leg_lost(self, str(why[0]) if why else reason.getErrorMessage())

    def pauseProducing(self) -> None:
        """The server does not read."""
        self.owner.leg_full(full=True)

    def resumeProducing(self) -> None:
        """The server reads again."""
        self.owner.leg_full(full=False)

    def stopProducing(self) -> None:
        """The connection is gone, which connectionLost tells."""

    @property
    def connected(self) -> bool:
        """Whether the connection has come about."""
        transport = self.transport
        return transport is not None and (not isinstance(transport, OwnTransport) or transport.is_connected())

    def pause_reading(self) -> None:
        """Read nothing of the server for a while."""
        if self.transport is not None:
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read of the server again."""
        if self.transport is not None:
            self.transport.resumeProducing()

    @property
    def quiet(self) -> bool:
        """Whether the server has neither said anything nor closed, as far as one look tells."""
        return seems_quiet(self.transport)

    def close(self, *, reset: bool = False) -> None:
        """Close, with what is still unwritten or with a reset; the owner hears nothing more."""
        self.owner = NOBODY
        tls, layer = self._approach.tls, self.transport
        if tls is None or not isinstance(layer, TlsLayer):
            part(layer, reset=reset)
            return
        if layer.is_connected():
            # Tickets come behind the handshake: by now they are here.
            tls.remember(layer.connection, self.peer)
        part(layer, reset=reset)
        tls.ended(layer.connection)


class _Nobody:
    """Owns what nobody wants."""

    __slots__ = ()

    def leg_received(self, leg: BackendLeg, data: bytes) -> None:
        """Throw it away."""

    def leg_lost(self, leg: BackendLeg, why: str) -> None:
        """Mind nothing."""

    def leg_full(self, *, full: bool) -> None:
        """Mind nothing."""

    def leg_secured(self, leg: BackendLeg) -> None:
        """Mind nothing."""


NOBODY = _Nobody()


class Unreached(NamedTuple):
    """Why no connection was begun, and whether that is the server's doing or ours (rule S19)."""

    why: str
    by_server: bool


class Dialler:
    """Opens connections, with lean transports or with Twisted's own."""

    def __init__(self, reactor: Any, *, lean: bool) -> None:
        self._reactor = reactor
        self._lean = lean

    def dial(
        self, owner: LegOwner, server: Server, timeout: float, approach: Approach = PLAINLY
    ) -> BackendLeg | Unreached:
        """Begin to connect; give the leg, or why it failed at once. ``timeout`` (seconds) is for stock transports."""
        leg = BackendLeg(owner, server, approach)
        if not self._lean:
            self._dial_stock(leg, server, timeout)
            return leg
        try:
            sock = _socket_for(server, approach.source)
        except OSError as problem:
            return Unreached(problem.strerror or str(problem), by_server=False)
        try:
            sock.connect(server.address)
        except BlockingIOError:
            if server.family == socket.AF_UNIX:
                sock.close()
                return Unreached("no room in the queue of the socket", by_server=True)
        except OSError as problem:
            sock.close()
            # With the client's own address it may be that which cannot be had from here.
            return Unreached(problem.strerror or str(problem), by_server=not approach.source)
        LeanTransport(self._reactor, sock, server.address).start(leg)
        return leg

    def _dial_stock(self, leg: BackendLeg, server: Server, timeout: float) -> None:
        if server.family == socket.AF_UNIX:
            endpoint: Any = UNIXClientEndpoint(self._reactor, server.address, timeout)
        elif server.family == socket.AF_INET6:
            endpoint = TCP6ClientEndpoint(self._reactor, server.address[0], server.address[1], timeout)
        else:
            endpoint = TCP4ClientEndpoint(self._reactor, server.address[0], server.address[1], timeout)
        connecting = connectProtocol(endpoint, leg)
        connecting.addCallbacks(_no_delay, leg.connectionLost)


def _socket_for(server: Server, source: str) -> socket.socket:
    """Give a socket for a connection with ``server`` that comes from ``source``. Raises OSError."""
    sock = socket.socket(server.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if server.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            bind_as(sock, source)
    except OSError:
        sock.close()
        raise
    return sock


def _no_delay(leg: BackendLeg) -> None:
    if leg.owner is NOBODY:
        part(leg.transport)
    elif leg.server.family != socket.AF_UNIX:
        leg.transport.setTcpNoDelay(True)
