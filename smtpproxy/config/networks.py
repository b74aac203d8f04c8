"""A set of client networks, asked once for each connection: it has to be fast."""

import functools
import ipaddress
from collections.abc import Iterable
from typing import Final

from smtpproxy.config.problem import quoted

__all__ = ["ALL", "Network", "Networks", "parse_network"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ALL: Final = "all"
"""The word that stands for every client, those on Unix sockets included."""

_EXPECTED: Final = "a network such as 192.0.2.0/24 or 2001:db8::/32 is expected, or the word all"
_REMEMBERED: Final = 4096


class Networks:
    """An immutable set of networks, or every client.

    ``address in networks`` takes the client's address as text (IPv4 or IPv6, with or without a zone; empty
    for a client on a Unix socket, who is in no network but in ``all``). An IPv4-mapped IPv6 address counts
    as the IPv4 address that it carries. ``bool()`` is False where nobody is in it. The answers for the last
    few thousand addresses are remembered.
    """

    __slots__ = ("_items", "_lookup", "everyone")

    everyone: bool
    """Whether every client is in it, without looking at the address."""

    def __init__(self, items: Iterable[Network | str] = ()) -> None:
        """Take networks, or texts as ``parse_network`` reads them; raises ValueError if one is neither."""
        self._items = tuple(parse_network(item) if isinstance(item, str) else item for item in items)
        self.everyone = ALL in self._items
        networks = tuple(item for item in self._items if not isinstance(item, str))
        self._lookup = functools.lru_cache(_REMEMBERED)(functools.partial(_among, networks))

    def __contains__(self, address: str) -> bool:
        """Tell whether a client's address (text, or empty for a Unix socket) is in one of the networks."""
        return self.everyone or (bool(self._items) and self._lookup(address))

    def __bool__(self) -> bool:
        """False if nobody is in it."""
        return bool(self._items)

    def __eq__(self, other: object) -> bool:
        """Equal if the same networks were given in the same order."""
        return isinstance(other, Networks) and self._items == other._items

    def __hash__(self) -> int:
        """By the networks given."""
        return hash(self._items)

    def __repr__(self) -> str:
        """As the constructor takes it."""
        return f"Networks({list(map(str, self._items))!r})"


def parse_network(text: object) -> Network | str:
    """Read one entry: ``all`` (given back as it is), an address, or a network in CIDR notation.

    Raises ValueError, in words for an administrator, for anything else, set host bits included.
    """
    if text == ALL:
        return ALL
    if not isinstance(text, str):
        raise ValueError(f"{_EXPECTED}, not {quoted(text)}")
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{_EXPECTED}, not {quoted(text)}") from None
    raise ValueError(f"'{text}' has bits set behind the prefix: the network is '{meant}'")


def _among(networks: tuple[Network, ...], address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)
