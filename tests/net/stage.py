# ruff: noqa: N802, FBT001  (Twisted's interfaces: names in camel case, flags by position)
"""One listener and its backend without sockets: sessions are played by hand, and the clock too."""

from __future__ import annotations

import traceback
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from smtpproxy.config import Backend, Endpoint, Listener
from smtpproxy.net.context import Context
from smtpproxy.net.leg import NOBODY, PLAINLY, Approach, BackendLeg, Unreached
from smtpproxy.net.listener import session_for
from smtpproxy.net.parting import part
from smtpproxy.net.pool import Pool
from smtpproxy.net.servers import Server, Servers
from smtpproxy.net.sweep import Sweep
from smtpproxy.net.transport import NOBODY as NO_PROTOCOL
from smtpproxy.net.transport import OwnTransport

from .fakes import FakeReactor

CLIENT = "192.0.2.9"
CLIENT_PORT = 40025
OWN = "192.0.2.1"
OWN6 = "2001:db8::25"
EHLO_REPLY = b"250-mx.example.org\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
AGES = 100_000.0
"""A time-out that is not what the test is about."""


def listener(**changes: Any) -> Listener:
    """A listener's settings; what is not given has its default."""
    settings = {
        "name": "mx",
        "listen": ["127.0.0.1:0"],
        "backend": "legacy",
        "recipient_domains": ["example.org"],
        "hostname": "proxy.example.org",
    }
    return Listener.model_validate(settings | changes)


def backend(**changes: Any) -> Backend:
    """A backend's settings; what is not given has its default."""
    return Backend.model_validate({"servers": ["192.0.2.25:25"]} | changes)


class FakeTransport:
    """A transport of Twisted's kind that keeps what is written, and can be full."""

    def __init__(self, reactor: FakeReactor, address: str = CLIENT) -> None:
        """``address``: the peer's; empty for a Unix socket."""
        self.reactor = reactor
        self._address = address
        self.protocol: Any = None
        self.written = b""
        self.writes = 0
        self.full = False
        self.paused = False
        self.half_closed = False
        self.ended = ""
        self.no_delay = False
        self._producer: Any = None

    def take(self) -> bytes:
        """What was written since the last time."""
        written, self.written = self.written, b""
        return written

    def drain(self) -> None:
        """The other side reads again."""
        self.full = False
        if self._producer is not None:
            self._producer.resumeProducing()

    def write(self, data: bytes) -> None:
        if self.ended or self.half_closed:
            return
        self.written += data
        self.writes += 1
        if self.full and self._producer is not None:
            self._producer.pauseProducing()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def loseConnection(self) -> None:
        self.ended = self.ended or "closed"

    def abortConnection(self) -> None:
        self.ended = "reset"

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getPeer(self) -> Any:
        return _end(self._address, CLIENT_PORT)

    def getHost(self) -> Any:
        return _end(self._address and (OWN6 if ":" in self._address else OWN), 25)


class LeanFake(FakeTransport, OwnTransport):
    """One that can do what transports of ours can; ``kernel`` has what nobody has read yet."""

    def __init__(self, reactor: FakeReactor, address: str = CLIENT) -> None:
        super().__init__(reactor, address)
        self.kernel: list[bytes] = []
        self.half_open = False
        """Whether the peer has closed its writing side."""

    def detach(self, *, reset: bool = False) -> None:
        self.protocol = NO_PROTOCOL
        self.unregisterProducer()
        self.ended = self.ended or ("reset" if reset else "closed")

    def read_now(self) -> bytes | None:
        return self.kernel.pop(0) if self.kernel else None

    def is_quiet(self) -> bool:
        return not self.kernel and not self.half_open

    def soon(self, call: Any, *arguments: Any) -> None:
        self.reactor.callLater(0, call, *arguments)

    def is_connected(self) -> bool:
        return True


def _end(address: str, port: int) -> Any:
    if not address:
        return UNIXAddress(None)
    return (IPv6Address if ":" in address else IPv4Address)("TCP", address, port)


class FakeJournal:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.transactions: list[Any] = []
        self.sessions: list[Any] = []
        self.refused: list[tuple[str, str, str]] = []
        self.failures: list[tuple[str, str, str]] = []
        self.internal: list[str] = []
        self.secured: list[Any] = []
        self.tls_failures: list[str] = []
        self.dropped: list[list[bytes]] = []

    def transaction_ended(self, _session: Any, transaction: Any) -> None:
        self.transactions.append(transaction)

    def session_ended(self, session: Any) -> None:
        self.sessions.append(session)

    def session_refused(self, listener: str, address: str, why: str) -> None:
        self.refused.append((listener, address, why))

    def backend_failed(self, backend: str, server: str, why: str) -> None:
        self.failures.append((backend, server, why))

    def internal_error(self, _session: Any) -> None:
        self.internal.append(traceback.format_exc())

    def tls_secured(self, session: Any) -> None:
        self.secured.append(session)

    def tls_failed(self, _session: Any, why: str) -> None:
        self.tls_failures.append(why)

    def tracer(self, _session: Any) -> None:
        return None

    def extensions_dropped(self, _listener: str, keywords: list[bytes]) -> None:
        self.dropped.append(keywords)


