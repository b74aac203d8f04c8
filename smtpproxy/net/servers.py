"""The servers of a backend: in which order they are tried, and which of them rest (rule S19)."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from smtpproxy.config import Endpoint


class Server:
    """One address that a backend can be reached at."""

    __slots__ = ("address", "family", "host", "name", "rests_until")

    def __init__(self, name: str, family: int, address: Any, host: str = "localhost") -> None:
        """``name`` as the log shows it; ``family`` and ``address`` as the socket module wants them.

        ``host``: its name or address as the configuration has it, which its certificate is for.
        """
        self.host = host
        self.name = name
        self.family = family
        self.address = address
        self.rests_until = 0.0


class Servers:
    """All addresses of a backend, in the order of the configuration."""

    def __init__(self, endpoints: Iterable[Endpoint], rest: float, clock: Callable[[], float]) -> None:
        """``rest``: seconds for which a failed server is only tried when there is no other; ``clock`` is monotonic."""
        self._endpoints = tuple(endpoints)
        self._rest = rest
        self._clock = clock
        self._found: dict[Endpoint, list[Server]] = {e: [] for e in self._endpoints}
        self._all: list[Server] = []

    def adopt(self, known: Servers) -> None:
        """Begin with the addresses that another object has found for the same endpoints."""
        for endpoint in self._endpoints:
            self._found[endpoint] = known._found.get(endpoint, [])  # of this class
        self._all = [server for endpoint in self._endpoints for server in self._found[endpoint]]

    def resolve(self, *, names: bool = True) -> list[str]:
        """Look every name up, which may block; give a message for each that could not be.

        A server whose look-up fails keeps the addresses it had.  Without ``names`` only addresses are read, at once.
        """
        problems: list[str] = []
        for endpoint in self._endpoints:
            if not names and _is_name(endpoint):
                continue
            try:
                self._found[endpoint] = _servers(endpoint, self._found[endpoint])
            except OSError as problem:
                problems.append(f"{endpoint}: {problem.strerror or problem}")
        self._all = [server for endpoint in self._endpoints for server in self._found[endpoint]]
        return problems

    @property
    def has_names(self) -> bool:
        """Whether an address can change, so that it must be looked up again."""
        return any(_is_name(endpoint) for endpoint in self._endpoints)

    def next(self, tried: list[Server], source: str = "") -> Server | None:
        """Give the server to try after those in ``tried``, the resting ones last; None when all have been.

        ``source``: the address to connect from, which only servers of its own family can be reached by.
        """
        resting = None
        now = self._clock()
        for server in self._all:
            if server in tried or (source and server.family != _family(source)):
                continue
            if server.rests_until <= now:
                return server
            resting = resting or server
        return resting

    def failed(self, server: Server) -> None:
        """Let a server rest."""
        server.rests_until = self._clock() + self._rest


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _servers(endpoint: Endpoint, known: list[Server]) -> list[Server]:
    if endpoint.kind == "unix":
        return known or [Server(str(endpoint), socket.AF_UNIX, endpoint.path)]
    flags = socket.AI_NUMERICHOST if _is_literal(endpoint.host) else socket.AI_ADDRCONFIG
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=flags)
    by_address = {server.address: server for server in known}
    servers: list[Server] = []
    for family, _, _, _, found_address in found:
        address: Any = found_address
        host, port = address[:2]
        name = f"{host}:{port}" if family == socket.AF_INET else f"[{host}]:{port}"
        server = by_address.setdefault(address, Server(name, family, address, endpoint.host))
        if server not in servers:
            servers.append(server)
    return servers


def _is_name(endpoint: Endpoint) -> bool:
    return endpoint.kind == "tcp" and not _is_literal(endpoint.host)


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False
