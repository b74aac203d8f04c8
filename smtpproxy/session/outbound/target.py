"""Where a message can go: one address of one server, and what is demanded of a session with it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable


class TlsWish(Enum):
    """What is wanted of the TLS with a remote, after DANE and MTA-STS have been looked at."""

    NONE = "clear text"
    OPPORTUNISTIC = "TLS where it is offered, whoever it is"
    REQUIRED = "TLS, whoever it is"
    VERIFIED = "TLS with the right server"
    IMPLICIT = "TLS with the right server, from the first octet on"

    @property
    def insists(self) -> bool:
        """Whether nothing may be sent in clear."""
        return self is not TlsWish.NONE and self is not TlsWish.OPPORTUNISTIC

    @property
    def verifies(self) -> bool:
        """Whether the server has to prove who it is."""
        return self is TlsWish.VERIFIED or self is TlsWish.IMPLICIT


class Credentials(NamedTuple):
    """What we log in with. Never shown: neither in a log nor in a traceback."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.user!r}, ****)"


class Target:
    """One address to try."""

    __slots__ = ("address", "credentials", "host", "key", "port", "security", "tls")

    def __init__(
        self,
        host: str,
        address: str,
        port: int,
        *,
        tls: TlsWish = TlsWish.OPPORTUNISTIC,
        security: Any = None,  # noqa: ANN401  # the shell's own, opaque here
        key: Hashable = None,
        credentials: Credentials | None = None,
    ) -> None:
        """``host``: the MX host or nexthop as it is named, for the log and the certificate; ``address``: as text.

        ``security``: what the shell has to know of the TLS; ``key``: what makes a session with it another one, the
        route being the same (address, port, TLS policy, credentials), so that none is lent to where it matters.
        """
        self.host = host
        self.address = address
        self.port = port
        self.tls = tls
        self.security = security
        self.key: Hashable = (address, port, tls) if key is None else key
        self.credentials = credentials

    @property
    def name(self) -> str:
        """How the log shows it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def __repr__(self) -> str:
        return f"Target({self.host}, {self.name})"


class Unroutable(NamedTuple):
    """Why there is nowhere to go."""

    reply: bytes
    """The reply to the recipient, with CR LF."""
    why: str
    """The same for the log."""