class FakeDialler:
    """Makes legs without sockets; ``down`` has the names of servers that refuse at once."""

    def __init__(self, reactor: FakeReactor) -> None:
        self._reactor = reactor
        self.legs: list[BackendLeg] = []
        self.wires: list[FakeTransport] = []
        """Their transports, below whatever TLS there is."""
        self.down: set[str] = set()
        self.exhausted = False
        """Whether we have no descriptor left ourselves."""
        self.slow = False
        """Whether connections do not come about until the test says so."""

    def dial(self, owner: Any, server: Server, _timeout: float, approach: Approach = PLAINLY) -> BackendLeg | Unreached:
        if server.name in self.down:
            return Unreached("Connection refused", by_server=True)
        if self.exhausted:
            return Unreached("Too many open files", by_server=False)
        leg = BackendLeg(owner, server, approach)
        self.legs.append(leg)
        if not self.slow:
            self.connect(leg)
        return leg

    def connect(self, leg: BackendLeg) -> None:
        """Let a connection come about; it is closed where nobody wants it any more, as the true one does."""
        wire = FakeTransport(self._reactor)
        wire.protocol = leg
        self.wires.append(wire)
        leg.makeConnection(wire)
        if leg.owner is NOBODY:
            part(leg.transport)


class Client:
    """One client: its transport, and the protocol that it got."""

    def __init__(self, stage: Stage, address: str, *, lean: bool = False) -> None:
        self.transport = (LeanFake if lean else FakeTransport)(stage.reactor, address)
        self.session = self.transport.protocol = session_for(stage.context, address)
        self.session.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """Send; give what is answered at once."""
        self.transport.protocol.dataReceived(data)
        return self.transport.take()

    def half_close(self) -> bytes:
        """Say that no more will come; give what is answered at once."""
        self.transport.protocol.readConnectionLost()
        return self.transport.take()

    def vanish(self) -> None:
        """Be gone, with a reset."""
        self.transport.protocol.connectionLost(Failure(ConnectionLost()))

    def take(self) -> bytes:
        """What was answered since the last time."""
        return self.transport.take()


class Stage:
    """Everything of one listener but its sockets."""

    def __init__(
        self,
        *,
        listener_settings: Any = None,
        backend_settings: Any = None,
        tls: Any = None,
        backend_tls: Any = None,
        names: Any = None,
        journal: Any = None,
    ) -> None:
        self.reactor = FakeReactor()
        self.journal = FakeJournal()
        """Who is told what happened, unless it is the ``journal`` given."""
        settings = backend_settings or backend()
        self.servers = Servers(settings.servers, settings.rest, self.reactor.seconds)
        assert self.servers.resolve() == []
        self.dialler = FakeDialler(self.reactor)
        self.pool = Pool("legacy", settings, self.servers, self.dialler, self.reactor.seconds, tls=backend_tls)
        self.sweep = Sweep(self.reactor, 8.0)
        self.pool.watch(self.sweep)
        self.context = Context(
            listener_settings or listener(),
            self.pool,
            self.sweep,
            journal or self.journal,
            self.reactor.seconds,
            tls=tls,
            names=names,
        )
        self.sweep.start()

    def client(self, address: str = CLIENT, *, lean: bool = False) -> Client:
        """A client that has just connected."""
        return Client(self, address, lean=lean)

    def greeted(self, address: str = CLIENT) -> Client:
        """A client that has seen the backend's greeting, and what the backend was sent is forgotten."""
        client = self.client(address)
        self.answer(b"220 mx.example.org ESMTP\r\n")
        assert client.take() == b"220 mx.example.org ESMTP\r\n"
        return client

    def ready(self, address: str = CLIENT, lines: bytes = b"") -> Client:
        """A client that has said EHLO, and ``lines``, each answered with 250."""
        client = self.greeted(address)
        client.send(b"EHLO client.example\r\n")
        self.answer(EHLO_REPLY)
        assert b"250 PIPE_CONNECT" in client.take()
        for line in lines.splitlines(keepends=True):
            client.send(line)
            assert self.asked() == line
            self.answer(b"250 ok\r\n")
            assert client.take() == b"250 ok\r\n"
        return client

    @property
    def leg(self) -> BackendLeg:
        """The connection with a server that was opened last."""
        return self.dialler.legs[-1]

    def asked(self) -> bytes:
        """What the server was sent since the last time."""
        return self.leg.transport.take()

    def answer(self, data: bytes) -> None:
        """Let the server say something; what it was sent before is forgotten."""
        self.leg.transport.take()
        self.leg.dataReceived(data)

    def server_closes(self) -> None:
        """Let the server close."""
        self.leg.connectionLost(Failure(ConnectionDone()))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, a sweep's step at a time."""
        step = self.sweep.round / 10
        for _ in range(round(seconds / step)):
            self.reactor.advance(step)


def endpoints(*texts: str) -> tuple[Endpoint, ...]:
    """The endpoints as a configuration reads them."""
    return backend(servers=list(texts)).servers
