"""A store that only this process has: the interface of all stores, and the simplest one."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from smtpproxy.store.record import Key, Record
    from smtpproxy.store.rules import Event, Rules

__all__ = ["MemoryStore", "Store"]


class Store(Protocol):
    """Keeps records under keys."""

    def begin(self, rules: Rules, entries: int, clock: Callable[[], float]) -> None:
        """Called before all else: what to go by, how many records to keep, and Unix time.

        It may be called again, where another configuration takes the store over.
        """

    def find(self, key: Key, found: Callable[[Record | None], None]) -> None:
        """Call ``found`` exactly once, at once or later, in the reactor's thread; it must not raise.

        It gets the record after all events that this store was told of; None where there is none, or it cannot be had
        in a short time.
        """

    def update(self, key: Key, event: Event) -> None:
        """Apply ``Rules.after`` to what is stored by now, whoever else has written it since."""

    def all(self, found: Callable[[list[tuple[Key, Record]] | None], None]) -> None:
        """Call ``found`` once with all that is stored, those used last at the end; None if it cannot be read."""

    def forget(self, keys: Iterable[Key] | None, done: Callable[[bool], None]) -> None:
        """Remove records, with all that is known of trouble; all of them for None.

        ``done`` is called once, with False if the store could not be written.
        """

    def close(self) -> None:
        """Write what is not written, and let go of everything; what is asked afterwards finds nothing."""


class MemoryStore:
    """Keeps records in a dictionary; the least recently used goes first (rule C5)."""

    def __init__(self) -> None:
        self._records: OrderedDict[Key, Record] = OrderedDict()

    def begin(self, rules: Rules, entries: int, clock: Callable[[], float]) -> None:
        """See ``Store``."""
        self._rules = rules
        self._entries = entries
        self._clock = clock

    def find(self, key: Key, found: Callable[[Record | None], None]) -> None:
        """See ``Store``; the answer comes at once."""
        record = self._records.get(key)
        if record is not None:
            if self._rules.kept_until(record) < self._clock():
                del self._records[key]
                record = None
            else:
                self._records.move_to_end(key)
        found(record)

    def update(self, key: Key, event: Event) -> None:
        """See ``Store``."""
        record = self._rules.after(self._records.get(key), event)
        if record is not None:
            self.keep(key, record)

    def keep(self, key: Key, record: Record) -> None:
        """Store a record that was made elsewhere."""
        self._records[key] = record
        self._records.move_to_end(key)
        while len(self._records) > self._entries:
            self._records.popitem(last=False)

    def all(self, found: Callable[[list[tuple[Key, Record]] | None], None]) -> None:
        """See ``Store``; the answer comes at once."""
        now = self._clock()
        found([item for item in self._records.items() if self._rules.kept_until(item[1]) >= now])

    def forget(self, keys: Iterable[Key] | None, done: Callable[[bool], None]) -> None:
        """See ``Store``; it is done at once."""
        for key in list(self._records) if keys is None else keys:
            self._records.pop(key, None)
        done(True)  # noqa: FBT003  (a callback of one argument)

    def close(self) -> None:
        """See ``Store``."""
        self._records.clear()
