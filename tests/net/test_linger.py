"""Closing so that the last reply arrives."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import providedBy
from zope.interface.verify import verifyObject

from smtpproxy.net.linger import Linger
from smtpproxy.net.sweep import Sweep
from smtpproxy.net.transport import LeanTransport

from .fakes import FakeReactor, HalfRecorder, receive_all, reset, tcp_pair
from .stage import Stage

MUCH = b"250-and so on\r\n" * 100_000


class Closing:
    """A lean transport whose protocol has said its last word, with a client on the other end."""

    def __init__(self, ours: socket.socket, peer: socket.socket, last: bytes) -> None:
        self.reactor = FakeReactor()
        self.peer = peer
        self.sweep = Sweep(self.reactor, 5.0)
        self.sweep.start()
        self.transport = LeanTransport(self.reactor, ours, ("192.0.2.1", 1))
        self.transport.start(HalfRecorder())
        self.transport.pauseProducing()
        self.transport.write(last)
        linger = Linger(self.sweep, 1, 5.0)
        self.transport.protocol = linger
        linger.makeConnection(self.transport)

    def gone(self) -> bool:
        """Whether nothing of it is left anywhere."""
        return self.transport.fileno() == -1 and list(self.sweep) == []

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.reactor.advance(0.1)


def test_the_protocols_are_what_they_say(stage: Callable[..., Stage]) -> None:
    play = stage()
    protocols: list[Any] = [Linger(play.sweep, 1, 5.0), play.greeted().session, play.leg]
    for protocol in protocols:
        said = list(providedBy(protocol))
        assert IHalfCloseableProtocol in said
        assert [interface for interface in said if not verifyObject(interface, protocol)] == []


def test_the_last_word_arrives_although_the_client_goes_on_talking() -> None:
    with tcp_pair(send_buffer=4096) as (ours, peer):
        peer.sendall(b"what nobody will read\r\n" * 10)
        closing = Closing(ours, peer, MUCH + b"421 going down\r\n")
        assert receive_all(peer, closing.reactor) == MUCH + b"421 going down\r\n"
        peer.sendall(b"and on\r\n")
        closing.reactor.settle()
        assert not closing.gone()
        peer.shutdown(socket.SHUT_WR)
        closing.reactor.until(closing.gone)


def test_a_client_that_had_closed_its_side_before_gets_the_last_word() -> None:
    with tcp_pair(send_buffer=4096) as (ours, peer):
        peer.shutdown(socket.SHUT_WR)
        closing = Closing(ours, peer, MUCH)
        assert receive_all(peer, closing.reactor) == MUCH
        closing.reactor.until(lambda: closing.transport.fileno() == -1)


def test_a_client_that_does_not_close_is_cut_off() -> None:
    with tcp_pair() as (ours, peer):
        closing = Closing(ours, peer, b"421 going down\r\n")
        closing.pass_time(4.5)
        assert not closing.gone()
        closing.pass_time(0.5 + 2 * closing.sweep.round)
        assert closing.gone()
        assert peer.recv(100) == b"421 going down\r\n"


def test_a_client_that_neither_reads_nor_closes_is_cut_off() -> None:
    with tcp_pair(send_buffer=4096) as (ours, peer):
        closing = Closing(ours, peer, MUCH)
        closing.pass_time(5.0 + 2 * closing.sweep.round)
        assert closing.gone()


def test_a_client_that_resets_is_forgotten() -> None:
    with tcp_pair() as (ours, peer):
        closing = Closing(ours, peer, b"421 going down\r\n")
        reset(peer)
        closing.reactor.until(closing.gone)
