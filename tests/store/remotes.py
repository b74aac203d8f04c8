"""A clock and a remote for the tests of the EHLO cache."""

from __future__ import annotations

from smtpproxy.store.ehlo import EhloCache, Entry, Key
from smtpproxy.store.memory import Store

KEY = Key("192.0.2.1", 25, tls=False, ehlo="proxy.example.org")
OTHER = Key("2001:db8::1", 25, tls=False, ehlo="proxy.example.org")
LINES = (b"PIPELINING", b"PIPECONNECT", b"SIZE 1000000")
CHANGED = (b"PIPELINING", b"PIPECONNECT", b"CHUNKING")
MINUTE = 60.0
HOUR = 3600.0
DAY = 24 * HOUR


class UnixClock:
    """Unix time that the test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def found(cache: EhloCache, key: Key = KEY) -> Entry | None:
    """What a cache knows, where it says so at once."""
    entries: list[Entry | None] = []
    cache.find(key, entries.append)
    [entry] = entries
    return entry


def may_be_early(cache: EhloCache, key: Key = KEY) -> bool:
    """Whether a session would send its first flight early."""
    entry = found(cache, key)
    return entry is not None and entry.early


def made(store: Store, clock: UnixClock, **settings: float) -> EhloCache:
    """A cache over a store."""
    return EhloCache(store, clock=clock, **settings)  # type: ignore[arg-type]  # entries is an int, the rest floats
