"""Who the client is: what a server may be told of it (XCLIENT, XFORWARD, the PROXY protocol)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpproxy.smtp.xclient import address_value

if TYPE_CHECKING:
    from collections.abc import Hashable


class Origin:
    """One client: the ends of its connection, its host name, and the login name that it is known by to us."""

    __slots__ = ("address", "destination", "login", "name", "port")

    def __init__(
        self, address: str, port: int, destination: tuple[str, int] | None, name: bytes, login: bytes = b""
    ) -> None:
        """``address`` is empty on a Unix socket; ``destination`` is where the client connected to.

        ``name`` is a host name or one of XCLIENT's words for none.  ``login`` is given where somebody we trust, or a
        certificate that the configuration names, vouches for it.
        """
        self.address = address
        self.port = port
        self.destination = destination
        self.name = name
        self.login = login

    @property
    def key(self) -> Hashable:
        """What makes it another client than the one before, for a server that was told of that one."""
        return self.address, self.port, self.destination, self.name, self.login

    def attributes(self, ehlo: bytes) -> dict[bytes, bytes]:
        """Give the values of XCLIENT's and XFORWARD's attributes.

        ``ehlo``: the client's EHLO or HELO line, or empty.
        """
        values = {b"NAME": self.name, b"ADDR": address_value(self.address)}
        if self.port:
            values[b"PORT"] = b"%d" % self.port
        if self.login:
            values[b"LOGIN"] = self.login
        if self.destination is not None:
            values[b"DESTADDR"] = address_value(self.destination[0])
            values[b"DESTPORT"] = b"%d" % self.destination[1]
        name = ehlo[5:].strip()
        if name:
            values[b"HELO"] = name
            values[b"PROTO"] = b"ESMTP" if ehlo[:1] in b"Ee" else b"SMTP"
        return values
