"""What is to be probed, as it is written on the command line."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

__all__ = ["Destination"]

_WRITTEN: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")
_SMTP: Final = 25


class Destination(NamedTuple):
    """A host or a domain."""

    name: str
    """A name, or an address as text."""
    port: int
    is_host: bool
    """Whether it is a host for certain; else it may be a domain with MX records."""

    @classmethod
    def parse(cls, text: str, port: int | None = None) -> Destination:
        """Read ``HOST``, ``HOST:PORT``, ``[IPv6]:PORT``, ``IPv6``, ``DOMAIN``; ``port``: where none is written.

        What has a port of its own is a host, and so is an address.  Raises ValueError, in words for a person.
        """
        default = _SMTP if port is None else port
        if ":" in text and _is_ip(text):
            return cls(str(ipaddress.ip_address(text)), default, is_host=True)
        written = _WRITTEN.fullmatch(text)
        if written is None:
            raise ValueError("a domain, a host, HOST:PORT or [IPv6]:PORT is expected")
        name = written["v6"] or written["name"].removesuffix(".")
        if written["v6"] and not _is_ip(name):
            raise ValueError(f"[{name}] is no IPv6 address")
        if written["port"] is None:
            return cls(name, default, is_host=_is_ip(name))
        own = int(written["port"])
        if not 1 <= own <= 65535:
            raise ValueError("a port is from 1 to 65535")
        if port not in {None, own}:
            raise ValueError("two different ports are given")
        return cls(name, own, is_host=True)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
