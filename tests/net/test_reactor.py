"""The reactor that goes straight to lean transports, turned by hand."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.interfaces import IReactorCore, IReactorFDSet, IReactorTime
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from smtpproxy.net.reactor import LeanReactor
from smtpproxy.net.transport import LeanTransport

from .fakes import PATIENCE, HalfRecorder, read_until, receive_all, reset, tcp_pair

MUCH = b"0123456789abcdef" * (1 << 16)


class Turned(LeanReactor):
    """One that nobody runs."""

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.turn(0.01)
            assert time.monotonic() < deadline, "it never came about"

    def turn(self, wait: float = 0.0) -> None:
        self.runUntilCurrent()
        self.doPoll(wait)

    def settle(self) -> None:
        for _ in range(5):
            self.turn(0.005)


@pytest.fixture
def reactor() -> Iterator[Turned]:
    made = Turned()
    yield made
    assert made.removeAll() == [], "something is still watched"
    for internal in list(made._internalReaders):
        made.removeReader(internal)
        internal.connectionLost(None)
    made._poller.close()


@pytest.fixture
def errors() -> Iterator[list[Any]]:
    """What Twisted logs as failures."""
    events: list[Any] = []

    def keep(event: Any) -> None:
        if event.get("isError"):
            events.append(event["failure"].value)

    globalLogPublisher.addObserver(keep)
    yield events
    globalLogPublisher.removeObserver(keep)


def started(reactor: Turned, sock: socket.socket, protocol: HalfRecorder | None = None) -> LeanTransport:
    transport = LeanTransport(reactor, sock, sock.getpeername())
    transport.start(protocol or HalfRecorder())
    return transport


def test_it_is_a_reactor(reactor: Turned) -> None:
    for interface in (IReactorCore, IReactorTime, IReactorFDSet):
        assert verifyObject(interface, reactor)


def test_reading_writing_and_the_end(reactor: Turned) -> None:
    with tcp_pair(send_buffer=4096) as (ours, peer):
        protocol = HalfRecorder()
        transport = started(reactor, ours, protocol)
        peer.sendall(b"EHLO x\r\n")
        reactor.until(lambda: protocol.received == b"EHLO x\r\n")
        transport.write(MUCH)
        peer.sendall(b"NOOP\r\n")
        reactor.until(lambda: protocol.received == b"EHLO x\r\nNOOP\r\n")
        assert read_until(peer, reactor.turn, lambda received: len(received) >= len(MUCH)) == MUCH
        peer.sendall(b"QUIT\r\n")
        reactor.until(lambda: protocol.received.endswith(b"QUIT\r\n"))
        peer.shutdown(socket.SHUT_WR)
        reactor.until(lambda: "read lost" in protocol.events)
        reactor.settle()
        transport.loseConnection()
        reactor.until(lambda: "lost" in protocol.events)
        assert protocol.events == ["made", "read lost", "lost"]


def test_pausing_with_something_to_write(reactor: Turned) -> None:
    with tcp_pair(send_buffer=4096) as (ours, peer):
        protocol = HalfRecorder()
        transport = started(reactor, ours, protocol)
        peer.sendall(b"x")
        for paused_first in (True, False):
            reactor.until(lambda: protocol.received.endswith(b"x"))
            protocol.received = b""
            if paused_first:
                transport.pauseProducing()
                transport.write(MUCH)
            else:
                transport.write(MUCH)
                transport.pauseProducing()
            peer.sendall(b"y")
            reactor.settle()
            assert protocol.received == b""
            transport.resumeProducing()
            transport.resumeProducing()
            reactor.until(lambda: protocol.received == b"y")
            transport.pauseProducing()
            transport.pauseProducing()
            transport.resumeProducing()
            assert read_until(peer, reactor.turn, lambda received: len(received) >= len(MUCH)) == MUCH
            peer.sendall(b"x")
        transport.abortConnection()
        reactor.until(lambda: "lost" in protocol.events)


@pytest.mark.parametrize("state", ["reading", "writing", "paused and writing"])
def test_a_reset_ends_it_in_every_state(reactor: Turned, state: str) -> None:
    with tcp_pair(send_buffer=4096) as (ours, peer):
        protocol = HalfRecorder()
        transport = started(reactor, ours, protocol)
        if "paused" in state:
            transport.pauseProducing()
        if "writing" in state:
            transport.write(MUCH)
        reset(peer)
        reactor.until(lambda: "lost" in protocol.events)
        assert isinstance(protocol.reason, (error.ConnectionLost, error.ConnectionDone))
        assert transport.fileno() == -1


def test_a_descriptor_number_used_again_is_somebody_else(reactor: Turned) -> None:
    """Closed while watched for reading and writing; the next connection gets the same number."""
    with tcp_pair(send_buffer=4096) as (ours, _):
        first = started(reactor, ours)
        number = first.fileno()
        first.write(MUCH)
        first.detach(reset=True)
    protocol = HalfRecorder()
    with tcp_pair() as (ours, peer):
        moved = ours.dup()
        with moved:
            second = started(reactor, ours, protocol)
            assert number >= 0
            peer.sendall(b"hello")
            reactor.until(lambda: protocol.received == b"hello")
            assert protocol.events == ["made"]
            second.detach()


class Failing(HalfRecorder):
    """A protocol with a bug."""

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        raise RuntimeError(data.decode())


def test_h10_an_exception_ends_one_connection(reactor: Turned, errors: list[Any]) -> None:
    with tcp_pair() as (bad, bad_peer), tcp_pair() as (good, good_peer):
        failing, fine = Failing(), HalfRecorder()
        started(reactor, bad, failing)
        transport = started(reactor, good, fine)
        bad_peer.sendall(b"boom")
        good_peer.sendall(b"hello")
        reactor.until(lambda: fine.received == b"hello" and "lost" in failing.events)
        assert [str(each) for each in errors] == ["boom"]
        with pytest.raises(ConnectionResetError):
            receive_all(bad_peer)
        transport.detach()


def test_h10_an_event_for_one_that_was_closed_a_moment_before_is_nobodys(reactor: Turned) -> None:
    """Both are ready at once, and whoever comes first closes the other."""

    class Jealous(HalfRecorder):
        other: LeanTransport

        def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
            super().dataReceived(data)
            self.other.detach(reset=True)

    with tcp_pair() as (one, one_peer), tcp_pair() as (two, two_peer):
        rivals = [Jealous(), Jealous()]
        transports = [started(reactor, one, rivals[0]), started(reactor, two, rivals[1])]
        rivals[0].other, rivals[1].other = transports[1], transports[0]
        one_peer.sendall(b"x")
        two_peer.sendall(b"x")
        reactor.until(lambda: any(rival.received for rival in rivals))
        reactor.settle()
        assert sorted(rival.received for rival in rivals) == [b"", b"x"]
        assert sorted(transport.fileno() >= 0 for transport in transports) == [False, True]
        for transport in transports:
            transport.detach()


def test_other_descriptors_are_treated_as_ever(reactor: Turned) -> None:
    class Reader:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.read: list[bytes] = []
            self.gone = False

        def fileno(self) -> int:
            return self.sock.fileno()

        def doRead(self) -> None:  # noqa: N802  # Twisted's name
            self.read.append(self.sock.recv(100))

        def connectionLost(self, _reason: object) -> None:  # noqa: N802  # Twisted's name
            self.gone = True

        def logPrefix(self) -> str:  # noqa: N802  # Twisted's name
            return "reader"

    with tcp_pair() as (ours, peer):
        reader = Reader(ours)
        reactor.addReader(reader)
        peer.sendall(b"plain")
        reactor.until(lambda: reader.read)
        assert reader.read == [b"plain"]
        reactor.removeReader(reader)
        peer.sendall(b"more")
        reactor.settle()
        assert reader.read == [b"plain"]
