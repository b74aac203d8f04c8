"""A lean TCP and Unix stream transport.

A session lives for a dozen small reads and writes, so what surrounds each of them decides what it costs.  This
transport sends at once what the kernel takes and only queues the rest, reads once per event, and creates nothing it
does not need.  To its protocol it is an ordinary Twisted transport; ``net.listener`` and ``net.connect`` can use the
stock ones instead.

What is different from the stock transport: ``detach`` closes without a word to the protocol.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet import address, error, interfaces
from twisted.python.failure import Failure
from zope.interface import implementer

READ_SIZE: Final = 64 * 1024
FLUSH_SECONDS: Final = 30.0
"""How long a connection that is closed may take to get rid of what is still to be written."""
_IOVEC: Final = 64
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_CLEANLY: Final = Failure(error.ConnectionDone("Connection was closed cleanly."))
# How connections end that never came about; an ICMP error can end an established one so, too.
_NEVER_THERE: Final = frozenset({errno.ECONNREFUSED})
_NOT_YET: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOTCONN, errno.EINPROGRESS})


class OwnTransport:
    """What transports of ours can do beyond Twisted's interface."""

    __slots__ = ()

    def detach(self, *, reset: bool = False) -> None:
        """Close, with a reset or when everything is written; the protocol has gone and hears nothing."""
        raise NotImplementedError  # each transport has its own

    def read_now(self) -> bytes | None:
        """Read once, without waiting; None where nothing is there (or nothing more will come)."""
        raise NotImplementedError  # each transport has its own

    def is_quiet(self) -> bool:
        """Say whether the peer has neither sent anything nor closed. What it had sent is lost."""
        raise NotImplementedError  # each transport has its own

    def has_input(self) -> bool:
        """Say whether something waits to be read, so that a close would be a reset. What it was is lost."""
        return not self.is_quiet()

    def soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call a function in the next turn of the reactor."""
        raise NotImplementedError  # each transport has its own

    def is_connected(self) -> bool:
        """Say whether the connection has come about."""
        raise NotImplementedError  # each transport has its own


def seems_quiet(transport: Any) -> bool:
    """Say whether the peer has neither sent anything nor closed; of a stock transport nothing gets lost by it."""
    if isinstance(transport, OwnTransport):
        return transport.is_quiet()
    sock = getattr(transport, "socket", None)
    if sock is None:
        return True
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return True
    except OSError:
        return False
    return False


@implementer(
    interfaces.ITCPTransport,
    interfaces.IReadWriteDescriptor,
    interfaces.IPushProducer,
    interfaces.IConsumer,
)
class LeanTransport(OwnTransport):
    """One connected, or still connecting, stream socket and its protocol."""

    __slots__ = (
        "_closing",
        "_fd",
        "_offset",
        "_peer",
        "_producer",
        "_queue",
        "_reactor",
        "_reading",
        "_shut",
        "protocol",
        "sent",
        "socket",
    )

    disconnecting = False

    def __init__(self, reactor: Any, sock: socket.socket, peer: Any) -> None:
        """Take a non-blocking socket and its peer's address as the socket module gives it."""
        self._reactor = reactor
        self.socket = sock
        self._fd = sock.fileno()
        self._peer = peer
        self._queue: list[bytes] | None = None
        self._offset = 0
        self._producer: Any = None
        self._reading = False
        self._closing = False
        self._shut = False
        self.sent = 0
        """Octets that the kernel has taken."""
        self.protocol: Any = None

    def start(self, protocol: Any) -> None:
        """Give the protocol its transport and begin to read for it."""
        self.protocol = protocol
        self._reading = True
        self._reactor.addReader(self)
        protocol.makeConnection(self)

    # --- reading (IReadDescriptor, IPushProducer) ----------------------------------------------------------------

    def doRead(self) -> None:
        """Read once and give what came to the protocol."""
        try:
            data = self.socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as problem:
            self._lost(_failure(problem))
            return
        if data:
            self.protocol.dataReceived(data)
        else:
            self._end_of_input()

    def read_now(self) -> bytes | None:
        """Read once, without waiting; None where nothing is there (or nothing more will come)."""
        try:
            return self.socket.recv(READ_SIZE) or None
        except OSError:
            return None

    def is_quiet(self) -> bool:
        """Say whether the peer has neither sent anything nor closed. What it had sent is lost."""
        try:
            self.socket.recv(1)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    def soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call a function in the next turn of the reactor."""
        self._reactor.callLater(0, call, *arguments)

    def is_connected(self) -> bool:
        """Say whether the connection has come about; a socket that is still connecting has no peer."""
        try:
            self.socket.getpeername()
        except OSError:
            return False
        return True

    def _end_of_input(self) -> None:
        self._stop_reading()
        half: Any = interfaces.IHalfCloseableProtocol(self.protocol, None)
        if half is None or (self._shut and self._queue is None):
            self._lost(_CLEANLY)
        else:
            half.readConnectionLost()

    def pauseProducing(self) -> None:
        """Stop reading."""
        if self._fd >= 0:
            self._stop_reading()

    def resumeProducing(self) -> None:
        """Read again."""
        if self._fd >= 0 and not self._closing and not self._reading:
            self._reading = True
            self._reactor.addReader(self)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self)

    def stopProducing(self) -> None:
        """End the connection."""
        self.loseConnection()

    # --- writing (IWriteDescriptor, ITransport, IConsumer) ---------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send now what the kernel takes; queue the rest and pause the producer."""
        if self._fd < 0 or self._closing or not data:
            return
        if self._queue is not None:
            self._queue.append(data)
            return
        try:
            sent = self.socket.send(data)
        except OSError as problem:
            if problem.errno not in _NOT_YET:
                self.fail(problem)
                return
            sent = 0
        self.sent += sent
        if sent < len(data):
            self._queue = [data]
            self._offset = sent
            self._reactor.addWriter(self)
            if self._producer is not None:
                self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(data))

    def doWrite(self) -> None:
        """Send what is queued, as far as the kernel takes it."""
        queue = self._queue
        if queue is None:
            self._reactor.removeWriter(self)
            return
        pieces: list[bytes | memoryview] = [memoryview(queue[0])[self._offset :], *queue[1:_IOVEC]]
        try:
            sent = self.socket.sendmsg(pieces)
        except OSError as problem:
            if problem.errno not in _NOT_YET:
                self._lost(_failure(problem))
            return
        self.sent += sent
        if not self._forget_sent(queue, sent):
            return
        self._queue = None
        self._reactor.removeWriter(self)
        if self._closing:
            self._lost(_CLEANLY)
            return
        if self._shut:
            self._shut_down_writing()
        if self._producer is not None:
            self._producer.resumeProducing()

    def _forget_sent(self, queue: list[bytes], sent: int) -> bool:
        """Take ``sent`` octets off the queue; say whether it is empty."""
        sent += self._offset
        done = 0
        while done < len(queue) and sent >= len(queue[done]):
            sent -= len(queue[done])
            done += 1
        del queue[:done]
        self._offset = sent
        return not queue

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # Twisted's interface
        """Let a push producer be told when to stop and when to go on."""
        if not streaming:
            raise ValueError("LeanTransport takes push producers only")
        self._producer = producer
        if self._queue is not None:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """Tell nobody any more."""
        self._producer = None

    # --- ending ------------------------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Close when everything is written; the protocol hears of it in a later turn."""
        if self._fd < 0 or self._closing:
            return
        self._closing = True
        self._stop_reading()
        if self._queue is None:
            self._reactor.callLater(0, self._lost, _CLEANLY)

    def abortConnection(self) -> None:
        """Reset the connection; what is queued is thrown away, the protocol hears of it in a later turn."""
        if self._fd < 0:
            return
        self._reset_on_close()
        self._closing = True
        self._stop_watching()
        self._reactor.callLater(0, self._lost, Failure(error.ConnectionAborted()))

    def detach(self, *, reset: bool = False) -> None:
        """Close, with a reset or when everything is written; the protocol has gone and hears nothing."""
        self.protocol = NOBODY
        self._producer = None
        if self._fd < 0:
            return
        if reset:
            self._reset_on_close()
        elif self._queue is not None:
            self._closing = True
            self._stop_reading()
            self._reactor.callLater(FLUSH_SECONDS, self._close)
            return
        self._close()

    def loseWriteConnection(self) -> None:
        """Close the writing side when everything is written."""
        self._shut = True
        if self._queue is None:
            self._shut_down_writing()

    def _shut_down_writing(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as problem:
            self.fail(problem)

    def fail(self, problem: OSError) -> None:
        """Lose the connection in a later turn: a protocol must not be told of it while it is writing."""
        self._closing = True
        self._stop_watching()
        self._reactor.callLater(0, self._lost, _failure(problem))

    def _reset_on_close(self) -> None:
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        except OSError:
            # The peer may have reset it first; then there is nothing left to reset.
            return

    def _stop_watching(self) -> None:
        self._stop_reading()
        if self._queue is not None:
            self._queue = None
            self._reactor.removeWriter(self)

    def _close(self) -> None:
        if self._fd < 0:
            return
        # Our own reactor knows a shorter way to forget a descriptor that is being closed.
        forget = getattr(self._reactor, "forget", None)
        if forget is not None:
            forget(self)
            self._reading = False
            self._queue = None
        else:
            self._stop_watching()
        self._fd = -1
        self.socket.close()

    def _lost(self, reason: Failure) -> None:
        if self._fd < 0:
            return
        self._close()
        protocol, self.protocol = self.protocol, NOBODY
        protocol.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        """Hear from the reactor that the descriptor is of no use any more."""
        self._lost(reason)

    # --- facts -------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Give the descriptor, -1 once it is closed."""
        return self._fd

    def logPrefix(self) -> str:
        """Name this connection in Twisted's log."""
        return "smtpproxy"

    def getPeer(self) -> Any:
        """Give the other end's address."""
        return _twisted_address(self._peer)

    def getHost(self) -> Any:
        """Give our own address."""
        return _twisted_address(self.socket.getsockname())

    def getTcpNoDelay(self) -> bool:
        """Say whether small segments leave at once."""
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:  # Twisted's interface
        """Let small segments leave at once, or not."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """Say whether the kernel probes an idle connection."""
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:  # Twisted's interface
        """Let the kernel probe an idle connection, or not."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)


def _failure(problem: OSError) -> Failure:
    why = problem.strerror or str(problem)
    if problem.errno in _NEVER_THERE:
        return Failure(error.ConnectError(problem.errno, why))
    return Failure(error.ConnectionLost(why))


def _twisted_address(name: Any) -> Any:
    if isinstance(name, tuple):
        kind = address.IPv6Address if len(name) == 4 else address.IPv4Address
        return kind("TCP", name[0], name[1])
    return address.UNIXAddress(name or None)


class _Nobody:
    """Stands where the protocol was: the connection is over for it."""

    def dataReceived(self, data: bytes) -> None:
        """Throw it away."""

    def readConnectionLost(self) -> None:
        """Nobody minds."""

    def connectionLost(self, reason: Failure) -> None:
        """Nobody minds."""


NOBODY: Final = _Nobody()
"""A protocol that wants to hear nothing."""
