"""The parts of a configuration's data that the checks across settings go over.

What is wrong in itself is left out here: the model reports it.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from smtpproxy.config.endpoint import Endpoint, collide, parse_endpoint
from smtpproxy.config.problem import Path

__all__ = ["Entry", "Place", "entries", "is_switched_on", "items", "mode_of", "own_address", "places"]

Place = tuple[Path, Endpoint]
"""An address, and where in the file it stands."""


class Entry(NamedTuple):
    """A listener, a backend or a route: where it stands in the file, and its data."""

    path: Path
    data: dict[str, Any]


def items(value: object) -> list[Any]:
    """Give a list's entries, none if it is no list."""
    return list(value) if isinstance(value, (list, tuple)) else []


def entries(key: str, value: object) -> list[Entry]:
    """Give the sections of a list that is the value of a key of the file."""
    return [Entry((key, index), item) for index, item in enumerate(items(value)) if isinstance(item, dict)]


def mode_of(entry: Entry) -> object:
    """Give a listener's mode as it is written; ``inbound`` where it is left out."""
    return entry.data.get("mode", "inbound")


def places(entry: Entry, key: str, read: Callable[[object], Endpoint] = parse_endpoint) -> Iterator[Place]:
    """Give the addresses in a list of an entry; ``read`` raises ValueError for what is none."""
    path, section = entry
    for index, text in enumerate(items(section.get(key))):
        try:
            yield (*path, key, index), read(text)
        except ValueError:
            continue


def own_address(server: Endpoint, listening: list[Place]) -> Endpoint | None:
    """Give the address that we listen on and that a server to connect to would be, if there is one."""
    for _, endpoint in listening:
        local = server.host in {"127.0.0.1", "::1", "localhost"} or server.host == endpoint.host
        if local and collide(server, endpoint):
            return endpoint
    return None


def is_switched_on(value: object) -> bool:
    """Tell whether a setting that may be ``off`` is given and is not."""
    return value is not None and value is not False and value != "off"
