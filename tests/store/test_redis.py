"""The store in Redis, against a real one: shared by a fleet, and done without where it is away."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor

from smtpproxy.store.ehlo import EhloCache, Entry, Key
from smtpproxy.store.opening import make_redis
from smtpproxy.store.record import Record

from .remotes import CHANGED, DAY, HOUR, KEY, LINES, OTHER, UnixClock, made

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")
LONG = 30.0  # seconds, for what is done in no time

pytestmark = pytest.mark.skipif(REDIS is None, reason="neither redis-server nor valkey-server is installed")


class Turned(EPollReactor):
    """A reactor that nobody runs."""

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + LONG
        while not condition():
            assert time.monotonic() < end, "it never came about"
            self.runUntilCurrent()
            wait = self.timeout()
            self.doPoll(0.01 if wait is None else min(wait, 0.01))

    def is_idle(self) -> bool:
        watched = {*self.getReaders(), *self.getWriters()} - self._internalReaders
        return not watched and not self.getDelayedCalls()


@pytest.fixture
def reactor() -> Iterator[Turned]:
    turned = Turned()
    yield turned
    assert turned.removeAll() == [], "something is still watched"
    for internal in list(turned._internalReaders):
        turned.removeReader(internal)
        internal.connectionLost(None)
    turned._poller.close()


class Server:
    """Redis on a Unix socket, with its data in a file."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        self.socket.unlink(missing_ok=True)
        settings = [
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--dir",
            self._folder,
        ]
        command = [REDIS or "", "--unixsocket", self.socket, *settings, *options]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Proxy:
    """One of a fleet."""

    def __init__(self, fleet: Fleet, **settings: Any) -> None:
        self.reports: list[str] = []
        self.fleet = fleet
        password = settings.pop("password", None)
        self.store = make_redis(f"unix:{fleet.server.socket}", fleet.reactor, self.reports.append, password=password)
        self.cache = made(self.store, fleet.clock, **settings)

    def is_up(self) -> bool:
        return self.store._link.up

    def found(self, key: Key = KEY) -> Entry | None:
        entries: list[Entry | None] = []
        self.cache.find(key, entries.append)
        self.fleet.reactor.until(lambda: entries)
        [entry] = entries
        return entry

    def early(self, key: Key = KEY) -> bool:
        entry = self.found(key)
        return entry is not None and entry.early

    def settle(self) -> None:
        self.fleet.reactor.until(lambda: not self.store._waiting and not self.store._writing)

    def ask(self, command: str, *arguments: object) -> Any:
        """What Redis itself says."""
        replies: list[Any] = []
        self.store._link.connection.execute_command(command, *arguments).addBoth(replies.append)
        self.fleet.reactor.until(lambda: replies)
        return replies[0]

    def listed(self) -> list[tuple[Key, Record]] | None:
        lists: list[list[tuple[Key, Record]] | None] = []
        self.cache.all(lists.append)
        self.fleet.reactor.until(lambda: lists)
        return lists[0]

    def forget(self, keys: list[Key] | None) -> bool:
        done: list[bool] = []
        self.cache.forget(keys, done.append)
        self.fleet.reactor.until(lambda: done)
        return done[0]


class Fleet:
    """Several proxies and their Redis."""

    def __init__(self, reactor: Turned, server: Server) -> None:
        self.reactor = reactor
        self.server = server
        self.clock = UnixClock()
        self.proxies: list[Proxy] = []

    def proxy(self, **settings: Any) -> Proxy:
        proxy = Proxy(self, **settings)
        self.proxies.append(proxy)
        return proxy

    def running(self, **settings: Any) -> Proxy:
        """One that has its connection."""
        proxy = self.proxy(**settings)
        self.reactor.until(proxy.is_up)
        proxy.reports.clear()  # Redis needs some time to start
        return proxy


