"""The EHLO cache: what remotes answered to EHLO, and whether that may be used before they answer again (C1 to C6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpproxy.store.memory import Store
from smtpproxy.store.record import Entry, Key, Record, acceptable
from smtpproxy.store.rules import Event, Kind, Rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["EhloCache", "Entry", "Key"]


class EhloCache:
    """Remembers the EHLO replies of remotes, with and without early pipelining, and the trouble that there was."""

    __slots__ = ("_clock", "_store", "rules")

    def __init__(
        self,
        store: Store,
        *,
        ttl: float = 24 * 3600.0,
        entries: int = 100_000,
        hold_back: float = 3600.0,
        hold_back_most: float = 24 * 3600.0,
        clock: Callable[[], float],
    ) -> None:
        """Take over a store that was not begun.

        ``ttl``, ``hold_back`` (0: never) and ``hold_back_most`` in seconds, see ``Rules``; ``entries``: how many
        remotes are remembered; ``clock`` gives Unix time in seconds.
        """
        self.rules = Rules(ttl, hold_back, hold_back_most)
        self._store = store
        self._clock = clock
        store.begin(self.rules, entries, clock)

    def find(self, key: Key, found: Callable[[Entry | None], None]) -> None:
        """Call ``found`` exactly once, in the reactor's thread, with what is known; None: nothing, be polite.

        At once with a store in memory or in a file; with Redis later, after a quarter of a second at most.
        """
        self._store.find(key, lambda record: found(self.rules.entry(record, self._clock())))

    def learned(self, key: Key, lines: tuple[bytes, ...]) -> None:
        """Remember a live EHLO reply that is new, or differs from the entry (C1, C3): confirmed 0 times.

        ``lines`` as in ``Entry``.  One that is too big or malformed is not remembered, and what was is flushed.
        """
        if acceptable(lines):
            self._store.update(key, Event(Kind.LEARNED, self._clock(), lines))
        else:
            self._store.update(key, Event(Kind.FLUSHED, self._clock()))

    def confirmed(self, key: Key, lines: tuple[bytes, ...] | None = None) -> None:
        """Note a live EHLO reply equal to the entry (C3): confirmed once more.

        With its ``lines`` it cannot confirm what another process has learned in the meantime.  After a flush it
        counts as learned: confirmed 0 times.
        """
        self._store.update(key, Event(Kind.CONFIRMED, self._clock(), lines))

    def flush(self, key: Key, *, hold_back: bool, refused: bool = False) -> None:
        """Take from an entry the right to be used early, until it is learned anew (C3, C4).

        With ``hold_back`` (C6), or if flushes come again and again, nothing is used early for a time.  ``refused``: a
        recipient or a message was refused, which happens to everybody, so that it does not count towards that.
        """
        kind = Kind.HELD if hold_back else Kind.REFUSED if refused else Kind.FLUSHED
        self._store.update(key, Event(kind, self._clock()))

    def all(self, found: Callable[[list[tuple[Key, Record]] | None], None]) -> None:
        """Call ``found`` once with every record, those used last at the end; None if the store cannot be read."""
        self._store.all(found)

    def forget(self, keys: Iterable[Key] | None, done: Callable[[bool], None]) -> None:
        """Forget some remotes, or all of them for None: the lines and the trouble.

        ``done`` is called once, with False if the store could not be written.
        """
        self._store.forget(keys, done)

    def close(self) -> None:
        """Write what is not written, and let go of everything; afterwards nothing is found."""
        self._store.close()
