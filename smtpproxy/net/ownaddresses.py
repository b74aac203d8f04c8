"""Which addresses are our own: where mail goes that is sent there comes back to us."""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from smtpproxy.smtp.xclient import plain_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# A socket on :: takes IPv4 too, unless it was made otherwise, which one from systemd usually is not.
_WILDCARDS: Final = {4: ("0.0.0.0", "::"), 6: ("::",)}
_DISCARD: Final = 9
_SMTP_PORT: Final = 25
# Seconds for which it is remembered what the kernel says; an address may come to this machine, or leave it.
_GOOD_FOR: Final = 60.0
_MOST_REMEMBERED: Final = 4096


def is_local(address: str) -> bool:
    """Tell whether an address is one of this machine's, as of now.

    The kernel is asked from where it would send there; nothing is sent.
    """
    ip = plain_address(address)
    if ip.is_loopback or ip.is_unspecified:
        return True
    try:
        with socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((str(ip), _DISCARD))
            return plain_address(str(probe.getsockname()[0])) == ip
    except OSError:  # there is no way there, or this machine has not even the family
        return False


class OwnAddresses:
    """The addresses that some listeners are reached at."""

    def __init__(self, listening: Iterable[tuple[str, int]], is_here: Callable[[str], bool] = is_local) -> None:
        """``listening``: address and port of each listening socket; a wildcard stands for all of this machine.

        ``is_here``: whether an address is one of this machine's; by default ``is_local``.
        """
        self._listening = frozenset((str(plain_address(address)), port) for address, port in listening)
        self._is_here = is_here
        self._ports = frozenset(port for _, port in self._listening)

    def __call__(self, address: str, port: int) -> bool:
        """Tell whether a connection to an address (as text) and a port would end here."""
        if port not in self._ports:
            return False
        ip = plain_address(address)
        if (str(ip), port) in self._listening:
            return True
        everywhere = any((wildcard, port) in self._listening for wildcard in _WILDCARDS[ip.version])
        return everywhere and self._is_here(address)


class OwnHosts:
    """Tells whether a mail host that DNS names is this machine (RFC 5321, 5.1).

    At port 25 of this machine the mail server listens whose mail we deliver: what we send there, it gives us again.
    """

    def __init__(
        self,
        listening: Iterable[tuple[str, int]],
        clock: Callable[[], float],
        *,
        hidden: Iterable[str] = (),
        is_local: Callable[[str], bool] = is_local,
    ) -> None:
        """``listening``: as for OwnAddresses, of every listener; ``clock``: seconds that only go forward.

        ``hidden``: addresses that lead here though no interface has them.
        """
        self._own = OwnAddresses(listening, self._is_here)
        self._clock = clock
        self._hidden = frozenset(str(plain_address(address)) for address in hidden)
        self._is_local = is_local
        # Four system calls for each of the many addresses of a large provider would cost more than all else.
        self._remembered = lru_cache(_MOST_REMEMBERED)(self._look)
        self._until = clock() + _GOOD_FOR

    def __call__(self, address: str, port: int) -> bool:
        """Tell whether mail to an address (as text) and a port would come back; as of a minute ago at most."""
        now = self._clock()
        if now >= self._until:
            self._remembered.cache_clear()
            self._until = now + _GOOD_FOR
        return self._remembered(address, port)

    def _look(self, address: str, port: int) -> bool:
        return (port == _SMTP_PORT and self._is_here(address)) or self._own(address, port)

    def _is_here(self, address: str) -> bool:
        return str(plain_address(address)) in self._hidden or self._is_local(address)
