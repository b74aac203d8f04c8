"""TCP Fast Open (RFC 7413) on Linux: the first octets of a connection travel in its SYN and save a round trip.

**Listening.**  ``enable`` gives a listening socket a queue for connections whose SYN brought data.  Nothing else
changes: what came in the SYN is there to be read at once.

**Outbound.**  After ``prepare``, ``connect()`` does one of two things, as seen on Linux 6.18:

- No cookie of that address is known: the SYN leaves at once and asks for one, ``connect()`` says EINPROGRESS as ever.
- A cookie is known: ``connect()`` returns 0 and *nothing leaves*.  The socket waits in SYN_SENT, with its own name but
  no peer's name (ENOTCONN); it polls as writable, not as readable.  Only the first write sends the SYN, with the cookie
  and as much of the data as one segment holds (1420 octets with an MTU of 1500), and returns the number of octets that
  the SYN took.  A write behind it gets EAGAIN until the connection is established, as with any socket that is still
  connecting: a transport queues it.

So a connection that has nothing to say before the greeting has to be sent on its way: ``open_now`` does it with a
write of no octets, which sends the SYN with the cookie and no data and gets EINPROGRESS.

A peer that does not take the data, or a network that drops such SYNs, costs nothing but time: the kernel sends the SYN
again without data and the data after it.  What may not ride in a SYN is a matter of ``dialling.open_flight``.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

# From <linux/tcp.h>: Python's socket module does not have all of them.
_TCP_FASTOPEN: Final = 23
_TCP_FASTOPEN_CONNECT: Final = 30
_TCPI_OPT_SYN_DATA: Final = 32
# The octet of struct tcp_info that has the options, and how much of the structure is asked for.
_TCPI_OPTIONS: Final = 5
_TCP_INFO_SIZE: Final = 8

_SYSCTL: Final = Path("/proc/sys/net/ipv4/tcp_fastopen")
_SERVER: Final = 2


def enable(sock: socket.socket, queue: int) -> bool:
    """Let clients of a listening TCP socket open fast; say whether the kernel lets them at this time.

    ``queue``: how many connections may wait whose handshake is not complete; 0 switches it off.  Where the system's
    setting (``net.ipv4.tcp_fastopen``, the bit 2) does not allow it, the socket is prepared all the same and begins
    when the setting is changed.
    """
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN, queue)
    except OSError:
        return False
    return queue > 0 and bool(_allowed() & _SERVER)


def prepare(sock: socket.socket) -> bool:
    """Let a TCP socket that is not connected yet open fast; say whether the kernel allows it.

    It does not where the bit 1 of ``net.ipv4.tcp_fastopen`` is not set; the socket is then an ordinary one.
    """
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)
    except OSError:
        return False
    return True


def open_now(sock: socket.socket) -> None:
    """Send the SYN of a connection that waits for its first write; nothing happens to any other one.

    ``sock``: not blocking, after ``connect()``.  Raises OSError if the connection cannot be opened.
    """
    try:
        sock.send(b"")
    except BlockingIOError:
        # EINPROGRESS: the SYN has left.  EAGAIN: it had left before.
        return


def carried_data(sock: socket.socket) -> bool:
    """Say whether a SYN carried data that the other end took with it; of either end's socket, once connected.

    Of ours: the peer acknowledged it with its SYN.  Of an accepted one: the client's SYN brought data.
    """
    try:
        facts = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return False
    return len(facts) > _TCPI_OPTIONS and bool(facts[_TCPI_OPTIONS] & _TCPI_OPT_SYN_DATA)


def _allowed() -> int:
    """Give the system's setting; 0 where there is none to be read."""
    try:
        return int(_SYSCTL.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
