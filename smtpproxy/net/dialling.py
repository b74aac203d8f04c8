"""Sockets for connections with remotes, and what their first flight may bring in a SYN."""

from __future__ import annotations

import socket
from typing import Any, Final

from . import fastopen

# From <asm-generic/socket.h> and <linux/in.h>: Python's socket module does not have all of them.
_SO_MARK: Final = 36
_IP_BIND_ADDRESS_NO_PORT: Final = 24


def remote_socket(family: int, *, source: str, mark: int | None, fast_open: bool) -> socket.socket:
    """Give a TCP socket, not blocking, for one connection with a remote.

    ``family``: AF_INET or AF_INET6; ``source``: an address of this machine, as text, that the connection comes from
    (the kernel chooses the port when it connects, so that each remote can have as many as there are ports), empty for
    the kernel's choice; ``mark``: the mark of its packets for the firewall and the routing (SO_MARK), None for none;
    ``fast_open``: let the first flight ride in the SYN, where the kernel can do it.

    Raises OSError, its ``strerror`` being for the administrator: the process lacks the capability to mark, or the
    source is no address of this machine and family.
    """
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if mark is not None:
            _mark(sock, mark)
        if source:
            _bind(sock, source)
        if fast_open:
            fastopen.prepare(sock)
    except OSError:
        sock.close()
        raise
    return sock


def begin(sock: socket.socket, address: Any) -> bool:
    """Begin to connect; say whether the SYN waits for the first write (see ``fastopen``).

    Who then writes nothing at once has to call ``fastopen.open_now``, or no connection ever comes about.  Raises
    OSError if the connection failed at once.
    """
    try:
        sock.connect(address)
    except BlockingIOError:
        return False
    try:
        sock.getpeername()
    except OSError:
        return True
    return False


def open_flight(data: bytes, message_begins: int | None, *, whole_message: bool) -> tuple[bytes, bytes]:
    """Cut the first flight where a SYN must end (rule C10): what may be in it, and what has to be written behind.

    A network may deliver a SYN twice, and the server may then take a whole session twice: it must not contain a whole
    message.  ``message_begins``: the offset in ``data`` of the first octet of mail data (behind the CR LF of its
    BDAT), None where there are commands only.  ``whole_message``: the route takes the risk, everything may ride.

    The cut is before the command that announces the mail data, for ``BDAT 0 LAST`` makes a message without any
    octet of mail data.  It costs no time: what is behind the cut leaves when the connection is established, one round
    trip later, as does the last octet wherever the cut is.
    """
    if message_begins is None or whole_message:
        return data, b""
    cut = data.rfind(b"\n", 0, max(message_begins - 1, 0)) + 1
    return data[:cut], data[cut:]


def may_mark(mark: int) -> None:
    """Find out, before there is anything to deliver, whether connections can be marked; raises OSError as above."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        _mark(probe, mark)


def _mark(sock: socket.socket, mark: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
    except PermissionError as problem:
        why = "marking connections (SO_MARK) needs the capability CAP_NET_ADMIN or CAP_NET_RAW"
        raise OSError(problem.errno, why) from problem


def _bind(sock: socket.socket, source: str) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
    except OSError as problem:
        # A text of the other family is no address to the socket module: gaierror, with a code of its own.
        why = f"cannot connect from the address {source}: {problem.strerror}"
        raise OSError(problem.errno, why) from problem
