"""Connections with servers: how they are made, and how they end."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from freeports import has_ipv6

from smtpproxy.net.leg import BackendLeg, Dialler
from smtpproxy.net.parting import part
from smtpproxy.net.servers import Server

from .fakes import FakeReactor, read_until, receive_all, reset
from .stage import FakeTransport, Stage


class Owner:
    """Writes down what a leg tells."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: list[str] = []
        self.full: list[bool] = []

    def leg_received(self, _leg: BackendLeg, data: bytes) -> None:
        self.received += data

    def leg_lost(self, _leg: BackendLeg, why: str) -> None:
        self.lost.append(why)

    def leg_full(self, *, full: bool) -> None:
        self.full.append(full)

    def leg_secured(self, _leg: BackendLeg) -> None:
        """Nobody asks for TLS here."""


class Call:
    """An attempt to reach a server with a lean transport."""

    def __init__(self, family: int, address: Any) -> None:
        self.reactor = FakeReactor()
        self.owner = Owner()
        server = Server("server", family, address)
        self.leg = Dialler(self.reactor, lean=True).dial(self.owner, server, 5.0)

    def why(self) -> str:
        """The reason; it must have failed at once."""
        assert not isinstance(self.leg, BackendLeg)
        return self.leg.why

    def made(self) -> BackendLeg:
        """The leg; it must have come that far."""
        assert isinstance(self.leg, BackendLeg)
        return self.leg


@contextlib.contextmanager
def server_at(family: int, address: Any) -> Iterator[socket.socket]:
    with socket.socket(family) as listening:
        listening.bind(address)
        listening.listen()
        listening.settimeout(5)
        yield listening


@pytest.mark.parametrize("kind", ["IPv4", "IPv6", "Unix"])
def test_a_connection_both_ways(kind: str, tmp_path: Path) -> None:
    if kind == "IPv6" and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    families = {"IPv4": (socket.AF_INET, ("127.0.0.1", 0)), "IPv6": (socket.AF_INET6, ("::1", 0))}
    family, address = families.get(kind, (socket.AF_UNIX, str(tmp_path / "mta")))
    with server_at(family, address) as listening:
        call = Call(family, listening.getsockname())
        leg = call.made()
        accepted, _ = listening.accept()
        with accepted:
            accepted.sendall(b"220 hello\r\n")
            call.reactor.until(lambda: call.owner.received == b"220 hello\r\n")
            assert leg.connected
            if kind != "Unix":
                assert leg.transport.getTcpNoDelay()
            leg.transport.write(b"EHLO x\r\n")
            assert accepted.recv(100) == b"EHLO x\r\n"
            accepted.shutdown(socket.SHUT_WR)
            call.reactor.until(lambda: call.owner.lost)
            assert call.owner.lost == ["backend closed the connection"]
            leg.close()
            assert receive_all(accepted) == b""
            assert leg.transport.fileno() == -1


def test_a_refused_connection_says_so() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        call = Call(socket.AF_INET, nobody.getsockname())
        if isinstance(call.leg, BackendLeg):
            assert not call.leg.connected
            call.reactor.until(lambda: call.owner.lost)
            assert "refused" in call.owner.lost[0]
            assert "lost" not in call.owner.lost[0], "a connection that never was is not lost"
            assert call.leg.transport.fileno() == -1
        else:
            assert "refused" in call.why()


def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    assert Call(socket.AF_UNIX, str(tmp_path / "mta")).why() == "No such file or directory"


def test_a_unix_socket_whose_queue_is_full(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "mta"))
        listening.listen(0)
        calls = [Call(socket.AF_UNIX, str(tmp_path / "mta")) for _ in range(4)]
        assert "queue" in calls[-1].why()
        for call in calls:
            if isinstance(call.leg, BackendLeg):
                call.leg.close()


def test_h10_without_descriptors_there_is_a_reason_and_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_arguments: Any, **_options: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", no_socket)
    call = Call(socket.AF_INET, ("127.0.0.1", 25))
    assert call.why() == "Too many open files"


