"""Sockets for connections with remotes, and what a first flight may bring in a SYN (C10)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from smtpproxy.net import fastopen
from smtpproxy.net.dialling import begin, may_mark, open_flight, remote_socket

from .networks import networks
from .test_sourceaddress import without_capabilities

SO_MARK = 36  # <asm-generic/socket.h>

# --- what may ride -----------------------------------------------------------------------------------------------

COMMANDS = b"EHLO a\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n"


def test_commands_ride() -> None:
    assert open_flight(COMMANDS, None, whole_message=False) == (COMMANDS, b"")


@pytest.mark.parametrize("message", [b"BDAT 5 LAST\r\nabc\r\n", b"BDAT 5 LAST\r\n", b"BDAT 0 LAST\r\n"])
@pytest.mark.parametrize("behind", [b"", b"QUIT\r\n"])
def test_a_message_does_not_ride_nor_does_what_announces_it(message: bytes, behind: bytes) -> None:
    flight = COMMANDS + message + behind
    begins = len(COMMANDS) + message.index(b"\n") + 1
    assert open_flight(flight, begins, whole_message=False) == (COMMANDS, message + behind)


def test_of_several_chunks_none_rides() -> None:
    chunks = b"BDAT 5\r\nabc\r\nBDAT 0 LAST\r\n"
    begins = len(COMMANDS) + len(b"BDAT 5\r\n")
    assert open_flight(COMMANDS + chunks, begins, whole_message=False) == (COMMANDS, chunks)


def test_a_route_can_take_the_risk() -> None:
    flight = COMMANDS + b"BDAT 5 LAST\r\nabc\r\n"
    assert open_flight(flight, len(flight) - 5, whole_message=True) == (flight, b"")


@pytest.mark.parametrize(("flight", "begins"), [(b"abc\r\n", 0), (b"BDAT 5 LAST\r\nabc\r\n", 13), (b"\nabc", 1)])
def test_a_flight_that_begins_with_a_message_has_nothing_to_ride(flight: bytes, begins: int) -> None:
    assert open_flight(flight, begins, whole_message=False) == (b"", flight)


# --- sockets for remotes ---------------------------------------------------------------------------------------------


def test_a_socket_for_a_remote() -> None:
    with remote_socket(socket.AF_INET6, source="", mark=None, fast_open=False) as sock:
        assert (sock.family, sock.getblocking()) == (socket.AF_INET6, False)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(("family", "source"), [(socket.AF_INET, "127.0.0.9"), (socket.AF_INET6, "::1")])
def test_a_connection_comes_from_the_source(family: int, source: str) -> None:
    server = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        listening = socket.create_server((server, 0), family=family)
    except OSError as problem:
        pytest.skip(f"{server} is not to be had here: {problem}")
    with listening, remote_socket(family, source=source, mark=None, fast_open=True) as ours:
        assert ours.getsockname()[:2] == (source, 0), "the port is chosen when the remote is known"
        begin(ours, listening.getsockname()[:2])
        fastopen.open_now(ours)
        theirs, peer = listening.accept()
        theirs.close()
        assert peer[0] == source


@pytest.mark.parametrize(
    ("family", "source"),
    [(socket.AF_INET, "198.51.100.7"), (socket.AF_INET6, "198.51.100.7"), (socket.AF_INET, "2001:db8::7")],
)
def test_a_source_that_is_not_ours(family: int, source: str) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        remote_socket(family, source=source, mark=None, fast_open=False)
    assert str(caught.value.strerror).startswith(f"cannot connect from the address {source}: ")


def test_a_marked_connection() -> None:
    with networks(1) as (network,):
        marked = network.run(lambda: remote_socket(socket.AF_INET6, source="", mark=25, fast_open=False))
        with marked:
            assert marked.getsockopt(socket.SOL_SOCKET, SO_MARK) == 25


def marked_socket() -> None:
    remote_socket(socket.AF_INET, source="", mark=25, fast_open=False).close()


@pytest.mark.parametrize("mark", [marked_socket, lambda: may_mark(25)], ids=["at a connection", "beforehand"])
def test_marking_needs_a_capability(mark: Callable[[], None]) -> None:
    with without_capabilities(), pytest.raises(PermissionError) as caught:
        mark()
    assert caught.value.errno == errno.EPERM
    assert caught.value.strerror == "marking connections (SO_MARK) needs the capability CAP_NET_ADMIN or CAP_NET_RAW"
