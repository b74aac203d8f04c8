# ruff: noqa: N802, FBT003  (Twisted's interfaces: names in camel case, flags by position)
"""A reactor that a test turns by hand, pairs of connected sockets, protocols that write down what happens to them."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.task import Clock
from zope.interface import implementer

PATIENCE = 60.0
"""Seconds of real time that a test waits for the kernel before it fails."""


class FakeReactor(Clock):
    """Time that stands still, and descriptors that are looked at when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def turn(self, wait: float = 0.0) -> bool:
        """One round of the loop: calls that are due, then descriptors; say whether any was ready."""
        self.advance(0)
        readable, writable, _ = select.select(list(self.readers), list(self.writers), [], wait)
        for reader in readable:
            if reader in self.readers:
                reader.doRead()
        for writer in writable:
            if writer in self.writers:
                writer.doWrite()
        return bool(readable or writable)

    def settle(self) -> None:
        """Turn until nothing is ready and nothing is due."""
        while self.turn() or any(call.getTime() <= self.seconds() for call in self.getDelayedCalls()):
            pass

    def until(self, condition: Callable[[], object]) -> None:
        """Turn until the condition holds; the kernel needs a moment to carry things from one socket to another."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.turn(0.01)
            assert time.monotonic() < deadline, "it never came about"


@implementer(IProtocol)
class Recorder:
    """A protocol that writes down what happens to it; not aware of half-closes."""

    factory = None

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = b""
        self.reason: BaseException | None = None
        self.transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any) -> None:
        self.events.append("lost")
        self.reason = reason.value


@implementer(IHalfCloseableProtocol)
class HalfRecorder(Recorder):
    """The same, aware of half-closes."""

    def readConnectionLost(self) -> None:
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")


class Producer:
    """Somebody who can be told to stop and to go on."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


def reset(peer: socket.socket) -> None:
    """Close with a reset."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def receive_all(peer: socket.socket, reactor: FakeReactor | None = None) -> bytes:
    """Everything until the other side closes, turning a reactor meanwhile."""
    peer.settimeout(PATIENCE if reactor is None else 0.0)
    deadline = time.monotonic() + PATIENCE
    received = bytearray()
    while time.monotonic() < deadline:
        try:
            data = peer.recv(1 << 16)
        except BlockingIOError:
            if reactor is not None:
                reactor.turn(0.001)
            continue
        if not data:
            return bytes(received)
        received += data
    raise AssertionError(f"not closed; {len(received)} octets came")


def read_until(peer: socket.socket, turn: Callable[[float], object], condition: Callable[[bytes], object]) -> bytes:
    """Read from a peer until the condition holds for what came, and give that; ``turn`` is the other side's reactor's.

    The other side waits for the kernel now and then, which has its own time for acknowledgements: whoever waited in
    ``recv`` meanwhile would wait for ever.
    """
    peer.settimeout(0.0)
    deadline = time.monotonic() + PATIENCE
    received = b""
    while not condition(received):
        with contextlib.suppress(BlockingIOError):
            received += peer.recv(1 << 20)
        turn(0.001)
        assert time.monotonic() < deadline, f"only {len(received)} octets came"
    peer.settimeout(PATIENCE)
    return received


@contextlib.contextmanager
def tcp_pair(*, send_buffer: int = 0) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected TCP sockets: ours, not blocking, and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.socket()
        if send_buffer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer)
        peer.connect(server.getsockname())
        ours, _ = server.accept()
    if send_buffer:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    ours.setblocking(False)
    peer.settimeout(PATIENCE)
    with ours, peer:
        yield ours, peer
