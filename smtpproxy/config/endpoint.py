"""Addresses to listen on or to connect to: ``host:port``, ``[v6]:port``, ``unix:/path``, ``systemd:name``."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal

from smtpproxy.config.domains import is_hostname
from smtpproxy.config.problem import quoted

__all__ = ["Endpoint", "collide", "parse_endpoint"]

_EXPECTED: Final = "host:port, [IPv6 address]:port or unix:/path is expected"
_HIGHEST_PORT: Final = 65535
_LONGEST_UNIX_PATH: Final = 107  # sockaddr_un: 108 octets with the final NUL
_SYSTEMD_NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address.

    ``host`` (an IPv4 address, an IPv6 address without brackets, or a name) and ``port`` for ``tcp``;
    ``path`` is the path of a ``unix`` socket or the name of a ``systemd`` one. ``str()`` writes it as the
    configuration does.
    """

    kind: Literal["tcp", "unix", "systemd"]
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """The address as written in a configuration."""
        if self.kind != "tcp":
            return f"{self.kind}:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: object) -> Endpoint:
    """Read one address from its text.

    Raises ValueError, in words for an administrator, if it is none. Port 0 is let through: where it makes
    sense (a free port to listen on) is the caller's to know.
    """
    if not isinstance(text, str):
        raise ValueError(f"{_EXPECTED}, in quotes, not {quoted(text)}")
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return _unix(rest)
    if kind == "systemd":
        if not _SYSTEMD_NAME.fullmatch(rest):
            raise ValueError("systemd:name is expected, the name being that of FileDescriptorName= in the socket unit")
        return Endpoint("systemd", path=rest)
    return _tcp(text)


def _unix(path: str) -> Endpoint:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"unix: is followed by an absolute path, not by {quoted(path)}")
    if len(path.encode()) > _LONGEST_UNIX_PATH:
        raise ValueError(f"the path of a Unix socket has at most {_LONGEST_UNIX_PATH} octets")
    return Endpoint("unix", path=path)


def _tcp(text: str) -> Endpoint:
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{_EXPECTED}, not {quoted(text)}")
    if not (port.isascii() and port.isdigit() and len(port) <= len("65535") and int(port) <= _HIGHEST_PORT):
        raise ValueError(f"a port from 1 to {_HIGHEST_PORT} is expected behind the last colon, not {quoted(port)}")
    return Endpoint("tcp", host=_host(host), port=int(port))


def _host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError(f"an IPv6 address is expected between the brackets, not {quoted(host[1:-1])}") from None
    if ":" in host:
        raise ValueError(f"an IPv6 address is written in brackets: '[{host[:60]}]:port'")
    if host.replace(".", "").isdigit():
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError(f"{quoted(host)} is no IPv4 address") from None
    if not is_hostname(host):
        raise ValueError(f"{quoted(host)} is neither an IP address nor the name of a host")
    return host.lower()


def collide(one: Endpoint, other: Endpoint) -> bool:
    """Tell whether the kernel would refuse to listen on both.

    The same address, or the same port where one of the two is the wildcard of that address family; but port 0
    stands for any free one.
    """
    if one == other:
        return True
    if one.kind != "tcp" or other.kind != "tcp" or one.port != other.port or one.port == 0:
        return False
    same_family = (":" in one.host) == (":" in other.host)
    return same_family and bool({"0.0.0.0", "::"} & {one.host, other.host})
