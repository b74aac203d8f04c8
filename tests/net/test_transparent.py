"""Where a redirected client wanted to go, and how we notice that it would come back to us.

Most of it needs root and the commands ip and nft: a network of its own with the rules of docs/transparent.md in short.
tests/interop has whole machines, and the rules word for word.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from smtpproxy.net.dialling import begin, remote_socket
from smtpproxy.net.ownaddresses import OwnAddresses, is_local
from smtpproxy.net.transparent import (
    Destination,
    How,
    OwnConnections,
    end_of,
    make_transparent,
    meant_for,
    original_destination,
)

from .fakes import PATIENCE
from .networks import Network, networks
from .test_sourceaddress import without_capabilities

REMOTES: dict[int, str] = {socket.AF_INET: "198.51.100.7", socket.AF_INET6: "2001:db8:7::7"}
OURS: dict[int, str] = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
MARK = 25

REDIRECT = """
table inet smtpproxy {
    chain output {
        type nat hook output priority -100;
        oifname "lo" accept
        meta mark 25 accept
        tcp dport 25 redirect to :2525
    }
}
"""
TPROXY = """
table inet smtpproxy {
    chain prerouting {
        type filter hook prerouting priority mangle;
        meta nfproto ipv4 tcp dport 25 tproxy ip to :2525 meta mark set 1
        meta nfproto ipv6 tcp dport 25 tproxy ip6 to :2525 meta mark set 1
    }
}
"""
TO_OURSELVES = """
ip rule add fwmark 1 lookup 100
ip route add local default dev lo table 100
ip -6 rule add fwmark 1 lookup 100
ip -6 route add local default dev lo table 100
"""

both_families = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])


@pytest.mark.parametrize(
    ("name", "end"),
    [
        (("192.0.2.1", 25), ("192.0.2.1", 25)),
        (("2001:db8::1", 25, 0, 0), ("2001:db8::1", 25)),
        (("::ffff:192.0.2.1", 25, 0, 0), ("192.0.2.1", 25)),
        (("fe80::1%eth0", 25, 0, 3), ("fe80::1", 25)),
    ],
)
def test_an_end_is_written_in_one_way(name: tuple[object, ...], end: tuple[str, int]) -> None:
    assert end_of(name) == end


def test_the_addresses_of_this_machine(host: Network) -> None:
    def local() -> list[bool]:
        return [is_local(address) for address in (*OURS.values(), *LOOPBACK.values(), "127.0.0.9")]

    def foreign() -> list[bool]:
        return [is_local(address) for address in (*REMOTES.values(), "192.0.2.2", "192.0.2.255", "fe80::7")]

    assert host.run(local) == [True] * 5
    assert host.run(foreign) == [False] * 5
    # For an address that wanders from machine to machine; then everything can be bound to.
    host.sh("sysctl -qw net.ipv4.ip_nonlocal_bind=1 net.ipv6.ip_nonlocal_bind=1")
    assert host.run(foreign) == [False] * 5
    host.sh("ip route del default\nip -6 route del default")
    assert host.run(foreign) == [False] * 5


# --- a connection of a machine's own that is redirected ---------------------------------------------------------------


@pytest.fixture
def host() -> Iterator[Network]:
    """A machine with addresses and a way to everywhere, at whose end nobody answers."""
    with networks(2) as (network, beyond):
        network.cable("eth0", beyond, "eth0")
        network.address("eth0", f"{OURS[socket.AF_INET]}/24", f"{OURS[socket.AF_INET6]}/64")
        network.sh("ip route add default via 192.0.2.2\nip route add default via 2001:db8::2")
        yield network


def listen(network: Network, family: int, address: str = "", *, transparent: bool = False) -> socket.socket:
    """A listening socket on port 2525."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(network.run(lambda: socket.socket(family)))
        if transparent:
            network.run(lambda: make_transparent(sock))
        sock.bind((address, 2525))
        sock.listen()
        sock.settimeout(PATIENCE)
        stack.pop_all()
    return sock


