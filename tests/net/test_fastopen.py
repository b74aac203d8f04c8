"""TCP Fast Open: what the kernel sends when, and what a transport of ours makes of it (C10).

Most of it needs root and the command ip: two networks of their own with a cable between them, where each packet is
looked at.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from smtpproxy.net import fastopen
from smtpproxy.net.dialling import begin, open_flight, remote_socket
from smtpproxy.net.transport import LeanTransport

from .fakes import PATIENCE, FakeReactor, Recorder
from .networks import Network, networks

SERVER = ("192.0.2.2", 25)
ETH_P_IP = 0x0800
SYN = 2
MSS = 1460
OPTIONS = 40  # the most that options can take of a segment

COMMANDS = b"EHLO a\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n"

# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_socket_that_has_no_fast_open() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        assert not fastopen.enable(ours, 5)
        assert not fastopen.prepare(ours)
        assert not fastopen.carried_data(ours)


def test_a_socket_that_is_connected_is_not_prepared() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as sock:
        assert not fastopen.prepare(sock)


# --- what the kernel does ------------------------------------------------------------------------------------------


class Segment(NamedTuple):
    """A TCP segment on the cable."""

    flags: int
    length: int  # octets of data


class Line:
    """A client's network and a server's, with a cable between them and a listener that lets clients open fast."""

    def __init__(self, client: Network, server: Network) -> None:
        client.cable("eth0", server, "eth0")
        client.address("eth0", "192.0.2.1/24")
        server.address("eth0", "192.0.2.2/24")
        for network in (client, server):
            network.sh("sysctl -qw net.ipv4.tcp_fastopen=3")
        self.client, self.server = client, server
        self.listening = server.run(lambda: socket.create_server(SERVER))
        self.listening.settimeout(PATIENCE)
        assert server.run(lambda: fastopen.enable(self.listening, 16))
        self._wire = server.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)))
        self._wire.settimeout(0.0)

    def close(self) -> None:
        self.listening.close()
        self._wire.close()

    def open(self) -> socket.socket:
        return self.client.run(lambda: remote_socket(socket.AF_INET, source="", mark=None, fast_open=True))

    def deferred(self) -> socket.socket:
        """A connection that waits for its first write."""
        sock = self.open()
        assert begin(sock, SERVER)
        return sock

    def accept(self) -> socket.socket:
        sock, _ = self.listening.accept()
        sock.settimeout(PATIENCE)
        return sock

    def learn(self) -> None:
        """Make a first connection, which brings the cookie."""
        with self.open() as ours:
            assert not begin(ours, SERVER)
            self.accept().close()
        self.openings()

    def openings(self) -> list[Segment]:
        """The SYNs of the client that were on the cable since the last look."""
        found: list[Segment] = []
        while True:
            try:
                packet = self._wire.recv(65535)
            except BlockingIOError:
                return [segment for segment in found if segment.flags & SYN]
            behind = packet[(packet[0] & 15) * 4 :]
            if packet[9] == socket.IPPROTO_TCP and packet[12:16] == socket.inet_aton("192.0.2.1"):
                (total,) = struct.unpack("!H", packet[2:4])
                length = total - (len(packet) - len(behind)) - (behind[12] >> 4) * 4
                found.append(Segment(behind[13], length))


@pytest.fixture
def line() -> Iterator[Line]:
    with networks(2) as (client, server):
        made = Line(client, server)
        try:
            yield made
        finally:
            made.close()


def received(sock: socket.socket, length: int) -> bytes:
    """So many octets, or fewer if the connection ends."""
    data = b""
    while len(data) < length and (piece := sock.recv(length - len(data))):
        data += piece
    return data


def test_the_first_connection_asks_for_a_cookie_and_the_second_brings_data(line: Line) -> None:
    with line.open() as ours:
        assert not begin(ours, SERVER)
        with line.accept() as theirs:
            assert [segment.length for segment in line.openings()] == [0]
            ours.send(b"EHLO a\r\n")
            assert theirs.recv(99) == b"EHLO a\r\n"
            assert not fastopen.carried_data(theirs)
            assert not fastopen.carried_data(ours)
    with line.deferred() as ours:
        assert line.openings() == [], "it waits for the first write"
        assert ours.send(b"EHLO b\r\n") == 8
        with line.accept() as theirs:
            assert [segment.length for segment in line.openings()] == [8]
            assert theirs.recv(99) == b"EHLO b\r\n"
            assert fastopen.carried_data(theirs)
            assert fastopen.carried_data(ours)
    assert line.client.counter("TCPFastOpenActive") == 1
    assert line.server.counter("TCPFastOpenPassive") == 1


def test_a_connection_without_anything_to_say_is_sent_on_its_way(line: Line) -> None:
    line.learn()
    with line.deferred() as ours:
        fastopen.open_now(ours)
        with line.accept() as theirs:
            assert [segment.length for segment in line.openings()] == [0]
            assert not fastopen.carried_data(theirs)
            assert not fastopen.carried_data(ours)
            theirs.send(b"220 hello\r\n")
            ours.settimeout(PATIENCE)
            assert ours.recv(99) == b"220 hello\r\n"
            ours.settimeout(0.0)
            fastopen.open_now(ours)  # harmless now
            ours.send(b"EHLO c\r\n")
            assert theirs.recv(99) == b"EHLO c\r\n"


def test_a_connection_that_is_on_its_way_is_left_alone(line: Line) -> None:
    line.server.sh("ip route add blackhole 192.0.2.1/32")  # no answer
    with line.open() as ours:
        assert not begin(ours, SERVER)
        fastopen.open_now(ours)
        with pytest.raises(BlockingIOError):
            ours.send(b"EHLO a\r\n")


def test_a_refused_connection_is_told_of_by_the_write_or_the_read(line: Line) -> None:
    line.learn()
    line.listening.close()
    with line.deferred() as ours:
        fastopen.open_now(ours)
        ours.settimeout(PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            ours.recv(99)


def test_what_does_not_fit_into_the_syn_is_left_to_the_transport(line: Line) -> None:
    line.learn()
    data = bytes(range(256)) * 40
    reactor = FakeReactor()
    transport = LeanTransport(reactor, line.deferred(), SERVER)
    transport.start(Recorder())
    assert line.openings() == []
    transport.write(data)
    with line.accept() as theirs:
        assert [segment.length for segment in line.openings()] == [MSS - OPTIONS]
        reactor.until(lambda: not reactor.writers)
        assert received(theirs, len(data)) == data
        assert fastopen.carried_data(theirs)
    transport.detach()


def test_the_end_of_a_message_is_written_behind_the_syn(line: Line) -> None:
    """Two writes one after the other: the second is queued until the server has answered the SYN."""
    line.learn()
    flight = COMMANDS + b"BDAT 5 LAST\r\nabc\r\n"
    first, later = open_flight(flight, len(flight) - 5, whole_message=False)
    line.server.sh("ip route add blackhole 192.0.2.1/32")  # the server's answer is lost, for now
    reactor = FakeReactor()
    transport = LeanTransport(reactor, line.deferred(), SERVER)
    transport.start(Recorder())
    transport.write(first)
    assert transport not in reactor.writers
    transport.write(later)
    assert transport in reactor.writers, "not before the connection is established"
    assert not transport.is_connected()
    line.server.sh("ip route del blackhole 192.0.2.1/32")
    # The kernel sends the SYN again, after a second and without data, and the data behind it.
    with line.accept() as theirs:
        lengths = [segment.length for segment in line.openings()]
        assert lengths[0] == len(first)
        assert set(lengths[1:]) == {0}
        reactor.until(lambda: not reactor.writers)
        assert received(theirs, len(flight)) == flight
        assert not fastopen.carried_data(transport.socket)
    transport.detach()


def test_what_does_not_come_about_before_the_first_write_leaves_no_trace(line: Line) -> None:
    line.learn()
    transport = LeanTransport(FakeReactor(), line.deferred(), SERVER)
    transport.start(Recorder())
    assert not transport.is_connected()
    transport.detach()
    assert line.openings() == []


@pytest.mark.parametrize("setting", [0, 1, 2, 3])
def test_the_system_decides_what_is_allowed(setting: int) -> None:
    with networks(1) as (network,), network.run(lambda: socket.create_server(("127.0.0.1", 0))) as listening:
        network.sh(f"sysctl -qw net.ipv4.tcp_fastopen={setting}")
        assert network.run(lambda: fastopen.enable(listening, 5)) == bool(setting & 2)
        assert not network.run(lambda: fastopen.enable(listening, 0))
        with network.run(socket.socket) as sock:
            assert fastopen.prepare(sock) == bool(setting & 1)
        # Where it is not allowed it is an ordinary socket.
        with network.run(lambda: remote_socket(socket.AF_INET, source="", mark=None, fast_open=True)) as sock:
            assert not begin(sock, listening.getsockname())


def test_a_listener_that_was_not_asked_to_takes_no_data_with_the_syn(line: Line) -> None:
    line.learn()
    assert not line.server.run(lambda: fastopen.enable(line.listening, 0))
    with line.deferred() as ours:
        ours.send(b"EHLO a\r\n")
        with line.accept() as theirs:
            assert theirs.recv(99) == b"EHLO a\r\n", "it comes behind the SYN"
            assert not fastopen.carried_data(theirs)
            assert not fastopen.carried_data(ours)
