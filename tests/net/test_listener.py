"""Listening sockets, and accepting from them."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from freeports import free_port, has_ipv6
from twisted.internet.interfaces import IReadDescriptor
from zope.interface.verify import verifyObject

from smtpproxy.config import Endpoint
from smtpproxy.net.inherited import Inherited
from smtpproxy.net.listener import LeanPort, client_address, open_socket

from .fakes import PATIENCE
from .stage import Stage

NONE_INHERITED = Inherited({}, os.getpid())


def tcp(host: str, port: int = 0) -> Endpoint:
    return Endpoint("tcp", host=host, port=port)


def opened(endpoint: Endpoint, backlog: int = 16) -> socket.socket:
    return open_socket(endpoint, backlog, NONE_INHERITED)


# --- sockets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp_nodelay_is_inherited_by_what_is_accepted(host: str) -> None:
    """Setting it on each accepted socket would cost a system call for each."""
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    with opened(tcp(host)) as listening, socket.create_connection(listening.getsockname()[:2], 5):
        listening.settimeout(5)
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_listening_socket_does_not_block() -> None:
    with opened(tcp("127.0.0.1")) as listening:
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_ipv4_and_ipv6_wildcards_stand_side_by_side() -> None:
    with opened(tcp("0.0.0.0", free_port())) as four:
        port = four.getsockname()[1]
        with opened(tcp("::", port)) as six:
            assert six.getsockname()[1] == port
            assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_an_address_can_be_used_again_at_once() -> None:
    with opened(tcp("127.0.0.1", free_port())) as listening:
        address = listening.getsockname()
        with socket.create_connection(address, 5) as client:
            listening.settimeout(5)
            accepted, _ = listening.accept()
            accepted.close()
            assert client.recv(1) == b""
    with opened(tcp(*address)) as again:
        assert again.getsockname() == address


@pytest.mark.filterwarnings("error")
def test_an_address_in_use_is_an_oserror_and_leaves_nothing_open() -> None:
    with opened(tcp("127.0.0.1")) as listening:
        with pytest.raises(OSError, match="in use") as caught:
            opened(tcp(*listening.getsockname()))
        assert caught.value.errno == errno.EADDRINUSE


def test_an_address_that_is_not_ours_is_an_oserror() -> None:
    with pytest.raises(OSError, match=r"[Cc]annot assign"):
        opened(tcp("192.0.2.1"))


def unix(path: Path) -> Endpoint:
    return Endpoint("unix", path=str(path))


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    with opened(unix(path)) as listening, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listening.settimeout(5)
        accepted, peer = listening.accept()
        accepted.close()
        assert client_address(peer) == ""


def test_a_dead_unix_socket_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    with opened(unix(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_unix_socket_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    with opened(unix(path)) as listening:
        with pytest.raises(OSError, match="in use"):
            opened(unix(path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        assert listening.fileno() >= 0


def test_a_live_unix_socket_with_a_full_queue_is_not_taken_over(tmp_path: Path) -> None:
    """And whoever looks does not wait until there is room."""
    path = tmp_path / "smtp"
    told: list[OSError] = []

    def look() -> None:
        try:
            opened(unix(path)).close()
        except OSError as problem:
            told.append(problem)

    with opened(unix(path), backlog=1), fill(path):
        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(PATIENCE)
        assert not looking.is_alive()
        assert [problem.errno for problem in told] == [errno.EADDRINUSE]


class fill:  # noqa: N801  # reads as a verb
    """Connections that fill the queue of a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients: list[socket.socket] = []

    def __enter__(self) -> None:
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(0)
            self._clients.append(client)
            try:
                client.connect(str(self._path))
            except BlockingIOError:
                return

    def __exit__(self, *_error: object) -> None:
        for client in self._clients:
            client.close()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        opened(unix(path))
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        opened(unix(tmp_path / "missing" / "smtp"))


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.1", 4000), "192.0.2.1"),
        (("2001:db8::1", 4000, 0, 0), "2001:db8::1"),
        (("::ffff:192.0.2.1", 4000, 0, 0), "192.0.2.1"),
        (("::ffff:0:1", 4000, 0, 0), "::ffff:0:1"),
        (("fe80::1%eth0", 4000, 0, 2), "fe80::1%eth0"),
        ("", ""),
        (b"\0abstract", ""),
    ],
)
def test_the_address_of_a_client(peer: Any, address: str) -> None:
    assert client_address(peer) == address


# --- what systemd hands over ----------------------------------------------------------------------------------------


def test_nothing_inherited_is_an_oserror_that_says_what_there_is() -> None:
    with pytest.raises(OSError, match="no socket of that name") as caught:
        open_socket(Endpoint("systemd", path="smtp"), 16, NONE_INHERITED)
    assert "none" in str(caught.value)


def test_variables_for_another_process_count_for_nothing() -> None:
    environment = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtp"}
    with pytest.raises(OSError, match="none"):
        Inherited(environment, os.getpid()).take("smtp")


# --- accepting ------------------------------------------------------------------------------------------------------


class Door:
    """A lean port on a stage."""

    def __init__(self, stage: Stage, listening: socket.socket) -> None:
        self.stage = stage
        self.listening = listening
        self.port = LeanPort(stage.reactor, listening, stage.context)
        self.port.start()

    def knock(self) -> socket.socket:
        return socket.create_connection(self.listening.getsockname(), 5)

    def crowd(self, number: int) -> list[socket.socket]:
        """Clients, all of whose connections wait to be accepted: for the clients they have come about a bit sooner."""
        clients = [self.knock() for _ in range(number)]
        deadline = time.monotonic() + PATIENCE
        while waiting(self.listening) < number:
            assert time.monotonic() < deadline, "some of them never came"
        return clients