def connect(network: Network, family: int, to: tuple[str, int], mark: int | None = None) -> socket.socket:
    sock = network.run(lambda: remote_socket(family, source="", mark=mark, fast_open=False))
    begin(sock, to)
    return sock


@both_families
def test_redirected(host: Network, family: int) -> None:
    host.nft(REDIRECT)
    with listen(host, family, LOOPBACK[family]) as listening, connect(host, family, (REMOTES[family], 25)):
        accepted, peer = listening.accept()
        with accepted:
            assert original_destination(accepted, "redirect") == (REMOTES[family], 25)
            assert peer[0] == OURS[family], "the address towards the world, not the loopback interface's"


def test_redirected_to_a_socket_for_both_families(host: Network) -> None:
    host.nft(REDIRECT)
    with listen(host, socket.AF_INET6) as listening:
        for family, remote in REMOTES.items():
            with connect(host, family, (remote, 25)):
                accepted, _ = listening.accept()
                with accepted:
                    assert original_destination(accepted, "redirect") == (remote, 25)


@both_families
@pytest.mark.parametrize("rules", ["", REDIRECT], ids=["no rules", "rules"])
def test_who_comes_straight_to_us_is_noticed(host: Network, family: int, rules: str) -> None:
    if rules:
        host.nft(rules)
    with listen(host, family, LOOPBACK[family]) as listening:
        ours = OwnAddresses([end_of(listening.getsockname())])
        with connect(host, family, (LOOPBACK[family], 2525)):
            accepted, _ = listening.accept()
            with accepted:
                destination = original_destination(accepted, "redirect")
        assert destination == (LOOPBACK[family], 2525)
        assert ours(*destination)


@both_families
def test_the_mark_leads_past_us(host: Network, family: int) -> None:
    """The marked one waits for somebody out there, the one without a mark is here at once."""
    host.nft(REDIRECT)
    with (
        listen(host, family, LOOPBACK[family]) as listening,
        connect(host, family, (REMOTES[family], 25), MARK) as marked,
        connect(host, family, (REMOTES[family], 25)) as plain,
    ):
        accepted, peer = listening.accept()
        accepted.close()
        assert end_of(peer) == end_of(plain.getsockname())
        assert end_of(peer) != end_of(marked.getsockname())
        listening.settimeout(0.0)
        with pytest.raises(BlockingIOError):
            listening.accept()


@both_families
def test_a_connection_of_ours_that_comes_back_is_noticed(host: Network, family: int) -> None:
    host.nft(REDIRECT)
    own = OwnConnections()
    with listen(host, family, LOOPBACK[family]) as listening:
        with connect(host, family, (REMOTES[family], 25)) as ours:
            ends = own.add(ours, (REMOTES[family], 25))
            accepted, name = listening.accept()
            with accepted:
                destination, peer = original_destination(accepted, "redirect"), end_of(name)
        assert not OwnAddresses([end_of(listening.getsockname())])(*destination), "the destination alone does not tell"
        assert own.has(peer, destination)
        assert not own.has(peer, Destination("203.0.113.9", 25)), "somebody else may have the same port"
        own.discard(ends)
        assert not own.has(peer, destination)


# --- a gateway ------------------------------------------------------------------------------------------------------


