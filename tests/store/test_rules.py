"""Events that wait to be written: few, and to the same effect."""

from __future__ import annotations

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.store.record import Record
from smtpproxy.store.rules import Event, Kind, Rules, added

from .remotes import CHANGED, HOUR, LINES

NOW = 1_800_000_000.0
RULES = Rules()
KINDS = st.sampled_from([Kind.LEARNED, Kind.CONFIRMED, Kind.CONFIRMED, Kind.FLUSHED, Kind.REFUSED, Kind.HELD])
HAPPENINGS = st.lists(st.tuples(KINDS, st.sampled_from([None, LINES, CHANGED])), max_size=30)


def events(happenings: list[tuple[Kind, tuple[bytes, ...] | None]]) -> list[Event]:
    """As a cache tells them, a second after the other."""
    told = []
    for number, (kind, lines) in enumerate(happenings):
        if kind is Kind.LEARNED:
            given_lines: tuple[bytes, ...] | None = lines or LINES
        else:
            given_lines = lines if kind is Kind.CONFIRMED else None
        told.append(Event(kind, NOW + number, given_lines))
    return told


def _after_three(kind: Kind) -> Record:
    """A record that was learned and then met with this, three times in a row."""
    record: Record | None = None
    for second in range(3):
        record = RULES.after(record, Event(Kind.LEARNED, NOW + 2 * second, LINES))
        record = RULES.after(record, Event(kind, NOW + 2 * second + 1))
    assert record is not None
    return record


def test_c4_ordinary_refusals_flush_but_are_no_flaps() -> None:
    now = NOW + 6
    flapping, refused = _after_three(Kind.FLUSHED), _after_three(Kind.REFUSED)
    assert RULES.is_held(flapping, now)
    assert not RULES.is_held(refused, now)
    assert not refused.usable
    learned = RULES.after(refused, Event(Kind.LEARNED, now, LINES))
    entry = RULES.entry(learned, now)
    assert entry is not None
    assert entry.early


def test_confirmations_are_two_events() -> None:
    waiting: list[Event] = []
    for second in range(1000):
        added(waiting, Event(Kind.CONFIRMED, NOW + second))
    assert [(event.times, event.at) for event in waiting] == [(1, NOW), (999, NOW + 999)]


def test_a_reply_supersedes_those_before_it_but_no_flush() -> None:
    waiting: list[Event] = []
    for event in events([(Kind.FLUSHED, None), (Kind.LEARNED, LINES), (Kind.CONFIRMED, None), (Kind.LEARNED, CHANGED)]):
        added(waiting, event)
    assert [(event.kind, event.lines) for event in waiting] == [(Kind.FLUSHED, None), (Kind.LEARNED, CHANGED)]


def test_whatever_happens_only_so_much_waits() -> None:
    waiting: list[Event] = []
    for event in events([(Kind.LEARNED, LINES), (Kind.HELD, None)] * 1000):
        added(waiting, event)
    assert len(waiting) == 50
    assert waiting[-1].kind is Kind.HELD


@given(HAPPENINGS)
def test_what_waits_has_the_effect_of_all_that_happened(
    happenings: list[tuple[Kind, tuple[bytes, ...] | None]],
) -> None:
    known = Record(LINES, NOW - HOUR, 2, NOW - HOUR, usable=True)
    waiting: list[Event] = []
    told = events(happenings)
    for event in told:
        added(waiting, event)
    one_by_one = reduce(RULES.after, told, known)
    at_once = reduce(RULES.after, waiting, known)
    assert one_by_one is not None
    assert at_once is not None
    now = NOW + len(told)
    assert RULES.entry(at_once, now) == RULES.entry(one_by_one, now)
    assert RULES.is_held(at_once, now) == RULES.is_held(one_by_one, now)