@pytest.fixture
def fleet(reactor: Turned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr("smtpproxy.store.redislink._PATIENCE", LONG)
    monkeypatch.setattr("smtpproxy.store.redislink._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("smtpproxy.store.redislink._LAST_PAUSE", 0.05)
    server = Server(tmp_path)
    fleet = Fleet(reactor, server)
    yield fleet
    for proxy in fleet.proxies:
        proxy.cache.close()
    reactor.until(reactor.is_idle)
    server.kill()


def test_what_happened_is_seen_at_once_before_it_is_written(fleet: Fleet) -> None:
    fleet.server.start()
    proxy = fleet.running()
    assert proxy.found() is None
    proxy.cache.learned(KEY, LINES)
    proxy.cache.confirmed(KEY)
    entry = proxy.found()
    assert entry is not None
    assert (entry.lines, entry.confirmed, entry.early) == (LINES, 1, True)
    proxy.cache.flush(KEY, hold_back=False)
    assert not proxy.early()
    assert proxy.reports == []


def test_another_proxy_sees_what_was_learned_and_flushed(fleet: Fleet) -> None:
    fleet.server.start()
    one, two = fleet.running(), fleet.running()
    one.cache.learned(KEY, LINES)
    one.settle()
    assert two.early()
    two.cache.flush(KEY, hold_back=True)
    two.settle()
    one.cache.confirmed(KEY)
    assert not one.early()
    fleet.clock.advance(HOUR)
    assert one.early()


def test_nothing_is_lost_where_all_write_at_once(fleet: Fleet) -> None:
    fleet.server.start()
    proxies = [fleet.running() for _ in range(4)]
    proxies[0].cache.learned(KEY, LINES)
    proxies[0].settle()
    for round_ in range(25):
        for proxy in proxies:
            proxy.cache.confirmed(KEY)
        proxies[round_ % 4].settle()
    for proxy in proxies:
        proxy.settle()
    entry = proxies[1].found()
    assert entry is not None
    assert entry.confirmed == 100


def test_a_flush_is_not_lost_where_all_write_at_once(fleet: Fleet) -> None:
    fleet.server.start()
    proxies = [fleet.running() for _ in range(4)]
    proxies[0].cache.learned(KEY, LINES)
    proxies[0].settle()
    for proxy in proxies[:3]:
        proxy.cache.confirmed(KEY)
    proxies[3].cache.flush(KEY, hold_back=True)
    for proxy in proxies[:3]:
        proxy.cache.confirmed(KEY)
    for proxy in proxies:
        proxy.settle()
    assert [proxy.early() for proxy in proxies] == [False] * 4
    fleet.clock.advance(HOUR)
    assert [proxy.early() for proxy in proxies] == [True] * 4


def test_redis_forgets_by_itself(fleet: Fleet) -> None:
    fleet.server.start()
    proxy = fleet.running()
    proxy.cache.learned(KEY, LINES)
    proxy.settle()
    for name in (b"smtpproxy:ehlo:192.0.2.1|25|clear|proxy.example.org", b"smtpproxy:ehlo-used"):
        assert DAY - 60 < proxy.ask("PTTL", name) / 1000 <= DAY
    proxy.cache.flush(KEY, hold_back=True)
    proxy.settle()
    assert DAY < proxy.ask("PTTL", b"smtpproxy:ehlo-used") / 1000 <= DAY + HOUR, "the trouble is remembered longer"


def test_c5_the_number_is_bounded_the_least_recently_used_goes(fleet: Fleet) -> None:
    fleet.server.start()
    proxy = fleet.running(entries=10)
    for port in range(1, 31):
        proxy.cache.learned(KEY._replace(port=port), LINES)
        fleet.clock.advance(1.0)
        if port > 2:
            proxy.cache.confirmed(KEY._replace(port=2))
        proxy.settle()
    records = proxy.listed()
    assert records is not None
    assert sorted(key.port for key, _ in records) == [2, *range(22, 31)]
    assert proxy.ask("DBSIZE") == 11


def test_a_record_that_cannot_be_read_is_learned_anew(fleet: Fleet) -> None:
    fleet.server.start()
    proxy = fleet.running()
    proxy.ask("SET", b"smtpproxy:ehlo:192.0.2.1|25|clear|proxy.example.org", b"\xff{}")
    proxy.ask("ZADD", b"smtpproxy:ehlo-used", 1, b"what is this?")
    assert proxy.found() is None
    assert proxy.listed() == []
    proxy.cache.learned(KEY, CHANGED)
    proxy.settle()
    assert proxy.early()
    assert proxy.reports == []


def test_what_is_forgotten_is_forgotten_by_all(fleet: Fleet) -> None:
    fleet.server.start()
    one, two = fleet.running(), fleet.running()
    for key in (KEY, OTHER, KEY._replace(tls=True)):
        one.cache.learned(key, LINES)
        one.settle()
    listed = one.listed()
    assert listed is not None
    assert {key for key, _ in listed} == {KEY, OTHER, KEY._replace(tls=True)}
    assert two.forget([KEY])
    assert (one.found(), one.early(OTHER)) == (None, True)
    assert two.forget(None)
    assert one.found(OTHER) is None
    assert one.listed() == []
    assert one.ask("DBSIZE") == 0


def test_redis_is_not_there_yet(fleet: Fleet) -> None:
    proxy = fleet.proxy()
    told: list[bool] = []
    proxy.store.whether_up(told.append)
    fleet.reactor.until(lambda: told)
    assert told == [False]
    [report] = proxy.reports
    assert report.startswith("Redis is away: ")
    proxy.cache.learned(KEY, LINES)
    assert proxy.found() is None, "politely, while it cannot be known what others have seen"
    assert proxy.listed() is None
    assert not proxy.forget(None)
    fleet.server.start()
    fleet.reactor.until(proxy.is_up)
    assert len(proxy.reports) == 2
    assert proxy.reports[1].startswith("Redis is back")
    assert proxy.early()


def test_a_flush_while_redis_is_away_is_written_when_it_is_back(fleet: Fleet) -> None:
    fleet.server.start()
    proxy = fleet.running()
    proxy.cache.learned(KEY, LINES)
    proxy.settle()
    fleet.server.kill()
    fleet.reactor.until(lambda: not proxy.is_up())
    assert proxy.found() is None
    proxy.cache.flush(KEY, hold_back=True)
    fleet.server.start()
    fleet.reactor.until(proxy.is_up)
    assert not proxy.early()
    proxy.settle()
    entry = fleet.running().found()
    assert entry is not None
    assert (entry.lines, entry.early) == (LINES, False)
    assert len(proxy.reports) == 2


def test_redis_takes_too_long(fleet: Fleet) -> None:
    fleet.server.start()
    proxy = fleet.running()
    proxy.cache.learned(KEY, LINES)
    proxy.settle()
    fleet.server.signal(signal.SIGSTOP)
    proxy.store._link.connection.replyTimeout = 0.05
    proxy.cache.flush(KEY, hold_back=False)
    assert proxy.found() is None
    fleet.reactor.until(lambda: proxy.store._link.connection is None)
    assert len(proxy.reports) == 1
    assert "Redis is away" in proxy.reports[0]
    fleet.server.signal(signal.SIGCONT)
    fleet.reactor.until(proxy.is_up)
    proxy.settle()
    entry = proxy.found()
    assert entry is not None
    assert not entry.early
    assert len(proxy.reports) == 2


def test_redis_writes_nothing_any_more(fleet: Fleet) -> None:
    fleet.server.start()
    proxy = fleet.running()
    proxy.cache.learned(KEY, LINES)
    proxy.settle()
    proxy.ask("CONFIG", "SET", "maxmemory", "1")
    proxy.cache.flush(KEY, hold_back=True)
    proxy.settle()
    assert proxy.found() is None, "what cannot take a flush is not believed"
    proxy.cache.confirmed(KEY)
    proxy.settle()
    assert len(proxy.reports) == 1
    assert "maxmemory" in proxy.reports[0]
    proxy.ask("CONFIG", "SET", "maxmemory", "0")
    proxy.cache.flush(KEY, hold_back=True)
    proxy.settle()
    entry = proxy.found()
    assert entry is not None
    assert not entry.early
    assert len(proxy.reports) == 2


@pytest.mark.parametrize("password", [None, "wrong"])
def test_redis_wants_another_password(fleet: Fleet, password: str | None) -> None:
    fleet.server.start("--requirepass", "right")
    proxy = fleet.running(password="right")
    proxy.cache.learned(KEY, LINES)
    assert proxy.early()
    stranger = fleet.proxy(password=password)
    told: list[bool] = []
    stranger.store.whether_up(told.append)
    fleet.reactor.until(lambda: told)
    assert told == [False]
    assert stranger.found() is None
    [report] = stranger.reports
    assert "password" in report or "uth" in report


def test_only_so_much_waits_for_redis(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpproxy.store.redis._MOST_WAITING", 10)
    proxy = fleet.proxy()
    for port in range(1, 31):
        proxy.cache.learned(KEY._replace(port=port), LINES)
    fleet.server.start()
    fleet.reactor.until(proxy.is_up)
    proxy.settle()
    records = proxy.listed()
    assert records is not None
    assert sorted(key.port for key, _ in records) == list(range(21, 31))


def test_much_that_waits_is_written_a_little_at_a_time(fleet: Fleet) -> None:
    proxy = fleet.proxy()
    for port in range(1, 1001):
        proxy.cache.learned(KEY._replace(port=port), LINES)
    fleet.server.start()
    fleet.reactor.until(proxy.is_up)
    assert len(proxy.store._writing) <= 64
    proxy.settle()
    records = proxy.listed()
    assert records is not None
    assert len(records) == 1000


def test_a_closed_store_finds_nothing_and_connects_no_more(fleet: Fleet) -> None:
    fleet.server.start()
    proxy = fleet.running()
    proxy.cache.learned(KEY, LINES)
    proxy.cache.close()
    assert proxy.found() is None
    proxy.cache.learned(OTHER, LINES)
    assert OTHER not in proxy.store._waiting
    assert proxy.reports == []


def test_it_is_the_same_store_for_another_generation(fleet: Fleet) -> None:
    fleet.server.start()
    proxy = fleet.running()
    proxy.cache.learned(KEY, LINES)
    proxy.cache.flush(KEY, hold_back=True)
    again = EhloCache(proxy.store, hold_back=0.0, clock=fleet.clock)
    again.confirmed(KEY)
    entries: list[Entry | None] = []
    again.find(KEY, entries.append)
    fleet.reactor.until(lambda: entries)
    assert entries[0] is not None
    assert entries[0].early