def waiting(listening: socket.socket) -> int:
    """How many connections a listening socket has that nobody has accepted (tcpi_unacked of <linux/tcp.h>)."""
    (found,) = struct.unpack_from("I", listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)
    return int(found)


@pytest.fixture
def door(stage: Callable[..., Stage]) -> Iterator[Door]:
    with opened(tcp("127.0.0.1"), backlog=128) as listening:
        here = Door(stage(), listening)
        yield here
        here.port.stop()
        for leg in here.stage.dialler.legs:
            leg.owner.leg_lost(leg, "the test is over")
        here.stage.reactor.settle()


def test_it_is_a_descriptor(door: Door) -> None:
    assert verifyObject(IReadDescriptor, door.port)
    assert door.port.fileno() == door.listening.fileno()
    assert "mx" in door.port.logPrefix()


def test_many_are_accepted_in_one_turn(door: Door) -> None:
    clients = door.crowd(30)
    door.stage.reactor.until(lambda: door.stage.context.sessions)
    assert door.stage.context.sessions == 30
    assert {session.address for session in door.stage.sweep if hasattr(session, "address")} == {"127.0.0.1"}
    for client in clients:
        client.close()


def test_those_accepted_before_are_served_too(door: Door) -> None:
    """One turn takes a bounded number."""
    clients = door.crowd(100)
    door.stage.reactor.until(lambda: door.stage.context.sessions)
    assert 1 < door.stage.context.sessions < 100
    door.stage.reactor.until(lambda: door.stage.context.sessions == 100 or door.stage.journal.refused)
    for client in clients:
        client.close()


def test_a_new_context_is_for_new_sessions(door: Door, stage: Callable[..., Stage]) -> None:
    with door.knock() as first:
        door.stage.reactor.until(lambda: door.stage.context.sessions == 1)
        other = stage(listener={"name": "other"})
        door.port.context = other.context
        with door.knock() as second:
            door.stage.reactor.until(lambda: other.context.sessions == 1)
            assert door.stage.context.sessions == 1
            other.answer(b"220 other\r\n")
            door.stage.answer(b"220 first\r\n")
            assert first.recv(100) == b"220 first\r\n"
            assert second.recv(100) == b"220 other\r\n"
            other.answer(b"421 over\r\n")


def test_a_stopped_port_accepts_no_more(door: Door) -> None:
    address = door.listening.getsockname()
    door.port.stop()
    door.port.stop()
    assert door.port not in door.stage.reactor.readers
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)


def test_a_port_that_the_reactor_gives_up_is_closed(door: Door) -> None:
    door.port.connectionLost(None)
    assert door.port not in door.stage.reactor.readers
    assert door.port.fileno() == -1


class Refusing(socket.socket):
    """A listening socket whose kernel has a reason."""

    why = 0

    def _accept(self) -> Any:
        if self.why:
            raise OSError(self.why, os.strerror(self.why))
        return super()._accept()

    def accept(self) -> Any:
        descriptor, peer = self._accept()
        return socket.socket(fileno=descriptor), peer


@pytest.fixture
def refusing(stage: Callable[..., Stage]) -> Iterator[Door]:
    with Refusing() as listening:
        listening.settimeout(0)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        here = Door(stage(), listening)
        yield here
        here.port.stop()
        for leg in here.stage.dialler.legs:
            leg.owner.leg_lost(leg, "the test is over")
        here.stage.reactor.settle()


@pytest.mark.parametrize(
    "why", ["ECONNABORTED", "EPERM", "EPROTO", "ENETDOWN", "EHOSTUNREACH", "EINTR", "ETIMEDOUT", "EAGAIN"]
)
def test_h10_a_client_that_cannot_be_accepted_does_not_close_the_port(refusing: Door, why: str) -> None:
    """accept(2) tells of a dozen errors that are the client's or the network's, not the socket's."""
    refusing.listening.why = getattr(errno, why)
    with refusing.knock():
        for _ in range(3):
            refusing.stage.reactor.turn(0.01)
        assert refusing.port.fileno() >= 0
        assert refusing.port in refusing.stage.reactor.readers
        refusing.listening.why = 0
        refusing.stage.reactor.until(lambda: refusing.stage.context.sessions == 1)


@pytest.mark.parametrize("why", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"])
def test_h10_without_descriptors_it_rests_a_while(refusing: Door, why: str) -> None:
    refusing.listening.why = getattr(errno, why)
    reactor = refusing.stage.reactor
    with refusing.knock():
        reactor.until(lambda: refusing.port not in reactor.readers)
        assert refusing.stage.journal.refused, "somebody is told"
        refusing.listening.why = 0
        reactor.settle()
        assert refusing.stage.context.sessions == 0
        reactor.advance(2.0)
        reactor.until(lambda: refusing.stage.context.sessions == 1)


def test_a_port_stopped_while_it_rests_stays_stopped(refusing: Door) -> None:
    refusing.listening.why = errno.EMFILE
    reactor = refusing.stage.reactor
    with refusing.knock():
        reactor.until(lambda: refusing.port not in reactor.readers)
        refusing.port.stop()
        reactor.advance(2.0)
        assert refusing.port not in reactor.readers
