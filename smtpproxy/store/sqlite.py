"""A store in an SQLite file: survives a restart, and is shared by all processes of a machine.

How it works.  Events are applied to a copy in memory at once, and to the file by a thread of its own, in batches, one
transaction each.  What is written is never a copy: the thread reads the record, applies the events, and writes the
result, so a flush by another process is never lost.  Copies are believed for half a second; then the next ``find``
reads the file again, one look-up in the index, in the caller's thread.

Trouble.  A file that cannot be opened, or is ruined, is reported, and from then on the process goes on with what it has
in memory.  While the file only cannot be written just now (a full disk, a lock) the events wait, within bounds.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Final

from smtpproxy.store.copies import Copies
from smtpproxy.store.memory import MemoryStore
from smtpproxy.store.sqlitefile import SqliteFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from smtpproxy.store.record import Key, Record
    from smtpproxy.store.rules import Event, Rules

__all__ = ["SqliteStore"]

_PAUSE: Final = 1.0  # seconds between two tries to write
_READ_PATIENCE: Final = 0.05  # seconds that the caller's thread may wait for a lock; readers hardly ever do
_WRITE_PATIENCE: Final = 5.0
_LAST_WORDS: Final = 6.0  # seconds to write in when it is closed
_SLACK: Final = 100  # a part of this of the most records may be new before the rest is counted


class SqliteStore:
    """See ``Store`` for the methods."""

    def __init__(
        self, path: Path, report: Callable[[str], None], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Open nothing yet.

        ``report`` gets a line for the log when something goes wrong with the file, and when it is well again; it is
        called in any thread.  ``monotonic`` gives seconds, for the age of copies.
        """
        self._path = path
        self._report = report
        self._monotonic = monotonic
        self._copies = Copies()
        self._reader: SqliteFile | None = None
        self._memory: MemoryStore | None = None  # instead of the file, once that is given up
        self._ruined = False
        self._new = 0  # records since they were last counted
        self._thread: threading.Thread | None = None

    def begin(self, rules: Rules, entries: int, clock: Callable[[], float]) -> None:
        """See ``Store``; opens the file and starts the thread, and reports a file that cannot be used."""
        self._rules = rules
        self._entries = entries
        self._clock = clock
        if self._memory is not None:
            self._memory.begin(rules, entries, clock)
        if self._thread is not None or self._ruined:
            return
        try:
            writer = SqliteFile(self._path, patience=_WRITE_PATIENCE)
            self._reader = SqliteFile(self._path, patience=_READ_PATIENCE)
            self._trim(writer)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
            return
        self._thread = threading.Thread(target=self._write, args=(writer,), name="ehlo-cache", daemon=True)
        self._thread.start()

    def find(self, key: Key, found: Callable[[Record | None], None]) -> None:
        """See ``Store``; the answer comes at once."""
        memory = self._instead()
        if memory is not None:
            memory.find(key, found)
            return
        now = self._monotonic()
        fresh, record = self._copies.known(key, now)
        if not fresh and self._reader is not None:
            try:
                batches = self._copies.batches
                record = self._copies.read(key, self._reader.get(key), now, self._rules, batches=batches)
            except sqlite3.Error as error:
                if not isinstance(error, sqlite3.OperationalError):
                    self._give_up(error)
        found(record)

    def update(self, key: Key, event: Event) -> None:
        """See ``Store``."""
        memory = self._instead()
        if memory is not None:
            memory.update(key, event)
        else:
            self._copies.happened(key, event, self._rules)

    def all(self, found: Callable[[list[tuple[Key, Record]] | None], None]) -> None:
        """See ``Store``; the answer comes at once, and has what was written."""
        memory = self._instead()
        if memory is not None:
            memory.all(found)
            return
        try:
            records = None if self._reader is None else self._reader.all(self._clock())
        except sqlite3.Error:
            records = None
        found(records)

    def forget(self, keys: Iterable[Key] | None, done: Callable[[bool], None]) -> None:
        """See ``Store``; it is done at once."""
        memory = self._instead()
        if memory is not None:
            memory.forget(keys, done)
            return
        wanted = None if keys is None else list(keys)
        self._copies.forget(wanted)
        fine = self._reader is not None
        try:
            if self._reader is not None:
                self._reader.forget(wanted)
        except sqlite3.Error:
            fine = False
        done(fine)

    def settle(self, patience: float) -> bool:
        """Wait until everything that happened is in the file; False if it is not after ``patience`` seconds."""
        return self._copies.settle(patience)

    def close(self) -> None:
        """See ``Store``; waits a few seconds for what is not written yet."""
        self._copies.close()
        if self._thread is not None:
            self._thread.join(_LAST_WORDS)
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._copies = Copies()
        self._copies.close()
        if self._memory is not None:
            self._memory.close()

    def _instead(self) -> MemoryStore | None:
        """The store in memory that takes the place of a file that was given up."""
        if self._ruined and self._memory is None:
            self._memory = MemoryStore()
            self._memory.begin(self._rules, self._entries, self._clock)
            for key, record in self._copies.items():
                self._memory.keep(key, record)
        return self._memory

    def _give_up(self, error: Exception) -> None:
        """In any thread."""
        if not self._ruined:
            self._ruined = True
            self._report(f"{self._path}: {_reason(error)}; the EHLO cache is kept in memory only")

    def _write(self, file: SqliteFile) -> None:
        """What the thread does."""
        failing = False
        try:
            while changes := self._copies.batch():
                try:
                    self._write_batch(file, changes)
                except sqlite3.OperationalError as error:
                    if not failing:
                        self._report(f"{self._path}: {error}; the EHLO cache waits to be written")
                    failing = True
                    if self._copies.pause(_PAUSE):
                        return
                else:
                    if failing:
                        self._report(f"{self._path}: the EHLO cache is written again")
                    failing = False
        except Exception as error:  # noqa: BLE001  (whatever it is, the service goes on without the file)
            self._give_up(error)
        finally:
            file.close()

    def _write_batch(self, file: SqliteFile, changes: Mapping[Key, Sequence[Event]]) -> None:
        outcome, new = file.apply(changes, self._rules)
        self._copies.written(outcome, self._monotonic(), self._rules)
        self._new += new
        if self._new > self._entries // _SLACK:
            self._trim(file)

    def _trim(self, file: SqliteFile) -> None:
        file.trim(self._entries, self._clock())
        self._new = 0


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