def test_h10_an_address_that_makes_no_sense_is_a_reason() -> None:
    assert Call(socket.AF_INET6, ("fe80::1", 25, 0, 0)).why()


def test_a_connection_that_has_not_come_about() -> None:
    """A server whose queue is full lets a SYN wait."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(8):
            call = Call(socket.AF_INET, listening.getsockname())
            leg = call.made()
            stack.callback(leg.close)
            call.reactor.settle()
            if not leg.connected:
                break
        assert not leg.connected
        assert call.owner.lost == []
        leg.close()
        assert leg.transport.fileno() == -1
        call.reactor.settle()
        assert call.owner.lost == []


def test_a_reset_is_told() -> None:
    with server_at(socket.AF_INET, ("127.0.0.1", 0)) as listening:
        call = Call(socket.AF_INET, listening.getsockname())
        accepted, _ = listening.accept()
        reset(accepted)
        call.reactor.until(lambda: call.owner.lost)
        assert "reset" in call.owner.lost[0]


def test_a_server_that_does_not_read_is_told() -> None:
    with server_at(socket.AF_INET, ("127.0.0.1", 0)) as listening:
        call = Call(socket.AF_INET, listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            # The kernel would choose buffers that may hold all of it.
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            call.made().transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            call.made().transport.write(b"x" * (1 << 20))
            assert call.owner.full == [True]
            read_until(accepted, call.reactor.turn, lambda _: call.owner.full != [True])
            assert call.owner.full == [True, False]
            call.made().close(reset=True)


def test_a_closed_leg_tells_nobody_anything() -> None:
    owner = Owner()
    leg = BackendLeg(owner, Server("server", socket.AF_INET, ("192.0.2.1", 25)))
    leg.makeConnection(FakeTransport(FakeReactor()))
    leg.close()
    leg.dataReceived(b"250 late\r\n")
    leg.pauseProducing()
    leg.resumeProducing()
    leg.readConnectionLost()
    assert (owner.received, owner.lost, owner.full) == (b"", [], [])


# --- parting --------------------------------------------------------------------------------------------------------


def test_a_paused_transport_is_resumed_before_it_is_closed() -> None:
    """Or the stock one would never report its loss; and with a producer registered it would never close."""
    for end, expected in ((False, "closed"), (True, "reset")):
        transport = FakeTransport(FakeReactor())
        transport.full = True
        transport.registerProducer(Paused(), streaming=True)
        transport.pauseProducing()
        part(transport, reset=end)
        transport.write(b"x")
        assert not transport.paused
        assert transport.ended == expected


class Paused:
    """A producer that must not be called any more."""

    def pauseProducing(self) -> None:  # noqa: N802  # Twisted's name
        raise AssertionError("unregistered")


def test_h9_a_stock_transport_does_not_wait_for_ever_to_be_read() -> None:
    reactor = FakeReactor()
    transport = FakeTransport(reactor)
    part(transport)
    assert transport.ended == "closed"
    reactor.advance(60.0)
    assert transport.ended == "reset"


def test_a_leg_that_never_had_a_connection_can_be_closed() -> None:
    leg = BackendLeg(Owner(), Server("server", socket.AF_INET, ("192.0.2.1", 25)))
    assert not leg.connected
    leg.close()
    leg.close(reset=True)
    part(None)


def test_a_lazy_session_with_a_client_that_is_full_while_it_dials(stage: Callable[..., Stage]) -> None:
    """The stock transport is not there before the connection has come about."""
    play = stage(backend={"connect": "lazy"})
    play.ready().send(b"QUIT\r\n")
    client = play.client()
    play.dialler.slow = True
    client.transport.full = True
    client.send(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\n")
    assert len(play.dialler.legs) == 2
    play.pass_time(play.sweep.round)
    assert client.transport.paused, "the reply to EHLO waits for nobody (S4), and fills it"
    client.transport.drain()
    assert not client.transport.paused
    play.dialler.connect(play.leg)
    play.answer(b"220 mx\r\n")
    assert play.asked() == b"EHLO client.example\r\n"
    client.send(b"QUIT\r\n")
