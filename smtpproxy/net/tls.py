"""TLS between a connection and its protocol: one layer for both roles, on lean and on stock transports.

    socket <--> transport <--ciphertext--> TlsLayer <--plain text--> protocol

The layer is the transport's protocol and its protocol's transport.  OpenSSL works on memory, so what came and what
leaves passes through here in whole blocks: one read of the socket gives its plain text in one piece, one write gives
its records in one piece.  Back-pressure is the transport's own: what is encrypted is handed on at once, and nothing
decrypted is kept back.

Before the handshake is done nothing reaches the protocol, and nothing that was read in clear is ever fed to it
(rules S5, S6): whoever puts a layer in says what has been read already, which is part of the handshake then.  After
the peer's close_notify nothing is read any more (rule H7).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from OpenSSL import SSL
from twisted.internet import error, interfaces
from twisted.python.failure import Failure
from zope.interface import implementer

from .parting import part
from .records import RecordCounter
from .transport import NOBODY, OwnTransport, seems_quiet

_RECORD: Final = 16384
"""Octets of plain text in the largest record (RFC 8446, 5.1): OpenSSL gives no more at a time."""
_CHANGE_CIPHER_SPEC: Final = 20
_BLOCK: Final = 32 * 1024
_MOST_BESIDE: Final = 1000
"""Records without text in one connection, and answers to them: an honest peer sends a few tickets and key updates."""
_ANSWER: Final = 32
"""About as many octets has an answer."""
_LOOKS: Final = 8
"""Reads of what came while nobody looked: an honest peer's tickets are one or two."""
UNKNOWN: Final = 1 << 30
"""More records than any block of bytes holds."""


class TlsOwner(Protocol):
    """Who wanted TLS."""

    __slots__ = ()

    def tls_secured(self, layer: TlsLayer) -> None:
        """Learn that the handshake is done; what is written from now on leaves encrypted."""

    def tls_failed(self, layer: TlsLayer, why: str) -> None:
        """Learn that the handshake has failed; the connection is still to be closed."""


