"""One connection with a mail server, as a person would hold it: say something, wait for the reply.

The server is not trusted.  Replies are read by the core's reader (rule H8); more replies than commands, silence, and
bytes that are no reply end the conversation (rule C11).
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpproxy.net.parting import part
from smtpproxy.net.tls import TlsLayer
from smtpproxy.net.tlsfacts import with_reason
from smtpproxy.smtp.replies import Reply, ReplyReader

__all__ = ["Line", "LineError"]

_FAREWELL: Final = 5.0
"""Seconds that a reply to QUIT is waited for, at most."""


class LineError(Exception):
    """The conversation cannot go on; the text says why, and may have octets of the server's."""


@implementer(IHalfCloseableProtocol)
class Line:
    """A connection.  Each of its coroutines raises LineError; then only ``close`` is of use."""

    __slots__ = ("_clock", "_ended", "_owed", "_patience", "_reader", "_replies", "_transport", "_waiting", "factory")

    def __init__(self, clock: Any, patience: float) -> None:  # noqa: ANN401  # IReactorTime
        """``patience``: seconds for each reply and for the handshake."""
        self._clock = clock
        self._patience = patience
        self._reader = ReplyReader()
        self._replies: deque[Reply] = deque()
        self._owed = 1  # the greeting
        self._ended = ""
        self._waiting: Deferred[None] | None = None
        self._transport: Any = None

    @classmethod
    async def connect(cls, reactor: Any, address: str, port: int, patience: float) -> Line:  # noqa: ANN401  # the same
        """Connect; ``reactor``: IReactorTCP and IReactorTime.  Raises ConnectError as Twisted does."""
        line = cls(reactor, patience)
        endpoint = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        await connectProtocol(endpoint(reactor, address, port, patience), line)
        line._transport.setTcpNoDelay(True)  # our own, just made
        return line

    # --- talking ---------------------------------------------------------------------------------------------------

    def send(self, *commands: bytes) -> None:
        """Send some command lines in one write."""
        self._owed += len(commands)
        self._transport.write(b"".join(commands))

    async def reply(self) -> Reply:
        """Wait for the next reply."""
        deadline = self._clock.seconds() + self._patience
        while not self._replies:
            if self._ended:
                raise LineError(self._ended)
            await self._news(deadline - self._clock.seconds())
        return self._replies.popleft()

    async def secure(self, connection: Any) -> None:  # noqa: ANN401  # SSL.Connection
        """Begin TLS; only right behind the reply to STARTTLS, when nothing else may have come (rule C11)."""
        if self._ended or self._replies or self._reader.pending:
            raise LineError(self._ended or "it said more than its reply to STARTTLS")
        self._reader = ReplyReader()
        layer = TlsLayer(connection, self)
        lower, self._transport = self._transport, layer
        layer.start(lower, self, speak=True)
        deadline = self._clock.seconds() + self._patience
        while not layer.is_connected():
            if self._ended:
                raise LineError(self._ended)
            await self._news(deadline - self._clock.seconds())

    async def quit(self) -> None:
        """Take leave politely, and close; never raises."""
        with contextlib.suppress(LineError):
            if not self._ended:
                self._patience = min(self._patience, _FAREWELL)
                self.send(b"QUIT\r\n")
                await self.reply()
        self.close()

    async def the_end(self) -> str:
        """Wait a little until the server closes; give what it did instead, "" if it did, or nothing."""
        deadline = self._clock.seconds() + min(self._patience, _FAREWELL)
        try:
            while not self._ended:
                await self._news(deadline - self._clock.seconds())
        except LineError:
            return ""  # it keeps the connection open, which is its own affair
        return "" if self._ended == _CLOSED else self._ended

    def close(self) -> None:
        """Close; harmless if it is done."""
        transport, self._transport = self._transport, None
        part(transport)

    async def _news(self, seconds: float) -> None:
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        waiting.addTimeout(max(0.0, seconds), self._clock)
        try:
            await waiting
        except TooLate:
            self._ended = f"nothing came within {self._patience:g} s"  # not even QUIT is sent then
            raise LineError(self._ended) from None
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)

    def _end(self, why: str) -> None:
        self._ended = self._ended or why
        self._wake()

    # --- the connection (IProtocol, IHalfCloseableProtocol) ---------------------------------------------------------

    def makeConnection(self, transport: Any) -> None:  # noqa: N802, ANN401  # Twisted's interface
        """Begin."""
        self._transport = transport

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's interface
        """Read replies."""
        if self._ended:
            return
        for reply in self._reader.receive(data):
            if not self._owed:
                self._ended = f"it spoke unasked: {reply.raw.rstrip().decode('latin-1')}"
                break
            self._owed -= 1
            self._replies.append(reply)
        if self._reader.fault:
            self._ended = self._ended or f"what it said is no reply of SMTP: {self._reader.fault}"
        self._wake()

    def readConnectionLost(self) -> None:  # noqa: N802  # Twisted's interface
        """The server has closed its side."""
        self._end(_CLOSED)

    def writeConnectionLost(self) -> None:  # noqa: N802  # Twisted's interface
        """Our own doing."""

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802  # Twisted's interface
        """The connection is gone."""
        self._end(_CLOSED if reason.check(ConnectionDone) else f"the connection broke: {reason.getErrorMessage()}")

    # --- TLS (TlsOwner) ---------------------------------------------------------------------------------------------

    def tls_secured(self, layer: TlsLayer) -> None:  # noqa: ARG002  # of TlsOwner
        """The handshake is done."""
        self._wake()

    def tls_failed(self, layer: TlsLayer, why: str) -> None:
        """The handshake has failed."""
        self._end(f"the handshake failed: {with_reason(why, layer.connection)}")


_CLOSED: Final = "it closed the connection"
