"""When a remembered EHLO reply may be used, and when not: rules C1 to C6, as functions.

No store decides anything by itself.  It keeps records, and gets from here what becomes of one.

Trouble is remembered apart from the lines.  A flush takes from the lines the right to be used early, until a live
reply gives it back.  A flush with hold-back (C6) also shuts early flights out for a time, which doubles with each such
trouble that comes within ``hold_back_most`` after the last one was over; then it is forgotten.  A flush without
hold-back (C4) is harmless by itself.  But where it comes again and again, before the lines were confirmed a few times,
different servers stand behind one address, or nothing is to be gained: the third such flush holds back as well.

Several sessions may be under way when one of them fails.  So what takes nothing away any more does not count: a
hold-back within a hold-back, a flush of what is flushed.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Final, NamedTuple

from smtpproxy.store.record import Entry, Record

__all__ = ["Event", "Kind", "Rules", "added"]

_FLAPS: Final = 3  # flushes in quick succession that hold back
_PROVEN: Final = 4  # confirmations after which a flush is no flap, and the count begins anew
_LATE: Final = 60.0  # seconds by which an event may come after a later one, from another process
_MOST_DOUBLINGS: Final = 20  # beyond that a number is only big


class Kind(Enum):
    """What can happen to a record."""

    LEARNED = "learned"
    CONFIRMED = "confirmed"
    FLUSHED = "flushed"
    REFUSED = "flushed because of an ordinary refusal"
    HELD = "held"


class Event(NamedTuple):
    """One thing that happened."""

    kind: Kind
    at: float
    """Unix time."""
    lines: tuple[bytes, ...] | None = None
    """The live reply: with LEARNED always; with CONFIRMED if it is known, which then counts as LEARNED where it
    differs from what is remembered by now."""
    times: int = 1
    """How many confirmations it stands for."""


class Rules(NamedTuple):
    """The settings, in seconds, and what follows from them."""

    ttl: float = 24 * 3600.0
    """Lines are remembered so long after they were last learned or confirmed (C5)."""
    hold_back: float = 3600.0
    """The first hold-back (C6); 0: nothing is ever held back."""
    hold_back_most: float = 24 * 3600.0
    """The longest one, and for how long one is remembered after its end."""

    def entry(self, record: Record | None, now: float) -> Entry | None:
        """Give what a session may go by now; None where there is nothing, or it is too old."""
        if record is None or record.lines is None or self._is_old(record, now):
            return None
        early = record.usable and not self.is_held(record, now)
        return Entry(record.lines, record.learned, record.confirmed, early)

    def is_held(self, record: Record, now: float) -> bool:
        """Say whether early flights are shut out now.

        A hold-back that ends later than any could that begins now comes from a wrong clock or another setting.
        """
        return self.hold_back > 0 and now < record.held <= now + self._longest()

    def kept_until(self, record: Record) -> float:
        """Give the Unix time at which nothing of a record is of use any more."""
        return max(
            record.touched + self.ttl if record.lines is not None else 0.0,
            record.flushed + self.ttl if record.flaps else 0.0,
            record.held + self._longest() if record.holds else 0.0,
        )

    def after(self, record: Record | None, event: Event) -> Record | None:
        """Give what a record becomes by an event; None: there is nothing to remember."""
        if event.kind is Kind.LEARNED:
            return self._learned(record, event)
        if event.kind is Kind.CONFIRMED:
            return self._confirmed(record, event)
        return self._flushed(record, event)

    def _learned(self, record: Record | None, event: Event) -> Record | None:
        known = Record() if record is None else record
        if event.lines is None or _overtaken(event, max(known.flushed, known.touched)):
            return record
        return replace(known, lines=event.lines, learned=event.at, confirmed=0, touched=event.at, usable=True)

    def _confirmed(self, record: Record | None, event: Event) -> Record | None:
        if record is None or record.lines is None or self._is_old(record, event.at):
            return self._learned(record, event)
        if event.lines is not None and event.lines != record.lines:
            return self._learned(record, event)
        if _overtaken(event, record.flushed) or (event.lines is None and _overtaken(event, record.learned)):
            return record
        if not record.usable:  # flushed since: the first live reply is a beginning
            return replace(record, learned=event.at, confirmed=event.times - 1, touched=event.at, usable=True)
        return replace(record, confirmed=record.confirmed + event.times, touched=max(record.touched, event.at))

    def _flushed(self, record: Record | None, event: Event) -> Record | None:
        now, held = event.at, event.kind is Kind.HELD
        if record is None:
            if not held or self.hold_back <= 0:
                return None
            record = Record()
        counts = record.usable and not self._is_old(record, now)
        after = replace(record, usable=False, confirmed=0, flushed=max(now, record.flushed))
        if self.hold_back <= 0 or self.is_held(record, now):
            return after
        if not held:
            if not counts or event.kind is Kind.REFUSED:
                # That a recipient is refused says nothing about who stands behind the address.
                return after
            flaps = 0 if record.confirmed >= _PROVEN else self._flaps(record, now) + 1
            if flaps < _FLAPS:
                return replace(after, flaps=flaps)
        holds = self._holds(record, now) + 1
        return replace(after, flaps=0, holds=holds, held=now + self._length(holds))

    def _flaps(self, record: Record, now: float) -> int:
        return record.flaps if abs(now - record.flushed) < self.ttl else 0

    def _holds(self, record: Record, now: float) -> int:
        return record.holds if abs(now - record.held) < self._longest() else 0

    def _length(self, holds: int) -> float:
        return min(self.hold_back * 2.0 ** min(holds - 1, _MOST_DOUBLINGS), self._longest())

    def _longest(self) -> float:
        return max(self.hold_back, self.hold_back_most)

    def _is_old(self, record: Record, now: float) -> bool:
        """Whether it is too old; or too young, by a clock that was wrong."""
        return abs(now - record.touched) >= self.ttl


def added(events: list[Event], event: Event) -> None:
    """Append an event to those that wait to be written for one key; what it makes needless goes.

    A later reply supersedes an earlier one, so the list stays short however much happens.
    """
    # The first confirmation stays as it is: after a flush its time is that of a beginning.
    if len(events) > 1 and all(_same_confirmation(last, event) for last in events[-2:]):
        events[-1] = event._replace(times=events[-1].times + event.times)
        return
    if event.kind is Kind.LEARNED:
        while events and events[-1].kind in _REPLIES:
            events.pop()
    events.append(event)
    del events[:-_MOST_WAITING]


_REPLIES: Final = frozenset({Kind.LEARNED, Kind.CONFIRMED})
_MOST_WAITING: Final = 50  # events of one key


def _same_confirmation(one: Event, other: Event) -> bool:
    return one.kind is other.kind is Kind.CONFIRMED and one.lines == other.lines


def _overtaken(event: Event, since: float) -> bool:
    """Whether a reply was read before something that another process has written already."""
    return 0 < since - event.at < _LATE
