# ruff: noqa: FBT003  (Twisted's interfaces take flags by position)
"""The lean transport is an ordinary Twisted transport (H9, S13), on real sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet import error, interfaces
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from smtpproxy.net.transport import LeanTransport

from .fakes import FakeReactor, HalfRecorder, Producer, Recorder, read_until, receive_all, reset, tcp_pair

SMALL = 4096
MUCH = b"0123456789abcdef" * (1 << 16)


class Ends:
    """A lean transport on one end, a plain socket on the other."""

    def __init__(self, ours: socket.socket, peer: socket.socket, protocol: Recorder) -> None:
        self.reactor = FakeReactor()
        self.peer = peer
        self.protocol = protocol
        self.transport = LeanTransport(self.reactor, ours, ("192.0.2.1", 4000))
        self.transport.start(protocol)

    def gone(self) -> bool:
        """Whether the transport has let go of everything."""
        watched = self.reactor.readers | self.reactor.writers
        return self.transport.fileno() == -1 and self.transport not in watched


@contextlib.contextmanager
def ends(protocol: Recorder | None = None) -> Iterator[Ends]:
    with tcp_pair(send_buffer=SMALL) as (ours, peer):
        yield Ends(ours, peer, protocol or HalfRecorder())


# --- what it says it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interface",
    [
        interfaces.ITransport,
        interfaces.ITCPTransport,
        interfaces.IReadDescriptor,
        interfaces.IWriteDescriptor,
        interfaces.IReadWriteDescriptor,
        interfaces.IPushProducer,
        interfaces.IConsumer,
        interfaces.ILoggingContext,
    ],
)
def test_it_provides_what_twisted_expects(interface: type) -> None:
    with ends() as pair:
        assert verifyObject(interface, pair.transport)


def test_addresses() -> None:
    with ends() as pair:
        assert (pair.transport.getPeer().host, pair.transport.getPeer().port) == ("192.0.2.1", 4000)
        assert (pair.transport.getHost().type, pair.transport.getHost().host) == ("TCP", "127.0.0.1")
        assert pair.transport.getHost().port == pair.peer.getpeername()[1]


def test_addresses_of_ipv6_and_unix() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        reactor = FakeReactor()
        assert LeanTransport(reactor, ours, ("2001:db8::1", 25, 0, 0)).getPeer().host == "2001:db8::1"
        transport = LeanTransport(reactor, ours, "")
        assert isinstance(transport.getPeer(), type(transport.getHost()))
        assert transport.getPeer().name is None


def test_the_options_of_tcp() -> None:
    with ends() as pair:
        for on in (True, False):
            pair.transport.setTcpNoDelay(on)
            assert pair.transport.getTcpNoDelay() is on
            pair.transport.setTcpKeepAlive(on)
            assert pair.transport.getTcpKeepAlive() is on


def test_it_cannot_be_given_new_attributes() -> None:
    """Three KiB per idle connection leave no room for a dictionary in each."""
    with ends() as pair, pytest.raises(AttributeError):
        pair.transport.anything = 1


# --- reading --------------------------------------------------------------------------------------------------------


def test_what_comes_goes_to_the_protocol() -> None:
    with ends() as pair:
        assert pair.protocol.events == ["made"]
        pair.peer.sendall(b"EHLO x\r\n")
        pair.reactor.until(lambda: pair.protocol.received == b"EHLO x\r\n")
        pair.reactor.settle()
        assert pair.protocol.received == b"EHLO x\r\n"


def test_nothing_is_read_while_paused() -> None:
    with ends() as pair:
        pair.transport.pauseProducing()
        pair.peer.sendall(b"more")
        pair.reactor.settle()
        assert pair.protocol.received == b""
        pair.transport.resumeProducing()
        pair.reactor.until(lambda: pair.protocol.received == b"more")


def test_a_read_for_nothing_does_no_harm() -> None:
    with ends() as pair:
        pair.transport.doRead()
        assert pair.protocol.events == ["made"]
        assert not pair.gone()


def test_h4_one_more_look() -> None:
    with ends() as pair:
        assert pair.transport.read_now() is None
        pair.peer.sendall(b"QUIT\r\n")
        found: list[bytes | None] = []
        pair.transport.pauseProducing()
        pair.reactor.until(lambda: (found.append(pair.transport.read_now()), found[-1])[1])
        assert found[-1] == b"QUIT\r\n"
        pair.peer.shutdown(socket.SHUT_WR)
        assert pair.transport.read_now() is None
        assert pair.protocol.received == b""


def test_the_end_of_input_is_told_once_to_who_wants_to_know() -> None:
    """S13: a client may half-close."""
    with ends() as pair:
        pair.peer.sendall(b"QUIT\r\n")
        pair.peer.shutdown(socket.SHUT_WR)
        pair.reactor.until(lambda: "read lost" in pair.protocol.events)
        pair.reactor.settle()
        assert pair.protocol.received == b"QUIT\r\n"
        assert pair.protocol.events == ["made", "read lost"]
        pair.transport.write(b"221 bye\r\n")
        pair.transport.loseConnection()
        assert receive_all(pair.peer, pair.reactor) == b"221 bye\r\n"


def test_the_end_of_input_ends_a_protocol_that_knows_no_halves() -> None:
    with ends(Recorder()) as pair:
        pair.peer.shutdown(socket.SHUT_WR)
        pair.reactor.until(lambda: "lost" in pair.protocol.events)
        assert isinstance(pair.protocol.reason, error.ConnectionDone)
        assert pair.gone()


def test_a_reset_is_a_loss() -> None:
    with ends() as pair:
        reset(pair.peer)
        pair.reactor.until(lambda: "lost" in pair.protocol.events)
        assert pair.protocol.events == ["made", "lost"]
        assert isinstance(pair.protocol.reason, error.ConnectionLost)
        assert pair.gone()


def test_whether_the_peer_is_quiet() -> None:
    with ends() as pair:
        assert pair.transport.is_quiet()
        pair.peer.sendall(b"421 going down\r\n")
        pair.reactor.until(lambda: not pair.transport.is_quiet())
    with ends() as pair:
        pair.peer.close()
        pair.reactor.until(lambda: not pair.transport.is_quiet())
    with ends() as pair:
        reset(pair.peer)
        pair.reactor.until(lambda: not pair.transport.is_quiet())


def test_whether_it_is_connected() -> None:
    with ends() as pair:
        assert pair.transport.is_connected()
    with socket.socket() as alone:
        alone.setblocking(False)
        assert not LeanTransport(FakeReactor(), alone, ("192.0.2.1", 25)).is_connected()


# --- writing --------------------------------------------------------------------------------------------------------


def test_a_small_write_leaves_at_once_and_is_not_watched() -> None:
    with ends() as pair:
        pair.transport.write(b"220 hello\r\n")
        assert pair.reactor.writers == set()
        assert pair.peer.recv(100) == b"220 hello\r\n"
        pair.transport.writeSequence([b"250-a\r\n", b"250 b\r\n"])
        assert pair.peer.recv(100) == b"250-a\r\n250 b\r\n"
        pair.transport.write(b"")
        assert pair.reactor.writers == set()


def test_much_arrives_whole_and_in_order() -> None:
    sent = [MUCH, b"second", *[b"%d," % number for number in range(500)], MUCH[:100_000], b"last"]
    with ends() as pair:
        for piece in sent:
            pair.transport.write(piece)
        assert pair.transport in pair.reactor.writers
        pair.transport.loseConnection()
        assert receive_all(pair.peer, pair.reactor) == b"".join(sent)
        pair.reactor.until(pair.gone)
        assert isinstance(pair.protocol.reason, error.ConnectionDone)


def test_the_producer_is_paused_and_resumed_once() -> None:
    with ends() as pair:
        producer = Producer()
        pair.transport.registerProducer(producer, True)
        pair.transport.write(b"fits")
        assert producer.calls == []
        pair.transport.write(MUCH)
        pair.transport.write(b"more")
        assert producer.calls == ["pause"]
        received = read_until(pair.peer, pair.reactor.turn, lambda _: producer.calls != ["pause"])
        assert producer.calls == ["pause", "resume"]
        assert pair.reactor.writers == set()
        while len(received) < 4 + len(MUCH) + 4:
            received += pair.peer.recv(1 << 16)
        assert received == b"fits" + MUCH + b"more"


def test_a_producer_that_comes_late_is_told() -> None:
    with ends() as pair:
        pair.transport.write(MUCH)
        producer = Producer()
        pair.transport.registerProducer(producer, True)
        assert producer.calls == ["pause"]


def test_a_producer_that_has_left_is_told_nothing() -> None:
    with ends() as pair:
        producer = Producer()
        pair.transport.registerProducer(producer, True)
        pair.transport.unregisterProducer()
        pair.transport.write(MUCH)
        pair.transport.loseConnection()
        receive_all(pair.peer, pair.reactor)
        assert producer.calls == []


def test_pull_producers_are_not_taken() -> None:
    with ends() as pair, pytest.raises(ValueError, match="push"):
        pair.transport.registerProducer(Producer(), False)


def test_a_write_error_is_told_in_a_later_turn() -> None:
    """A protocol in the middle of writing must not find itself disconnected."""
    with ends() as pair:
        pair.transport.pauseProducing()
        reset(pair.peer)
        pair.reactor.until(lambda: write_fails(pair))
        assert pair.protocol.events == ["made"]
        pair.transport.write(b"ignored")
        pair.reactor.settle()
        assert pair.protocol.events == ["made", "lost"]
        assert isinstance(pair.protocol.reason, error.ConnectionLost)
        assert pair.gone()


def write_fails(pair: Ends) -> bool:
    """Write once more; say whether the transport has found out that nobody is there."""
    pair.transport.write(b"x")
    return bool(pair.reactor.getDelayedCalls())


def test_a_write_error_with_data_queued() -> None:
    with ends() as pair:
        producer = Producer()
        pair.transport.registerProducer(producer, True)
        pair.transport.pauseProducing()
        pair.transport.write(MUCH)
        reset(pair.peer)
        pair.reactor.until(lambda: "lost" in pair.protocol.events)
        assert isinstance(pair.protocol.reason, error.ConnectionLost)
        assert pair.gone()
        assert producer.calls == ["pause"]


# --- ending ---------------------------------------------------------------------------------------------------------


def test_lose_connection_is_told_in_a_later_turn() -> None:
    with ends() as pair:
        pair.transport.loseConnection()
        assert pair.protocol.events == ["made"]
        pair.peer.sendall(b"too late")
        pair.reactor.settle()
        assert pair.protocol.events == ["made", "lost"]
        assert pair.protocol.received == b""
        assert isinstance(pair.protocol.reason, error.ConnectionDone)
        assert pair.gone()
        pair.transport.loseConnection()
        pair.transport.write(b"x")
        pair.transport.abortConnection()
        pair.reactor.settle()
        assert pair.protocol.events == ["made", "lost"]


def test_lose_connection_with_a_producer_registered_closes_all_the_same() -> None:
    with ends() as pair:
        pair.transport.registerProducer(Producer(), True)
        pair.transport.write(MUCH)
        pair.transport.loseConnection()
        pair.transport.write(b"not this")
        assert receive_all(pair.peer, pair.reactor) == MUCH
        pair.reactor.until(pair.gone)


def test_stop_producing_loses_the_connection() -> None:
    with ends() as pair:
        pair.transport.stopProducing()
        pair.reactor.settle()
        assert pair.protocol.events == ["made", "lost"]


def test_abort_resets_and_forgets_what_is_queued() -> None:
    with ends() as pair:
        pair.transport.write(MUCH)
        pair.transport.abortConnection()
        assert pair.protocol.events == ["made"]
        pair.reactor.settle()
        assert isinstance(pair.protocol.reason, error.ConnectionAborted)
        assert pair.gone()
        with pytest.raises(ConnectionResetError):
            receive_all(pair.peer)


def test_abort_of_a_connection_that_the_peer_has_reset() -> None:
    with ends() as pair:
        pair.transport.pauseProducing()
        reset(pair.peer)
        pair.transport.abortConnection()
        pair.reactor.settle()
        assert pair.protocol.events == ["made", "lost"]
        assert pair.gone()


def test_s13_half_close_when_everything_is_written() -> None:
    with ends() as pair:
        pair.transport.write(MUCH)
        pair.transport.loseWriteConnection()
        assert receive_all(pair.peer, pair.reactor) == MUCH
        assert not pair.gone()
        pair.peer.sendall(b"still talking")
        pair.reactor.until(lambda: pair.protocol.received == b"still talking")
        pair.peer.close()
        pair.reactor.until(pair.gone)
        assert pair.protocol.events[-1] == "lost"
        assert isinstance(pair.protocol.reason, error.ConnectionDone)


def test_s13_half_close_at_once() -> None:
    with ends() as pair:
        pair.transport.loseWriteConnection()
        assert receive_all(pair.peer, pair.reactor) == b""
        assert not pair.gone()


def test_s13_the_peers_half_close_does_not_throw_away_what_is_queued() -> None:
    with ends() as pair:
        pair.peer.shutdown(socket.SHUT_WR)
        pair.reactor.until(lambda: "read lost" in pair.protocol.events)
        pair.transport.write(MUCH)
        pair.transport.loseWriteConnection()
        pair.transport.resumeProducing()
        assert receive_all(pair.peer, pair.reactor) == MUCH


def test_half_close_of_a_connection_that_is_gone() -> None:
    with ends() as pair:
        reset(pair.peer)
        pair.reactor.until(pair.gone)
        pair.transport.loseWriteConnection()
        pair.transport.resumeProducing()
        pair.transport.pauseProducing()
        pair.reactor.settle()
        assert pair.protocol.events == ["made", "lost"]
        assert pair.gone()


def test_detach_tells_the_protocol_nothing() -> None:
    with ends() as pair:
        pair.transport.detach()
        assert pair.gone()
        assert receive_all(pair.peer) == b""
        pair.reactor.settle()
        assert pair.protocol.events == ["made"]
        pair.transport.detach()
        pair.transport.detach(reset=True)


def test_detach_writes_what_is_queued() -> None:
    with ends() as pair:
        producer = Producer()
        pair.transport.registerProducer(producer, True)
        pair.transport.write(MUCH)
        pair.transport.detach()
        assert receive_all(pair.peer, pair.reactor) == MUCH
        pair.reactor.until(pair.gone)
        assert pair.protocol.events == ["made"]
        assert producer.calls == ["pause"]
        pair.reactor.advance(3600.0)


def test_h9_detach_does_not_wait_for_ever() -> None:
    """A peer that does not read would keep descriptor and queue as long as it likes."""
    with ends() as pair:
        pair.transport.write(MUCH)
        pair.transport.detach()
        pair.reactor.settle()
        assert not pair.gone()
        pair.reactor.advance(60.0)
        assert pair.gone()
        assert pair.reactor.getDelayedCalls() == []


def test_detach_with_a_reset() -> None:
    with ends() as pair:
        pair.transport.write(MUCH)
        pair.transport.detach(reset=True)
        assert pair.gone()
        with pytest.raises(ConnectionResetError):
            receive_all(pair.peer)
        assert pair.protocol.events == ["made"]


def test_detach_after_lose_connection_and_after_a_write_error() -> None:
    with ends() as pair:
        pair.transport.loseConnection()
        pair.transport.detach()
        pair.reactor.settle()
        assert pair.protocol.events == ["made"]
        assert pair.gone()


def test_the_reactor_may_say_that_it_is_over() -> None:
    with ends() as pair:
        pair.transport.connectionLost(Failure(error.ConnectionLost()))
        pair.transport.connectionLost(Failure(error.ConnectionLost()))
        assert pair.protocol.events == ["made", "lost"]
        assert pair.gone()


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left_open() -> None:
    before = descriptors()
    for end in ("loseConnection", "abortConnection", "detach"):
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        with peer:
            reactor = FakeReactor()
            transport = LeanTransport(reactor, ours, "")
            transport.start(HalfRecorder())
            getattr(transport, end)()
            reactor.settle()
    assert descriptors() == before
