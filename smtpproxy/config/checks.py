"""Mistakes that concern several settings at once.

They are looked for in the file's data, not in the finished model, so that they are reported together with
all others; a part that is wrong in itself is passed over here.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from smtpproxy.config.endpoint import Endpoint, collide, parse_endpoint
from smtpproxy.config.problem import Path

__all__ = ["cross_check"]

Finding = tuple[Path, str]
Place = tuple[Path, Endpoint]


class Entry(NamedTuple):
    """A listener or a backend: where it stands in the file, and its data."""

    path: Path
    data: dict[str, Any]


_SMUGGLING: Final = (
    "pass lets mail be smuggled through a backend that takes a bare CR or LF for a line ending; "
    "if yours surely does not, say so with backend_immune: yes"
)


def cross_check(data: object) -> Iterator[Finding]:
    """Take a configuration's data, as ``source`` gives it; give each mistake as path and message."""
    if not isinstance(data, dict):
        return
    listeners = [
        Entry(("listeners", index), item)
        for index, item in enumerate(_items(data.get("listeners")))
        if isinstance(item, dict)
    ]
    named = data.get("backends")
    backends = list(named.items()) if isinstance(named, dict) else []
    servers = [Entry(("backends", name), item) for name, item in backends if isinstance(item, dict)]
    yield from _duplicate_names(listeners)
    yield from _unknown_backends(listeners, [name for name, _ in backends])
    yield from _immunity(listeners)
    listening = [place for entry in listeners for place in _places(entry, "listen")]
    yield from _collisions(listening)
    yield from _loops(listening, [place for entry in servers for place in _places(entry, "servers")])


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _duplicate_names(listeners: list[Entry]) -> Iterator[Finding]:
    first: dict[str, Path] = {}
    for path, listener in listeners:
        name = listener.get("name")
        if isinstance(name, str) and first.setdefault(name, path) != path:
            yield (*path, "name"), f"another listener has the name '{name}' already"


def _unknown_backends(listeners: list[Entry], names: list[str]) -> Iterator[Finding]:
    for path, listener in listeners:
        backend = listener.get("backend")
        if isinstance(backend, str) and names and backend not in names:
            yield (*path, "backend"), f"there is no backend '{backend}'; known are {', '.join(names)}"


def _immunity(listeners: list[Entry]) -> Iterator[Finding]:
    """Bare line endings may be passed on only where somebody vouched for the backend (S11)."""
    for path, listener in listeners:
        if listener.get("backend_immune") is True:
            continue
        asked: list[tuple[Path, object]] = [((*path, "bare_line_endings"), listener.get("bare_line_endings"))]
        for index, exception in enumerate(_items(listener.get("bare_line_endings_exceptions"))):
            if isinstance(exception, dict):
                asked.append(((*path, "bare_line_endings_exceptions", index, "policy"), exception.get("policy")))
        for place, policy in asked:
            if policy == "pass":
                yield place, _SMUGGLING


def _places(entry: Entry, key: str) -> Iterator[Place]:
    path, section = entry
    for index, text in enumerate(_items(section.get(key))):
        try:
            yield (*path, key, index), parse_endpoint(text)
        except ValueError:
            continue


def _collisions(listening: list[Place]) -> Iterator[Finding]:
    for number, (path, endpoint) in enumerate(listening):
        for _, earlier in listening[:number]:
            if collide(endpoint, earlier):
                yield path, f"{endpoint} cannot be listened on beside {earlier}, which is in the file already"
                break


def _loops(listening: list[Place], servers: list[Place]) -> Iterator[Finding]:
    """A server that is one of the proxy's own addresses would be the proxy talking to itself."""
    for path, server in servers:
        for _, endpoint in listening:
            local = server.host in {"127.0.0.1", "::1", "localhost"} or server.host == endpoint.host
            if local and collide(server, endpoint):
                yield path, f"smtpproxy itself listens on {endpoint}: it would talk to itself"
                break
