"""The client's own address as a source: what is refused and in which words, and that the server really sees it.

The second half needs root and the command ip: each test has a network of its own, with nothing in it but a loopback
interface and the routing rule of docs/source-address.md.  tests/interop has whole machines.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smtpproxy.net.sourceaddress import bind_as

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
NOBODY = 65534

# --- what is refused ---------------------------------------------------------------------------------------------


def refusal(family: int, address: str) -> OSError:
    with socket.socket(family) as sock, pytest.raises(OSError, match=r".") as caught:
        bind_as(sock, address)
    assert caught.value.errno
    return caught.value


@pytest.mark.parametrize("text", ["", "unix", "client.example.org", "192.0.2.256"])
def test_a_client_without_an_address(text: str) -> None:
    problem = refusal(socket.AF_INET, text)
    assert problem.errno == errno.EADDRNOTAVAIL
    assert problem.strerror == f"the client has no address to connect from: {text!r}"


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "2001:db8::7"),
        (socket.AF_INET6, "198.51.100.7"),
        (socket.AF_INET6, "::ffff:198.51.100.7"),
        (socket.AF_UNIX, "198.51.100.7"),
        (socket.AF_UNIX, "2001:db8::7"),
    ],
)
def test_a_server_of_another_family(family: int, address: str) -> None:
    problem = refusal(family, address)
    assert problem.errno == errno.EAFNOSUPPORT
    assert problem.strerror == f"the client's address {address} is of another family than the server's"


@pytest.mark.parametrize(
    ("family", "address"),
    [
        # The kernel would take one of our own: the server would see the wrong client.
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET, "::ffff:0.0.0.0"),
        (socket.AF_INET6, "::"),
        # Nobody's.
        (socket.AF_INET, "255.255.255.255"),
        (socket.AF_INET, "224.0.0.1"),
        (socket.AF_INET6, "ff02::1"),
        # Nothing without an interface.
        (socket.AF_INET, "169.254.0.7"),
        (socket.AF_INET6, "fe80::7"),
        (socket.AF_INET6, "fe80::7%eth0"),
    ],
)
def test_an_address_that_is_no_single_host(family: int, address: str) -> None:
    problem = refusal(family, address)
    assert problem.errno == errno.EADDRNOTAVAIL
    assert problem.strerror == f"nobody can connect from the client's address {address}"


@contextlib.contextmanager
def without_capabilities() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(NOBODY)  # takes the effective capabilities away
    except OSError as problem:
        pytest.skip(f"cannot be another user here: {problem}")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "198.51.100.7"), (socket.AF_INET6, "2001:db8::7")])
def test_without_the_capability(family: int, address: str) -> None:
    with without_capabilities():
        problem = refusal(family, address)
    assert isinstance(problem, PermissionError)
    assert problem.strerror == "connecting from the client's address needs the capability CAP_NET_ADMIN or CAP_NET_RAW"


def test_what_the_kernel_says_is_passed_on(own_network: Run) -> None:
    def bind_twice() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            bind_as(sock, "198.51.100.7")

    with pytest.raises(OSError, match=r".") as caught:
        own_network(bind_twice)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.strerror == "cannot connect from the client's address 198.51.100.7: Invalid argument"


# --- what the server sees ----------------------------------------------------------------------------------------

RULES = """
ip link set lo up
ip rule add iif lo ipproto tcp from 127.0.0.1 lookup 100
ip route add local default dev lo table 100
ip -6 rule add iif lo ipproto tcp from ::1 lookup 100
ip -6 route add local default dev lo table 100
"""

Run = Callable[[Callable[[], None]], None]


def enter_own_network() -> None:
    """Give the calling thread a network of its own, with the rules, which the kernel removes after the thread's end."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        pytest.skip(f"no network namespace can be made here: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["sh", "-e", "-c", RULES], check=True)


@pytest.fixture
def own_network() -> Iterator[Run]:
    """Runs a function, and the processes that it starts, in a network of their own."""
    if shutil.which("ip") is None:
        pytest.skip("the command ip is not installed")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(enter_own_network).result()
        yield lambda function: thread.submit(function).result()


def connected(family: int, server: str, client: str) -> tuple[socket.socket, socket.socket]:
    """A connection from an address that is nobody's here; give both of its ends, the server's first."""
    with socket.create_server((server, 0), family=family) as listening:
        ours = socket.socket(family)
        bind_as(ours, client)
        assert ours.getsockname()[1] == 0, "the port is chosen when the server is known"
        ours.settimeout(10.0)
        ours.connect(listening.getsockname()[:2])
        theirs, _ = listening.accept()
        theirs.settimeout(10.0)
        return theirs, ours


@pytest.mark.parametrize(
    ("family", "server", "client", "seen"),
    [
        (socket.AF_INET, "127.0.0.1", "198.51.100.7", "198.51.100.7"),
        (socket.AF_INET, "127.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
        (socket.AF_INET6, "::1", "2001:db8::7", "2001:db8::7"),
    ],
)
def test_the_server_sees_the_client(own_network: Run, family: int, server: str, client: str, seen: str) -> None:
    def scene() -> None:
        theirs, ours = connected(family, server, client)
        with theirs, ours:
            assert theirs.getpeername()[0] == seen
            theirs.sendall(b"220 you are who you are\r\n")
            assert ours.recv(100) == b"220 you are who you are\r\n"
            ours.sendall(b"QUIT\r\n")
            ours.shutdown(socket.SHUT_WR)
            assert theirs.recv(100) == b"QUIT\r\n"
            assert theirs.recv(100) == b""

    own_network(scene)


def test_one_client_has_as_many_connections_as_it_likes(own_network: Run) -> None:
    """The same ports serve for each server: 20 connections to each of 3 with 25 ports in all."""

    def scene() -> None:
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40001 40025", encoding="ascii")
        with contextlib.ExitStack() as stack:
            for server in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                subprocess.run(["ip", "rule", "add", "iif", "lo", "from", server, "lookup", "100"], check=True)
                listening = stack.enter_context(socket.create_server((server, 2525)))
                for _ in range(20):
                    ours = stack.enter_context(socket.socket())
                    bind_as(ours, "198.51.100.7")
                    ours.settimeout(10.0)
                    ours.connect((server, 2525))
                    theirs, peer = listening.accept()
                    stack.enter_context(theirs)
                    assert peer[0] == "198.51.100.7"

    own_network(scene)
