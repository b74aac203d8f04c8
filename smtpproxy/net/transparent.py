"""Where a client whose connection was redirected to us wanted to go (``listeners[].transparent``), on Linux.

Two ways lead connections for foreign addresses to a listener of ours (``docs/transparent.md`` has the commands):

- ``redirect``: the firewall rewrites the destination (nftables ``redirect`` or ``dnat``) and remembers the original
  one, which SO_ORIGINAL_DST gives back.
- ``tproxy``: nothing is rewritten; the listening socket takes packets for foreign addresses (``make_transparent``), and
  an accepted one has the original destination as its own name.

Two things must not happen: that we deliver to ourselves, which ``ownaddresses`` tells by the destination, and that our
own connections are redirected to us.  The mark prevents the second; ``OwnConnections`` notices where it is missing.
"""

from __future__ import annotations

import errno
import socket
import struct
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from smtpproxy.smtp.xclient import plain_address

if TYPE_CHECKING:
    from collections.abc import Callable

How = Literal["redirect", "tproxy"]
"""How connections are led to a transparent listener."""

# From <linux/netfilter_ipv4.h>, <linux/netfilter_ipv6/ip6_tables.h>, <linux/in.h> and <linux/in6.h>.
_SO_ORIGINAL_DST: Final = 80
_IP_TRANSPARENT: Final = 19
_IPV6_TRANSPARENT: Final = 75

_SOCKADDR_IN: Final = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6: Final = struct.Struct("!2xH4x16s4x")
# Not translated as far as the kernel knows, or a kernel without translation.
_NOT_TRANSLATED: Final = frozenset({errno.ENOENT, errno.ENOPROTOOPT, errno.EOPNOTSUPP})


class Destination(NamedTuple):
    """An end of a TCP connection."""

    address: str
    """IPv4 or IPv6 as text, without a zone; an IPv4-mapped one as IPv4."""
    port: int

    def __str__(self) -> str:
        """Write it for logs and replies."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def make_transparent(sock: socket.socket) -> None:
    """Let a listening socket accept connections to foreign addresses (TPROXY); to be called before it is bound.

    A socket that systemd hands over needs ``Transparent=yes`` in its unit instead.  Raises OSError, its ``strerror``
    being for the administrator, where the process lacks the capability.
    """
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    except PermissionError as problem:
        why = "listening for foreign addresses (transparent: tproxy) needs the capability CAP_NET_ADMIN or CAP_NET_RAW"
        raise OSError(problem.errno, why) from problem


def original_destination(sock: socket.socket, how: How) -> Destination:
    """Give the address and port that the client of an accepted connection wanted.

    It is our own name if the connection came straight to us.  Raises OSError if the connection is gone.
    """
    own = end_of(sock.getsockname())
    if how == "tproxy":
        return own
    try:
        if ":" in own.address:
            found = sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
            port, packed = _SOCKADDR_IN6.unpack(found)
        else:
            # This holds for IPv4 on an IPv6 socket too.
            found = sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
            port, packed = _SOCKADDR_IN.unpack(found)
    except OSError as problem:
        if problem.errno in _NOT_TRANSLATED:
            return own
        raise
    return Destination(str(ip_address(packed)), port)


@lru_cache(4096)
def _text(address: str) -> str:
    return str(plain_address(address))


def end_of(name: Any) -> Destination:
    """Give the end of a connection that getsockname, getpeername or accept has named (IPv4 or IPv6)."""
    return Destination(_text(name[0]), name[1])


Ends = tuple[Destination, Destination]
"""A connection: the end of the one who opened it, and the end that it was meant for."""


class OwnConnections:
    """The connections that we have opened, to know them again if they are redirected to us."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        """Begin with none."""
        self._open: set[Ends] = set()

    def add(self, sock: socket.socket, remote: tuple[Any, ...]) -> Ends:
        """Remember a connection, after ``connect()``, with the address that was given to it; give what forgets it."""
        ends = (end_of(sock.getsockname()), end_of(remote))
        self._open.add(ends)
        return ends

    def discard(self, ends: Ends) -> None:
        """Forget a connection that is closed."""
        self._open.discard(ends)

    def has(self, peer: Destination, destination: Destination) -> bool:
        """Say whether an accepted connection, of that peer and with that original destination, is one of ours."""
        return (peer, destination) in self._open


def meant_for(
    sock: socket.socket, how: How, *, own: Callable[[str, int], bool], opened: OwnConnections
) -> tuple[Destination | None, str]:
    """Give where the client of an accepted connection wanted to go, and why it must not go on there ("": it may).

    It must not where that leads back to us, for it would go on so for ever.  ``own``: whether a connection to an
    address and port ends at a listener of ours, as OwnAddresses; ``opened``: the connections that we have opened.
    """
    try:
        ends = (end_of(sock.getpeername()), original_destination(sock, how))
        came_as_it_was = how == "redirect" and end_of(sock.getsockname()) == ends[1]
    except OSError as problem:
        # The client has gone already.
        return None, problem.strerror or str(problem)
    destination = ends[1]
    if opened.has(*ends):
        return destination, f"our own connection to {destination} came back to us"
    # What nobody has redirected is for us, whatever is known of our addresses.
    if came_as_it_was or own(*destination):
        return destination, f"the connection was meant for {destination}, which is smtpproxy itself"
    return destination, ""
