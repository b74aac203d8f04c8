"""The connection with a server, whoever uses it at the time: a client's session, the pool, or the one who says QUIT."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from .transport import FLUSH_SECONDS, LeanTransport

if TYPE_CHECKING:
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


@implementer(IHalfCloseableProtocol)
class BackendLeg:
    """A Twisted protocol that tells its owner of the moment what happens to the connection."""

    __slots__ = ("backend", "factory", "idle_since", "owner", "server", "transport")

    def __init__(self, owner: LegOwner, server: Server) -> None:
        self.owner = owner
        self.server = server
        self.backend: Backend | None = None
        """The state of the SMTP session, while nobody else keeps it."""
        self.transport: Any = None
        self.idle_since = 0.0

    def makeConnection(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        transport.registerProducer(self, True)

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
        return transport is not None and (not isinstance(transport, LeanTransport) or transport.is_connected())

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
        transport = self.transport
        return not isinstance(transport, LeanTransport) or transport.is_quiet()

    def close(self, *, reset: bool = False) -> None:
        """Close, with what is still unwritten or with a reset; the owner hears nothing more."""
        self.owner = NOBODY
        part(self.transport, reset=reset)


class _Nobody:
    """Owns what nobody wants."""

    __slots__ = ()

    def leg_received(self, leg: BackendLeg, data: bytes) -> None:
        """Throw it away."""

    def leg_lost(self, leg: BackendLeg, why: str) -> None:
        """Mind nothing."""

    def leg_full(self, *, full: bool) -> None:
        """Mind nothing."""


NOBODY = _Nobody()


def part(transport: Any, *, reset: bool = False) -> None:
    """Close a connection whose protocol wants to hear nothing more of it."""
    if isinstance(transport, LeanTransport):
        transport.detach(reset=reset)
    elif transport is not None:
        transport.unregisterProducer()
        # A paused transport would never report its loss.
        transport.resumeProducing()
        if reset:
            transport.abortConnection()
        else:
            transport.loseConnection()
            transport.reactor.callLater(FLUSH_SECONDS, transport.abortConnection)


class Unreached(NamedTuple):
    """Why no connection was begun, and whether that is the server's doing or ours (rule S19)."""

    why: str
    by_server: bool


class Dialler:
    """Opens connections, with lean transports or with Twisted's own."""

    def __init__(self, reactor: Any, *, lean: bool) -> None:
        self._reactor = reactor
        self._lean = lean

    def dial(self, owner: LegOwner, server: Server, timeout: float) -> BackendLeg | Unreached:
        """Begin to connect; give the leg, or why it failed at once. ``timeout`` (seconds) is for stock transports."""
        leg = BackendLeg(owner, server)
        if not self._lean:
            self._dial_stock(leg, server, timeout)
            return leg
        try:
            sock = socket.socket(server.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as problem:
            return Unreached(problem.strerror or str(problem), by_server=False)
        try:
            if server.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(server.address)
        except BlockingIOError:
            if server.family == socket.AF_UNIX:
                sock.close()
                return Unreached("no room in the queue of the socket", by_server=True)
        except OSError as problem:
            sock.close()
            return Unreached(problem.strerror or str(problem), by_server=True)
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


def _no_delay(leg: BackendLeg) -> None:
    if leg.owner is NOBODY:
        part(leg.transport)
    elif leg.server.family != socket.AF_UNIX:
        leg.transport.setTcpNoDelay(True)
