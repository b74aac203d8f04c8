"""From the address of a store, as the configuration has it, to the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from smtpproxy.store.memory import MemoryStore, Store
from smtpproxy.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.store.redis import RedisStore

__all__ = ["make_redis", "make_store", "sqlite_path"]

_CONNECT_PATIENCE: Final = 5.0  # seconds
_REDIS_PORT: Final = 6379


def make_store(
    address: str,
    reactor: Any,  # noqa: ANN401  (it has many interfaces)
    report: Callable[[str], None],
    *,
    password: str | None = None,
) -> Store:
    """Make the store of an address.

    ``memory:``, ``sqlite:/path``, ``redis://[user@]host:port[/database]``, or ``unix:/path``, which is Redis too.
    Nothing is opened before the store is begun.  ``reactor``: the process's own, chosen by now; ``report`` gets lines
    for the log about trouble with the store and its end, in any thread; ``password`` is Redis's.
    """
    if address == "memory:":
        return MemoryStore()
    path = sqlite_path(address)
    return make_redis(address, reactor, report, password=password) if path is None else SqliteStore(path, report)


def sqlite_path(address: str) -> Path | None:
    """Give the file of an address; None for another kind of store."""
    kind, _, rest = address.partition(":")
    return Path(rest) if kind == "sqlite" else None


def make_redis(
    address: str,
    reactor: Any,  # noqa: ANN401  (see above)
    report: Callable[[str], None],
    *,
    password: str | None,
) -> RedisStore:
    """Make the store of an address of Redis; raises ImportError where txredisapi is not installed."""
    # Not before the reactor is chosen: both import it, or what depends on it.
    from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint  # noqa: PLC0415  (see above)

    from smtpproxy.store.redis import RedisStore  # noqa: PLC0415  (the same)

    kind, _, rest = address.partition(":")
    if kind == "unix":
        endpoint: Any = UNIXClientEndpoint(reactor, rest, timeout=_CONNECT_PATIENCE)
        return RedisStore(endpoint, reactor, report, password=password)
    url = urlsplit(address)
    endpoint = HostnameEndpoint(reactor, url.hostname or "", url.port or _REDIS_PORT, timeout=_CONNECT_PATIENCE)
    number = url.path.strip("/")
    database = int(number) if number else None
    return RedisStore(endpoint, reactor, report, username=url.username, password=password, database=database)
