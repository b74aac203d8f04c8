"""What this process knows of the records in a shared file, and the events that are still to be written to it.

Used by two threads: the one that asks, and the one that writes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from smtpproxy.store.rules import added

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smtpproxy.store.record import Key, Record
    from smtpproxy.store.rules import Event, Rules

__all__ = ["Copies"]

_BELIEVED: Final = 0.5  # seconds for which a copy is as good as the file
_MOST_COPIES: Final = 10_000
_MOST_WAITING: Final = 5_000  # keys with events that are not written yet
_LINGER: Final = 0.1  # seconds in which a batch gathers
_BATCH: Final = 500  # keys in one batch


class _Copy:
    """What is known here of one record."""

    __slots__ = ("batch", "checked", "record", "waiting", "writing")

    def __init__(self) -> None:
        self.record: Record | None = None  # with all events applied
        self.checked = float("-inf")  # when it was read from the file or written to it
        self.batch = 0  # the last one that had it
        self.writing: list[Event] = []  # in the writer's hands
        self.waiting: list[Event] = []  # to be written after those


class Copies:
    """Copies of records, those used last at the end, and what happened to them since."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # around everything below
        self._copies: OrderedDict[Key, _Copy] = OrderedDict()
        self._queue: OrderedDict[Key, None] = OrderedDict()  # keys with events that wait
        self._writing: list[Key] = []
        self._closed = False
        self.batches = 0
        """How many batches have been written."""

    def known(self, key: Key, now: float) -> tuple[bool, Record | None]:
        """Say whether a copy is young enough to be believed at ``now`` (seconds, monotonic), and give it."""
        with self._changed:
            copy = self._copies.get(key)
            if copy is None:
                return False, None
            self._copies.move_to_end(key)
            return now - copy.checked < _BELIEVED, copy.record

    def read(self, key: Key, record: Record | None, now: float, rules: Rules, *, batches: int) -> Record | None:
        """Take what the file says at ``now``; give it with the events that are not in the file yet.

        ``batches``: the value of that attribute before the file was asked.  Where the record was written since, the
        answer may be from before that, and what is known here is newer.  An event that has just been written may be
        applied twice; that makes a count too high by one, no more.
        """
        with self._changed:
            copy = self._copies.get(key)
            if copy is not None and copy.batch > batches:
                return copy.record
            if copy is None:
                if record is None:
                    return None
                copy = self._add(key)
            copy.record = _applied(record, [*copy.writing, *copy.waiting], rules)
            copy.checked = now
            return copy.record

    def happened(self, key: Key, event: Event, rules: Rules) -> None:
        """Apply an event to the copy, and keep it for the writer.

        Where more waits than may, as the file cannot be written for long, the file never learns of the oldest.
        """
        with self._changed:
            if self._closed:
                return
            copy = self._copies.get(key) or self._add(key)
            self._copies.move_to_end(key)
            copy.record = rules.after(copy.record, event)
            added(copy.waiting, event)
            before = len(self._queue)
            self._queue[key] = None
            if len(self._queue) > _MOST_WAITING:
                oldest, _ = self._queue.popitem(last=False)
                self._copies[oldest].waiting.clear()
            if before in {0, _BATCH - 1}:
                # Not for each event: the writer would only wake up to go on gathering.
                self._changed.notify_all()

    def batch(self) -> dict[Key, list[Event]]:
        """Wait for events; give some, by key.  Empty when all is written and nothing more will come.

        The same events are given again until they are ``written``.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._queue or self._writing)
            self._changed.wait_for(lambda: self._closed or len(self._queue) >= _BATCH, _LINGER)
            while self._queue and len(self._writing) < _BATCH:
                key, _ = self._queue.popitem(last=False)
                copy = self._copies[key]
                if not copy.writing:
                    self._writing.append(key)
                for event in copy.waiting:
                    added(copy.writing, event)
                copy.waiting = []
            return {key: list(self._copies[key].writing) for key in self._writing}

    def written(self, outcome: Mapping[Key, Record | None], now: float, rules: Rules) -> None:
        """Take what the records of the last batch have become in the file."""
        with self._changed:
            self.batches += 1
            for key, record in outcome.items():
                copy = self._copies.get(key)
                if copy is not None:
                    copy.writing = []
                    copy.record = _applied(record, copy.waiting, rules)
                    copy.checked = now
                    copy.batch = self.batches
            self._writing = []
            self._changed.notify_all()

    def forget(self, keys: list[Key] | None) -> None:
        """Drop copies, and what waits for them; all for None.  What the writer has in its hands is written."""
        with self._changed:
            for key in list(self._copies) if keys is None else keys:
                self._queue.pop(key, None)
                copy = self._copies.get(key)
                if copy is not None:
                    copy.record, copy.checked, copy.waiting = None, float("-inf"), []

    def items(self) -> list[tuple[Key, Record]]:
        """Give all that is known here."""
        with self._changed:
            return [(key, copy.record) for key, copy in self._copies.items() if copy.record is not None]

    def settle(self, patience: float) -> bool:
        """Wait until everything is written; False if it is not after ``patience`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._writing, patience)

    def close(self) -> None:
        """Take no more events; the writer writes what there is."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def pause(self, seconds: float) -> bool:
        """Wait, unless it is closed; say whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, seconds)

    def _add(self, key: Key) -> _Copy:
        copy = self._copies[key] = _Copy()
        if len(self._copies) > _MOST_COPIES:
            for other, old in self._copies.items():
                if other != key and not old.waiting and not old.writing:
                    del self._copies[other]
                    break
        return copy


def _applied(record: Record | None, events: list[Event], rules: Rules) -> Record | None:
    for event in events:
        record = rules.after(record, event)
    return record
