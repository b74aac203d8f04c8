"""The client's own address as the source of a connection with a server (``identity: source-address``), on Linux.

The server then sees the client and knows nothing of a proxy.  Its answers are addressed to the client too: the routing
of the machine must bring them back to us, or no connection ever comes about (``docs/source-address.md``).
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from smtpproxy.smtp.xclient import plain_address

# From <linux/in.h> and <linux/in6.h>: Python's socket module does not have all of them.
_IP_TRANSPARENT: Final = 19
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_IPV6_TRANSPARENT: Final = 75

_BROADCAST: Final = IPv4Address("255.255.255.255")


def bind_as(sock: socket.socket, address: str) -> None:
    """Let a connection that this socket will open come from ``address``, which need not be an address of this machine.

    ``sock``: TCP, not bound and not connected yet; ``address``: IPv4 or IPv6 as text.  The kernel chooses the port when
    the socket connects, so that one address can have as many connections with each server as there are ports
    (IP_BIND_ADDRESS_NO_PORT, ip(7)).

    Raises OSError, its ``strerror`` being for the administrator: the address is none, or of another family than the
    server's, or this process lacks the capability.
    """
    source = _source(address)
    if sock.family != (socket.AF_INET if source.version == 4 else socket.AF_INET6):
        raise OSError(errno.EAFNOSUPPORT, f"the client's address {address} is of another family than the server's")
    try:
        if source.version == 4:
            sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((str(source), 0))
    except PermissionError as problem:
        why = "connecting from the client's address needs the capability CAP_NET_ADMIN or CAP_NET_RAW"
        raise OSError(problem.errno, why) from problem
    except OSError as problem:
        why = f"cannot connect from the client's address {address}: {problem.strerror}"
        raise OSError(problem.errno, why) from problem


def _source(address: str) -> IPv4Address | IPv6Address:
    """Read the address. Raises OSError for what is none, and for what no single host on the network has."""
    try:
        source = plain_address(address)
    except ValueError:
        raise OSError(errno.EADDRNOTAVAIL, f"the client has no address to connect from: {address!r}") from None
    # With 0.0.0.0 the kernel would take our own address: the server would see the wrong client, and perhaps trust it.
    if source.is_unspecified or source.is_multicast or source.is_link_local or source == _BROADCAST:
        raise OSError(errno.EADDRNOTAVAIL, f"nobody can connect from the client's address {address}")
    return source