@implementer(interfaces.ITransport, interfaces.IPushProducer, interfaces.IConsumer, interfaces.IHalfCloseableProtocol)
class TlsLayer(OwnTransport):
    """One connection's TLS."""

    __slots__ = (
        "_beside",
        "_ended",
        "_heard",
        "_lower",
        "_owner",
        "_records",
        "_secured",
        "_shut",
        "_speaks_first",
        "_surely_empty",
        "_unsent",
        "connection",
        "factory",
        "protocol",
    )

    disconnecting = False

    def __init__(self, connection: SSL.Connection, owner: TlsOwner) -> None:
        """Take a connection on memory BIOs that knows which side it is, and who is told of the handshake."""
        self.connection: Any = connection
        self.protocol: Any = None
        self._owner: TlsOwner = owner
        self._lower: Any = None
        self._secured = False
        self._ended = False
        self._heard = False
        self._shut = False
        self._speaks_first = False
        self._surely_empty = False
        """Whether OpenSSL has no plain text for us as long as nothing more comes."""
        self._unsent: list[bytes] = []
        self._records = RecordCounter()
        self._beside = 0
        """How much came beside text: records, and answers of ours."""

    def start(self, lower: Any, protocol: Any, *, first: bytes = b"", speak: bool = False) -> None:
        """Come between a transport and its protocol.

        ``first`` was read of the peer already, and is the beginning of its handshake; ``speak``: the first word of the
        handshake is ours (the client's role).
        """
        self._lower = lower
        self.protocol = protocol
        lower.protocol = self
        self._speaks_first = speak
        if speak:
            self._handshake()
        if first:
            self.dataReceived(first)

    # --- the transport below (IProtocol, IHalfCloseableProtocol) ---------------------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """Never called: a layer comes in between later."""

    def dataReceived(self, data: bytes) -> None:
        """Take what came of the peer."""
        if self._ended:
            return
        self._heard = True
        self.connection.bio_write(data)
        records = self._records
        # Behind the record that ends the handshake, which may have a change of cipher before it, there is nothing then.
        most = 0 if records.in_record else 2 if data[0] == _CHANGE_CIPHER_SPEC else 1
        whole = records.count(data)
        if self._secured:
            if whole:
                self._deliver(whole)
        else:
            self._surely_empty = whole <= most
            if self._handshake() and not self._surely_empty:
                self._deliver(UNKNOWN)

    def readConnectionLost(self) -> None:
        """The peer has closed its writing side, with a close_notify before it or without."""
        if self._heard and not self._secured:
            self._fail("connection closed in the handshake")
        self._end()

    def writeConnectionLost(self) -> None:
        """Our own doing."""

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        self._ended = True
        self._owner = _NO_OWNER
        protocol, self.protocol = self.protocol, NOBODY
        protocol.connectionLost(reason)

    # --- the handshake ---------------------------------------------------------------------------------------------

    def _handshake(self) -> bool:
        """Go on with the handshake; say whether it is done."""
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return False
        except Exception as problem:  # OpenSSL's error, or what a callback of the context has raised
            # The alert tells the peer why (RFC 8446, 6.2).
            self._flush()
            self._fail(words_for(problem))
            return False
        self._secured = True
        if self._speaks_first or self.connection.get_protocol_version() < SSL.TLS1_3_VERSION:
            self._flush()
        # Else the peer has all that it waits for: session tickets leave with the first plain text.
        self._owner.tls_secured(self)
        unsent, self._unsent = self._unsent, []
        for data in unsent:
            self.write(data)
        return not self._ended

    def _fail(self, why: str) -> None:
        if not self._ended:
            self._ended = True
            self._owner.tls_failed(self, why)

    # --- reading ---------------------------------------------------------------------------------------------------

    def _deliver(self, records: int) -> None:
        """Give what can be decrypted to the protocol, and after it the end, if it has come."""
        pieces: list[bytes] = []
        why = self._decrypt(pieces, records)
        if len(pieces) != records and records != UNKNOWN and why is None:
            # The peer's key update or renegotiation wants an answer.
            why = self._count_beside(records, len(pieces), self._flush_answers())
        if pieces:
            self.protocol.dataReceived(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if why is not None:
            self._tell_end(why)

    def _tell_end(self, why: str) -> None:
        if self._ended:
            return
        if why:
            self._break(why)
        else:
            self._end()

    def _decrypt(self, pieces: list[bytes], records: int) -> str | None:
        """Decrypt what is here; give None if more may come, "" after a close_notify, or why nothing can follow.

        ``records``: how many have come in whole; to ask OpenSSL for one more would cost an exception.
        """
        receive = self.connection.recv
        try:
            for _ in range(records):
                pieces.append(receive(_RECORD))  # noqa: PERF401  # what came before an exception counts
        except SSL.WantReadError:
            return None
        except SSL.ZeroReturnError:
            return ""
        except SSL.Error as problem:
            return words_for(problem)
        return None

    def _count_beside(self, records: int, texts: int, answered: int = 0) -> str | None:
        """Count records of which some had no text; say what is wrong if there were too many, else None.

        ``answered``: octets that left for them.  Who asks without end and reads nothing would fill our memory with the
        answers: by key updates, or by requests for a renegotiation, of which 4096 are in one record (TLS 1.2).
        """
        # An old client sends an empty record before each with text (CBC in TLS 1.0).
        beside = max(0, self._beside + records - 2 * texts)
        self._beside = beside + (answered + _ANSWER - 1) // _ANSWER
        return "too many records without text" if self._beside > _MOST_BESIDE else None

    def _end(self) -> None:
        self._ended = True
        self.protocol.readConnectionLost()

    def _break(self, why: str) -> None:
        """Give up: what came cannot have been the peer's, or it has given up itself."""
        self._flush()
        self._ended = True
        self._owner = _NO_OWNER
        protocol, self.protocol = self.protocol, NOBODY
        part(self._lower)
        protocol.connectionLost(Failure(error.ConnectionLost(f"TLS: {why}")))

    def read_now(self) -> bytes | None:
        """Read once, without waiting; None where nothing is there."""
        lower = self._lower
        if self._ended or not self._secured:
            return None
        pieces: list[bytes] = []
        if not self._surely_empty:
            # What came together with the end of the handshake.
            self._decrypt(pieces, UNKNOWN)
        if not pieces and isinstance(lower, OwnTransport) and (data := lower.read_now()) is not None:
            self.connection.bio_write(data)
            records = self._records.count(data)
            why = self._decrypt(pieces, UNKNOWN)
            if len(pieces) != records and why is None:
                why = self._count_beside(records, len(pieces))
            if why is not None:
                # Not now: who looks is in the middle of something.
                lower.soon(self._tell_end, why)
        return b"".join(pieces) or None

    def is_quiet(self) -> bool:
        """Say whether the peer has neither sent any plain text nor closed. What it had sent is lost."""
        return not self._ended and self._is_quiet(after_farewell=False)

    def has_input(self) -> bool:
        """Say whether something waits to be read, a close_notify alone not counted. What it was is lost."""
        return not self._is_quiet(after_farewell=True)

    def _is_quiet(self, *, after_farewell: bool) -> bool:
        lower = self._lower
        if not isinstance(lower, OwnTransport):
            return seems_quiet(lower)
        for _ in range(_LOOKS):
            data = lower.read_now()
            if data is None:
                return lower.is_quiet()
            # Session tickets come late and say nothing (RFC 8446, 4.6.1).
            self.connection.bio_write(data)
            self._records.count(data)
            pieces: list[bytes] = []
            why = self._decrypt(pieces, UNKNOWN)
            if pieces or why or (why is not None and not after_farewell):
                return False
        return False

    def soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call a function in the next turn of the reactor."""
        self._lower.soon(call, *arguments)

    def is_connected(self) -> bool:
        """Say whether the handshake is done."""
        return self._secured

    def pauseProducing(self) -> None:
        """Stop reading."""
        self._lower.pauseProducing()

    def resumeProducing(self) -> None:
        """Read again."""
        self._lower.resumeProducing()

    def stopProducing(self) -> None:
        """End the connection."""
        self.loseConnection()

    # --- writing ---------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send, or keep it until the handshake is done."""
        if self._shut or not data:
            return
        if not self._secured:
            self._unsent.append(data)
            return
        self._encrypt(data)
        self._flush(len(data))

    def write_last(self, data: bytes) -> None:
        """Send, and say in the same write that nothing more will be sent."""
        if self._secured and not self._shut:
            self._encrypt(data)
            self._say_goodbye()
            self._flush(len(data))

    def _encrypt(self, data: bytes) -> None:
        send = self.connection.send
        try:
            sent = send(data)
            if sent < len(data):
                # A record at a time is what OpenSSL takes.
                rest = memoryview(data)[sent:]
                while rest:
                    rest = rest[send(rest) :]
        except SSL.Error:
            # The reading side meets the same error, and tells of it.
            self._shut = True

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(data))

    def _flush(self, size: int = 0) -> None:
        """Hand on what is encrypted; ``size``: how much plain text it is about."""
        block = _BLOCK if size <= _RECORD else size + size // 64 + 1024
        read = self.connection.bio_read
        try:
            while True:
                data = read(block)
                self._lower.write(data)
                if len(data) < block:
                    return
        except SSL.WantReadError:
            return

    def _flush_answers(self) -> int:
        """Hand on what OpenSSL has to say by itself; give how many octets it was."""
        octets = 0
        with contextlib.suppress(SSL.WantReadError):
            while True:
                data = self.connection.bio_read(_BLOCK)
                octets += len(data)
                self._lower.write(data)
        return octets

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # Twisted's interface
        """Let a push producer be told when to stop and when to go on."""
        self._lower.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Tell nobody any more."""
        self._lower.unregisterProducer()

    # --- ending ----------------------------------------------------------------------------------------------------

    def _close_notify(self) -> None:
        """Say that nothing more will be written (RFC 8446, 6.1)."""
        if self._secured and not self._shut:
            self._say_goodbye()
            self._flush()

    def _say_goodbye(self) -> None:
        self._shut = True
        with contextlib.suppress(SSL.Error):
            self.connection.shutdown()

    def loseConnection(self) -> None:
        """Close when everything is written."""
        self._close_notify()
        self._lower.loseConnection()

    def loseWriteConnection(self) -> None:
        """Close the writing side when everything is written."""
        self._close_notify()
        self._lower.loseWriteConnection()

    def abortConnection(self) -> None:
        """Reset the connection."""
        self._shut = True
        self._lower.abortConnection()

    def detach(self, *, reset: bool = False) -> None:
        """Close, with a reset or when everything is written; the protocol has gone and hears nothing."""
        self._owner = _NO_OWNER
        self.protocol = NOBODY
        if not reset:
            self._close_notify()
        self._ended = self._shut = True
        part(self._lower, reset=reset)

    # --- facts -----------------------------------------------------------------------------------------------------

    def getPeer(self) -> Any:
        """Give the other end's address."""
        return self._lower.getPeer()

    def getHost(self) -> Any:
        """Give our own address."""
        return self._lower.getHost()

    def setTcpNoDelay(self, enabled: bool) -> None:  # Twisted's interface
        """Let small segments leave at once, or not."""
        self._lower.setTcpNoDelay(enabled)


def words_for(problem: Exception) -> str:
    """Say in OpenSSL's words, or in those of whoever raised it, what is wrong."""
    if isinstance(problem, SSL.SysCallError):
        return "connection closed in the handshake"
    details = problem.args[0] if problem.args else ""
    if isinstance(problem, SSL.Error) and isinstance(details, list):
        # (library, function, reason) of each error in OpenSSL's queue, the first being the cause.
        return ", ".join(dict.fromkeys(str(entry[-1]) for entry in details if entry[-1])) or "no reason given"
    return str(problem) or type(problem).__name__


class _NoOwner:
    """Stands where the owner was."""

    __slots__ = ()

    def tls_secured(self, layer: TlsLayer) -> None:
        """Nobody minds."""

    def tls_failed(self, layer: TlsLayer, why: str) -> None:
        """Nobody minds."""


_NO_OWNER: Final = _NoOwner()
