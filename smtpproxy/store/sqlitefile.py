"""The SQLite file of the EHLO cache: opened and checked, read, and written in transactions.

Everything here blocks and raises ``sqlite3.Error``: OperationalError where another try later may help (a full disk, the
lock of another), any other where the file is of no use.  WAL and ``synchronous=NORMAL``: what was committed survives
however the process ends; the last moments may be missing where the machine itself went down.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from smtpproxy.store.record import Key, Record, dumped, loaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from smtpproxy.store.rules import Event, Rules

__all__ = ["SqliteFile", "StrangeFileError"]

_SCHEMA: Final = 1  # the file's user_version
_MODE: Final = 0o600
_TRIES: Final = 100  # with a pause between them, for what others hold for milliseconds
_PAUSE: Final = 0.02  # seconds
_TABLE: Final = """
    CREATE TABLE ehlo (
        address TEXT NOT NULL, port INTEGER NOT NULL, tls INTEGER NOT NULL, name TEXT NOT NULL,
        used REAL NOT NULL, expires REAL NOT NULL, record TEXT NOT NULL,
        PRIMARY KEY (address, port, tls, name)
    ) WITHOUT ROWID
"""
_CREATE: Final = (_TABLE, "CREATE INDEX ehlo_used ON ehlo (used)", f"PRAGMA user_version = {_SCHEMA}")
_GET: Final = "SELECT record FROM ehlo WHERE address = ? AND port = ? AND tls = ? AND name = ?"
_PUT: Final = "REPLACE INTO ehlo (address, port, tls, name, used, expires, record) VALUES (?, ?, ?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM ehlo WHERE address = ? AND port = ? AND tls = ? AND name = ?"
_ALL: Final = "SELECT address, port, tls, name, record FROM ehlo WHERE expires >= ? ORDER BY used"
_DELETE_OLDEST: Final = """
    DELETE FROM ehlo WHERE (address, port, tls, name) IN
        (SELECT address, port, tls, name FROM ehlo ORDER BY used LIMIT ?)
"""


class StrangeFileError(sqlite3.DatabaseError):
    """A database that is not ours, or that of a later version."""


def _make_sure(path: Path, *, create: bool) -> None:
    """See that the file is there, or make it. Raises OSError.

    One that is there is not opened: closing any descriptor of it would drop all locks that this process has on it.
    """
    try:
        path.stat()
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except FileNotFoundError:
        if not create:
            raise
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, _MODE))


class SqliteFile:
    """One connection with the file; used by one thread at a time."""

    def __init__(self, path: Path, *, create: bool = True, patience: float) -> None:
        """Open the file; made if it is not there (never its folder), readable for its owner alone.

        ``patience``: seconds to wait for the lock of another.  Without ``create`` there is FileNotFoundError.  Raises
        OSError, StrangeFileError, sqlite3.Error.
        """
        _make_sure(path, create=create)
        self._connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
        self._connection.text_factory = _text
        try:
            self._use_wal()
            self._connection.execute("PRAGMA synchronous = NORMAL").fetchall()
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def get(self, key: Key) -> Record | None:
        """Give what is stored under a key: one look-up in the index."""
        # All rows are fetched, though there is one at most: an unfinished statement would hold on to this moment.
        rows = self._connection.execute(_GET, key).fetchall()
        return loaded(rows[0][0]) if rows else None

    def all(self, now: float) -> list[tuple[Key, Record]]:
        """Give what has not expired at the Unix time ``now``, those used last at the end."""
        found = []
        for address, port, tls, name, text in self._connection.execute(_ALL, (now,)).fetchall():
            record = loaded(text)
            if record is not None:
                found.append((Key(address, port, bool(tls), name), record))
        return found

    def apply(self, changes: Mapping[Key, Sequence[Event]], rules: Rules) -> tuple[dict[Key, Record | None], int]:
        """Apply events to what is stored by now, in one transaction.

        Gives what the records have become, and how many are new.
        """
        outcome: dict[Key, Record | None] = {}
        new = 0
        with self._transaction():
            for key, events in changes.items():
                before = record = self.get(key)
                for event in events:
                    record = rules.after(record, event)
                outcome[key] = record
                if record is not None:
                    new += before is None
                    row = (*key, events[-1].at, rules.kept_until(record), dumped(record))
                    self._connection.execute(_PUT, row)
        return outcome, new

    def trim(self, entries: int, now: float) -> None:
        """Delete what has expired, and the least recently used of what is more than ``entries`` (rule C5)."""
        with self._transaction():
            self._connection.execute("DELETE FROM ehlo WHERE expires < ?", (now,))
            [(count,)] = self._connection.execute("SELECT count(*) FROM ehlo").fetchall()
            if count > entries:
                self._connection.execute(_DELETE_OLDEST, (count - entries,))

    def forget(self, keys: Iterable[Key] | None) -> None:
        """Delete some records; all of them for None."""
        with self._transaction():
            if keys is None:
                self._connection.execute("DELETE FROM ehlo")
            else:
                self._connection.executemany(_DELETE, keys)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _use_wal(self) -> None:
        """Several processes may make the file at once; SQLite does not wait for the lock by itself then."""
        for left in range(_TRIES, -1, -1):
            try:
                self._connection.execute("PRAGMA journal_mode = WAL").fetchall()
            except sqlite3.OperationalError as error:
                if left == 0 or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def _prepare(self) -> None:
        if self._version() == _SCHEMA:
            return
        with self._transaction():
            version = self._version()  # another process may have been faster
            if version == _SCHEMA:
                return
            if version > _SCHEMA:
                raise StrangeFileError(f"it was made by a later version of smtpproxy (schema {version})")
            if self._connection.execute("SELECT name FROM sqlite_schema").fetchall():
                raise StrangeFileError("it is a database of something else")
            for statement in _CREATE:
                self._connection.execute(statement)

    def _version(self) -> int:
        [(version,)] = self._connection.execute("PRAGMA user_version").fetchall()
        return int(version)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.rollback()
            raise


def _text(stored: bytes) -> str:
    """What is no UTF-8 was not written by us; it must not be mistaken for a busy file."""
    return stored.decode("utf-8", "replace")
