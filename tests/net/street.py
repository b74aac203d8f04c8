"""One listener on real sockets with lean transports on both legs; the test is client, server, reactor and clock."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Callable
from typing import Any

from smtpproxy.config import Endpoint
from smtpproxy.net.context import Context
from smtpproxy.net.inherited import Inherited
from smtpproxy.net.leg import Dialler
from smtpproxy.net.listener import LeanPort, open_socket
from smtpproxy.net.pool import Pool
from smtpproxy.net.servers import Servers
from smtpproxy.net.sweep import Sweep

from .fakes import FakeReactor
from .stage import FakeJournal, backend, listener

GREETING = b"220 mx.example.org ESMTP\r\n"
EHLO_REPLY = b"250-mx.example.org\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\n"
SMALL = 16384


class End:
    """One end of a connection, that of the client or of the server, which never waits."""

    def __init__(self, reactor: FakeReactor, sock: socket.socket) -> None:
        self._reactor = reactor
        self.sock = sock
        self.sock.settimeout(0)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.closed = False
        self.received = bytearray()

    def look(self) -> int:
        """Read what is there; give how much it was."""
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return 0
        self.closed = not data
        self.received += data
        return len(data)

    def read_until(self, condition: Callable[[bytearray], object]) -> bytes:
        """Read until the condition holds for everything that came; give it, and forget it."""

        def came() -> object:
            self.look()
            return condition(self.received)

        self._reactor.until(came)
        received, self.received = bytes(self.received), bytearray()
        return received

    def expect(self, ending: bytes) -> bytes:
        """Read up to these octets, which must be the last that come."""
        return self.read_until(lambda received: received.endswith(ending))

    def message(self) -> bytes:
        """Read up to the end of data, behind which a QUIT may already stand."""
        ending = b"\r\n.\r\n"
        return self.read_until(lambda received: received.removesuffix(b"QUIT\r\n").endswith(ending)).removesuffix(
            b"QUIT\r\n"
        )

    def hears(self, words: bytes, times: int) -> bool:
        """Read until these words have come so often (they do the first time), or nothing comes for a good while."""
        idle = 0
        while (count := self.received.count(words)) < times and (idle < 20 or not count):
            idle = 0 if self.look() else idle + 1
            self._reactor.turn(0.001)
            assert idle < 10_000, f"{words!r} never came"
        return count >= times

    def to_the_end(self) -> bytes:
        """Read until the other side closes."""
        return self.read_until(lambda _: self.closed)

    def send_all(self, data: bytes) -> None:
        """Send everything, turning the reactor while there is no room."""
        left = memoryview(data)
        while left:
            with contextlib.suppress(BlockingIOError):
                left = left[self.sock.send(left) :]
            self._reactor.turn()

    def send_what_fits(self, data: bytes) -> int:
        """Send until there is no room for a good while; give how much went."""
        sent = idle = 0
        while idle < 20 and sent < len(data):
            idle += 1
            with contextlib.suppress(BlockingIOError):
                sent += self.sock.send(data[sent : sent + SMALL])
                idle = 0
            self._reactor.turn(0.001 if idle else 0.0)
        return sent


class Street:
    """A port, a backend, and the clients."""

    def __init__(self, stack: contextlib.ExitStack, **changes: Any) -> None:
        self._stack = stack
        self.reactor = FakeReactor()
        self.journal = FakeJournal()
        self._servers = stack.enter_context(socket.socket())
        self._servers.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self._servers.bind(("127.0.0.1", 0))
        self._servers.listen()
        self._servers.settimeout(0)
        settings = backend(servers=[f"127.0.0.1:{self._servers.getsockname()[1]}"], **changes.get("backend", {}))
        servers = Servers(settings.servers, settings.rest, self.reactor.seconds)
        assert servers.resolve() == []
        dialler, clock = Dialler(self.reactor, lean=True), self.reactor.seconds
        pool = Pool("legacy", settings, servers, dialler, clock, tls=changes.get("backend_tls"))
        self.sweep = Sweep(self.reactor, 8.0)
        self.context = Context(
            listener(**changes.get("listener", {})), pool, self.sweep, self.journal, clock, tls=changes.get("tls")
        )
        self.sweep.start()
        self._listening = open_socket(Endpoint("tcp", "127.0.0.1"), 16, Inherited({}, 0))
        # What is accepted inherits it: the kernel's own buffers may grow to more than the test sends.
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self.port = LeanPort(self.reactor, self._listening, self.context)
        self.port.start()
        stack.callback(self.port.stop)
        stack.callback(self._everybody_leaves)

    def connect(self) -> End:
        """A client, whose connection nobody has accepted yet."""
        sock = self._stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        sock.connect(self._listening.getsockname())
        return End(self.reactor, sock)

    def server(self) -> End:
        """The server's end of the next connection with it."""
        accepted: list[socket.socket] = []

        def came() -> bool:
            with contextlib.suppress(BlockingIOError):
                accepted.append(self._servers.accept()[0])
            return bool(accepted)

        self.reactor.settle()
        self.reactor.until(came)
        return End(self.reactor, self._stack.enter_context(accepted[0]))

    def greeted(self) -> tuple[End, End]:
        """A client that has said EHLO, and the server."""
        client = self.connect()
        server = self.server()
        server.send_all(GREETING)
        client.expect(GREETING)
        client.send_all(b"EHLO client.example\r\n")
        server.expect(b"EHLO client.example\r\n")
        server.send_all(EHLO_REPLY)
        client.expect(b"250 PIPE_CONNECT\r\n")
        return client, server

    def in_mail_data(self) -> tuple[End, End]:
        """A client whose mail data is expected, and the server."""
        client, server = self.greeted()
        client.send_all(ENVELOPE)
        server.expect(ENVELOPE)
        server.send_all(b"250 ok\r\n250 ok\r\n")
        client.expect(b"250 ok\r\n250 ok\r\n")
        client.send_all(b"DATA\r\n")
        server.expect(b"DATA\r\n")
        server.send_all(b"354 go\r\n")
        client.expect(b"354 go\r\n")
        return client, server

    def _everybody_leaves(self) -> None:
        for session in list(self.sweep):
            if hasattr(session, "cut_off"):
                session.cut_off()
        self.reactor.advance(3600.0)
        for transport in list(self.reactor.readers | self.reactor.writers):
            if hasattr(transport, "abortConnection"):
                transport.abortConnection()
        self.reactor.settle()


def big_message(size: int) -> bytes:
    """A message of lines that all differ, many with dots at their beginning; dot-stuffed."""
    lines = []
    total = number = 0
    while total < size:
        number += 1
        line = b"%s%d %s\r\n" % (b"." * (number % 4 * 2), number, hashlib.sha256(b"%d" % number).hexdigest().encode())
        lines.append(line)
        total += len(line)
    return b"".join(lines)