@both_families
def test_a_gateway_takes_connections_for_others(family: int) -> None:
    with networks(2) as (client, gateway):
        client.cable("eth0", gateway, "lan")
        client.address("eth0", "192.0.2.1/24", "2001:db8::1/64")
        gateway.address("lan", "192.0.2.2/24", "2001:db8::2/64")
        client.sh("ip route add default via 192.0.2.2\nip route add default via 2001:db8::2")
        gateway.sh(TO_OURSELVES)
        gateway.nft(TPROXY)
        with listen(gateway, family, transparent=True) as listening:
            with connect(client, family, (REMOTES[family], 25)) as ours:
                accepted, peer = listening.accept()
                with accepted:
                    assert original_destination(accepted, "tproxy") == (REMOTES[family], 25)
                    assert peer[0] == OURS[family]
                    accepted.sendall(b"220 hello\r\n")
                    ours.settimeout(PATIENCE)
                    assert ours.recv(99) == b"220 hello\r\n"
            everywhere = OwnAddresses([end_of(listening.getsockname())])
            own_address = "192.0.2.2" if family == socket.AF_INET else "2001:db8::2"
            with connect(client, family, (own_address, 2525)):
                accepted, _ = listening.accept()
                with accepted:
                    destination = original_destination(accepted, "tproxy")
            assert gateway.run(lambda: everywhere(*destination))
            assert not gateway.run(lambda: everywhere(REMOTES[family], 2525))


@both_families
def test_listening_for_foreign_addresses_needs_a_capability(family: int) -> None:
    with without_capabilities(), socket.socket(family) as sock, pytest.raises(PermissionError) as caught:
        make_transparent(sock)
    assert caught.value.errno == errno.EPERM
    assert caught.value.strerror == (
        "listening for foreign addresses (transparent: tproxy) needs the capability CAP_NET_ADMIN or CAP_NET_RAW"
    )


# --- what must not go on ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def accepted(port: int = 0) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection that nobody has redirected: the client's, and the one that was accepted."""
    with (
        socket.create_server(("127.0.0.1", port)) as listening,
        socket.create_connection(listening.getsockname()) as client,
    ):
        sock, _ = listening.accept()
        with sock:
            yield client, sock


def nobody(_address: str, _port: int) -> bool:
    return False


def everybody(_address: str, _port: int) -> bool:
    return True


def test_a_connection_may_go_on() -> None:
    with accepted() as (_, sock):
        destination = end_of(sock.getsockname())
        assert meant_for(sock, "tproxy", own=nobody, opened=OwnConnections()) == (destination, "")


def test_a_connection_to_a_listener_of_ours_may_not() -> None:
    with accepted() as (_, sock):
        port = sock.getsockname()[1]
        why = f"the connection was meant for 127.0.0.1:{port}, which is smtpproxy itself"
        assert meant_for(sock, "tproxy", own=everybody, opened=OwnConnections())[1] == why
        # Not even where we do not know our addresses, as with a socket of systemd's.
        assert meant_for(sock, "redirect", own=nobody, opened=OwnConnections())[1] == why


@pytest.mark.parametrize("how", ["redirect", "tproxy"])
def test_a_connection_of_our_own_may_not(how: How) -> None:
    with accepted() as (client, sock):
        opened = OwnConnections()
        opened.add(client, sock.getsockname())
        port = sock.getsockname()[1]
        why = f"our own connection to 127.0.0.1:{port} came back to us"
        assert meant_for(sock, how, own=everybody, opened=opened) == (("127.0.0.1", port), why)


@pytest.mark.parametrize("how", ["redirect", "tproxy"])
def test_a_client_that_has_gone_already(how: How) -> None:
    with accepted() as (client, sock):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # with a reset
        with pytest.raises(OSError, match=r"not connected"):
            sock.getpeername()
        gone = meant_for(sock, how, own=nobody, opened=OwnConnections())
    assert gone == (None, "Transport endpoint is not connected")


@pytest.mark.parametrize(
    ("destination", "text"), [(("192.0.2.1", 25), "192.0.2.1:25"), (("2001:db8::1", 25), "[2001:db8::1]:25")]
)
def test_a_destination_is_written_as_everywhere(destination: tuple[str, int], text: str) -> None:
    assert str(Destination(*destination)) == text


def test_a_connection_without_a_translation_has_its_own_name() -> None:
    """Where the kernel knows nothing of translation, or not of this connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert original_destination(accepted, "redirect") == listening.getsockname()
