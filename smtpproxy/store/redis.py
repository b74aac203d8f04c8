"""A store in Redis or Valkey: shared by the proxies of a fleet.

How it works.  Each record is a string, with its own time to live; a sorted set says which was used when, so that the
least recently used can go (rule C5).  To change a record it is read, changed here, and written by a script that does
nothing if it is not any more what was read; then all is done again.  So one proxy's flush is never lost by another's
write, and there is no copy that could hide it.

Trouble.  While Redis is away, or takes longer than a quarter of a second, nothing is found and the service goes on
politely.  What happens meanwhile waits, within bounds, and is written when Redis is back.

This module imports txredisapi, which imports the reactor: import it only after that has been chosen.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import txredisapi  # type: ignore[import-untyped]  # it ships no types
from twisted.python import log

from smtpproxy.store.record import Key, Record, dumped, loaded
from smtpproxy.store.redislink import RedisLink
from smtpproxy.store.rules import added

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.python.failure import Failure

    from smtpproxy.store.rules import Event, Rules

__all__ = ["RedisStore"]

_MOST_WAITING: Final = 10_000  # keys with events that are not written yet
_MOST_WRITING: Final = 64  # keys at a time
_MOST_TRIES: Final = 100  # each fails only because another proxy's has succeeded
_AT_ONCE: Final = 500  # records in one reply

# KEYS: the record, the sorted set.  ARGV: what was read ("" for nothing), what to write, its time to live (ms), the
# time of use, how many records there may be.  Gives 1, or what is there instead.  The set lives as long as any record.
_WRITE: Final = b"""
local there = redis.call('GET', KEYS[1]) or ''
if there ~= ARGV[1] then return there end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[4], KEYS[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
local over = redis.call('ZCARD', KEYS[2]) - ARGV[5]
if over > 0 then
  local gone = redis.call('ZPOPMIN', KEYS[2], math.min(over, 100))
  for i = 1, #gone, 2 do redis.call('DEL', gone[i]) end
end
return 1
"""
# KEYS: the sorted set, records.
_FORGET: Final = b"""
for i = 2, #KEYS do
  redis.call('DEL', KEYS[i])
  redis.call('ZREM', KEYS[1], KEYS[i])
end
return 1
"""


class RedisStore:
    """See ``Store`` for the methods."""

    def __init__(
        self,
        endpoint: Any,  # noqa: ANN401  (zope interfaces are no types)
        reactor: Any,  # noqa: ANN401  (the same)
        report: Callable[[str], None],
        *,
        username: str | None = None,
        password: str | None = None,
        database: int | None = None,
        prefix: str = "smtpproxy:",
    ) -> None:
        """Connect to nothing yet.

        ``endpoint``: IStreamClientEndpoint of Redis; ``reactor``: IReactorTime; ``report`` gets a line for the log when
        Redis goes away, and when it is back; ``prefix`` begins the names of all our keys.
        """
        self._link = RedisLink(endpoint, reactor, report, username=username, password=password, database=database)
        self._prefix = f"{prefix}ehlo:"
        self._used = f"{prefix}ehlo-used"
        self._begun = False
        self._closed = False
        self._waiting: OrderedDict[Key, list[Event]] = OrderedDict()
        self._writing: dict[Key, list[Event]] = {}

    def begin(self, rules: Rules, entries: int, clock: Callable[[], float]) -> None:
        """See ``Store``; begins to connect."""
        self._rules = rules
        self._entries = entries
        self._clock = clock
        if not self._begun:
            self._begun = True
            self._link.start(self._write_more)

    def whether_up(self, told: Callable[[bool], None]) -> None:
        """Call ``told`` once, as soon as it is known whether Redis answers."""
        self._link.whether_up(told)

    def find(self, key: Key, found: Callable[[Record | None], None]) -> None:
        """See ``Store``; the answer comes after a quarter of a second at most."""
        if not self._link.up:
            found(None)
            return

        def got(stored: object) -> None:
            record = loaded(_text(stored))
            for event in (*self._writing.get(key, ()), *self._waiting.get(key, ())):
                record = self._rules.after(record, event)
            found(record if self._link.up else None)

        self._link.connection.get(self._name(key)).addErrback(self._link.failed).addCallback(got).addErrback(log.err)

    def update(self, key: Key, event: Event) -> None:
        """See ``Store``; it is done later, and after a time without Redis."""
        if self._closed:
            return
        added(self._waiting.setdefault(key, []), event)
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popitem(last=False)
        self._write_more()

    def all(self, found: Callable[[list[tuple[Key, Record]] | None], None]) -> None:
        """See ``Store``."""
        if self._link.connection is None:
            found(None)
            return
        records: list[tuple[Key, Record]] = []

        def listed(names: list[bytes]) -> Any:  # noqa: ANN401  (a Deferred)
            some, rest = names[:_AT_ONCE], names[_AT_ONCE:]
            if not some:
                return records
            return self._link.connection.mget(some).addCallback(read, some, rest)

        def read(stored: list[object], some: list[bytes], rest: list[bytes]) -> Any:  # noqa: ANN401  (a Deferred)
            for name, text in zip(some, stored, strict=True):
                key, record = self._key(name), loaded(_text(text))
                if key is not None and record is not None:
                    records.append((key, record))
            return listed(rest)

        listing = self._link.connection.zrange(self._used, 0, -1)
        listing.addCallback(listed).addErrback(self._link.failed).addCallback(found)

    def forget(self, keys: Iterable[Key] | None, done: Callable[[bool], None]) -> None:
        """See ``Store``."""
        if self._link.connection is None:
            done(False)  # noqa: FBT003  (a callback of one argument)
            return

        def forget(names: list[Any]) -> Any:  # noqa: ANN401  (a Deferred)
            some, rest = names[:_AT_ONCE], names[_AT_ONCE:]
            forgetting = self._link.connection.eval(_FORGET, [self._used, *some])
            return forgetting.addCallback(lambda _: forget(rest) if rest else True)

        if keys is None:
            self._waiting.clear()
            forgetting = self._link.connection.zrange(self._used, 0, -1).addCallback(forget)
        else:
            wanted = list(keys)
            for key in wanted:
                self._waiting.pop(key, None)
            forgetting = forget([self._name(key) for key in wanted])
        forgetting.addErrback(self._link.failed).addCallback(lambda fine: done(bool(fine)))

    def close(self) -> None:
        """See ``Store``; what Redis did not take yet is lost."""
        self._closed = True
        self._link.close()

    def _write_more(self) -> None:
        """Begin to write what waits, some keys at a time."""
        if self._link.connection is None or len(self._writing) >= _MOST_WRITING:
            return
        keys = [key for key in islice(self._waiting, 2 * _MOST_WRITING) if key not in self._writing]
        for key in keys[: _MOST_WRITING - len(self._writing)]:
            events = self._writing[key] = self._waiting.pop(key)
            reading = self._link.connection.get(self._name(key))
            reading.addCallback(self._change, key, events, _MOST_TRIES)
            reading.addCallbacks(self._wrote, self._unwritten, callbackArgs=(key,), errbackArgs=(key,))
            reading.addErrback(log.err)

    def _change(self, stored: object, key: Key, events: list[Event], tries: int) -> Any:  # noqa: ANN401  (a Deferred)
        record = loaded(_text(stored))
        for event in events:
            record = self._rules.after(record, event)
        if record is None or tries == 0:
            return None
        if self._link.connection is None:
            raise txredisapi.ConnectionError("the connection was lost")
        now = self._clock()
        life = max(1, int(1000 * (self._rules.kept_until(record) - now)))
        keys = [self._name(key), self._used]
        arguments = [stored or b"", dumped(record), life, now, self._entries]
        writing = self._link.connection.eval(_WRITE, keys, arguments)
        return writing.addCallback(lambda there: None if there == 1 else self._change(there, key, events, tries - 1))

    def _wrote(self, _: object, key: Key) -> None:
        self._writing.pop(key)
        self._link.works()
        self._write_more()

    def _unwritten(self, failure: Failure, key: Key) -> None:
        events = self._writing.pop(key)
        if not failure.check(txredisapi.ResponseError):  # else it would say the same again
            for event in self._waiting.get(key, ()):
                added(events, event)
            self._waiting[key] = events
        self._link.failed(failure)

    def _name(self, key: Key) -> bytes:
        return f"{self._prefix}{key.address}|{key.port}|{'tls' if key.tls else 'clear'}|{key.ehlo}".encode()

    def _key(self, name: bytes) -> Key | None:
        parts = name.decode("utf-8", "replace").removeprefix(self._prefix).split("|")
        if len(parts) != 4 or not parts[1].isdecimal():
            return None
        return Key(parts[0], int(parts[1]), parts[2] == "tls", parts[3])


def _text(stored: object) -> str | None:
    return stored.decode("utf-8", "replace") if isinstance(stored, bytes) else None
