"""Which addresses are our own: where mail goes that is sent there comes back to us."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.xclient import plain_address

if TYPE_CHECKING:
    from collections.abc import Iterable

# A socket on :: takes IPv4 too, unless it was made otherwise, which one from systemd usually is not.
_WILDCARDS: Final = {4: ("0.0.0.0", "::"), 6: ("::",)}
_DISCARD: Final = 9


class OwnAddresses:
    """The addresses that some listeners are reached at."""

    def __init__(self, listening: Iterable[tuple[str, int]]) -> None:
        """``listening``: address and port of each listening socket; a wildcard stands for all of this machine."""
        self._listening = frozenset((str(plain_address(address)), port) for address, port in listening)
        self._ports = frozenset(port for _, port in self._listening)

    def __call__(self, address: str, port: int) -> bool:
        """Tell whether a connection to an address (as text) and a port would end here."""
        if port not in self._ports:
            return False
        ip = plain_address(address)
        if (str(ip), port) in self._listening:
            return True
        return any((all_of_them, port) in self._listening for all_of_them in _WILDCARDS[ip.version]) and is_local(
            address
        )


def is_local(address: str) -> bool:
    """Tell whether an address is one of this machine's, as of now.

    The kernel is asked from where it would send there; nothing is sent.
    """
    ip = plain_address(address)
    if ip.is_loopback or ip.is_unspecified:
        return True
    with socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(ip), _DISCARD))
        except OSError:
            return False
        return plain_address(str(probe.getsockname()[0])) == ip
