"""From the address in the configuration to the store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from smtpproxy.store.memory import MemoryStore
from smtpproxy.store.opening import make_store, sqlite_path
from smtpproxy.store.sqlite import SqliteStore

from .remotes import UnixClock, made


def test_each_address_has_its_kind() -> None:
    lines: list[str] = []
    assert isinstance(make_store("memory:", None, lines.append), MemoryStore)
    assert isinstance(make_store("sqlite:/var/lib/x.db", None, lines.append), SqliteStore)
    assert sqlite_path("sqlite:/var/lib/a:b.db") == Path("/var/lib/a:b.db")
    assert sqlite_path("memory:") is None
    assert sqlite_path("unix:/run/redis") is None
    assert lines == []


def test_nothing_is_opened_before_it_is_begun(tmp_path: Path) -> None:
    make_store(f"sqlite:{tmp_path}/cache.db", None, print)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("redis://192.0.2.1:6380", "192.0.2.1", 6380),
        ("redis://redis.example.org:6380/3", "redis.example.org", 6380),
        ("redis://proxy@192.0.2.1:6380/3", "192.0.2.1", 6380),
        ("redis://[2001:db8::1]:6379", "2001:db8::1", 6379),
    ],
)
def test_redis_over_tcp(monkeypatch: pytest.MonkeyPatch, address: str, host: str, port: int) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr("twisted.internet.endpoints.HostnameEndpoint", lambda *given, **_: asked.append(given))
    make_store(address, None, print)
    assert asked == [(None, host, port)]


def test_what_is_said_first_to_redis() -> None:
    reactor = MemoryReactorClock()
    store: Any = make_store("redis://proxy@192.0.2.1:6380/3", reactor, print, password="secret")
    connection = store._link._factory.buildProtocol(None)
    assert (connection.username, connection.password, connection.dbid) == ("proxy", "secret", 3)
    assert connection.replyTimeout == 0.25


def test_redis_over_a_unix_socket() -> None:
    reactor = MemoryReactorClock()
    made(make_store("unix:/run/redis.sock", reactor, print), UnixClock())
    [(path, *_)] = reactor.unixClients
    assert path == "/run/redis.sock"


def test_redis_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "smtpproxy.store.redis", raising=False)
    monkeypatch.delitem(sys.modules, "smtpproxy.store.redislink", raising=False)
    monkeypatch.setitem(sys.modules, "txredisapi", None)
    with pytest.raises(ImportError, match="txredisapi"):
        make_store("redis://127.0.0.1:6379", None, print)
