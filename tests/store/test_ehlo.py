"""When a remembered EHLO reply may be used (C1 to C6), with the simplest store."""

from __future__ import annotations

import pytest

from smtpproxy.store.ehlo import EhloCache
from smtpproxy.store.memory import MemoryStore

from .remotes import CHANGED, DAY, HOUR, KEY, LINES, MINUTE, OTHER, UnixClock, found, made, may_be_early


@pytest.fixture
def clock() -> UnixClock:
    return UnixClock()


@pytest.fixture
def cache(clock: UnixClock) -> EhloCache:
    return made(MemoryStore(), clock)


def flap(cache: EhloCache, confirmations: int = 0) -> None:
    """The remote is learned, confirmed and flushed."""
    cache.learned(KEY, LINES)
    for _ in range(confirmations):
        cache.confirmed(KEY)
    cache.flush(KEY, hold_back=False)


def test_c1_nothing_is_known_at_first(cache: EhloCache) -> None:
    assert found(cache) is None


def test_c1_a_reply_is_remembered_word_for_word(cache: EhloCache, clock: UnixClock) -> None:
    cache.learned(KEY, LINES)
    learned = clock.now
    clock.advance(MINUTE)
    cache.confirmed(KEY)
    cache.confirmed(KEY, LINES)
    entry = found(cache)
    assert entry is not None
    assert (entry.lines, entry.learned, entry.confirmed, entry.early) == (LINES, learned, 2, True)


def test_c1_everything_in_the_key_makes_a_difference(cache: EhloCache) -> None:
    cache.learned(KEY, LINES)
    for other in (KEY._replace(port=587), KEY._replace(tls=True), KEY._replace(ehlo="other.example.org"), OTHER):
        assert found(cache, other) is None


def test_c1_a_remote_that_offers_nothing_is_remembered_too(cache: EhloCache) -> None:
    cache.learned(KEY, ())
    entry = found(cache)
    assert entry is not None
    assert entry.lines == ()


def test_c3_another_reply_begins_anew(cache: EhloCache, clock: UnixClock) -> None:
    cache.learned(KEY, LINES)
    cache.confirmed(KEY)
    clock.advance(MINUTE)
    cache.learned(KEY, CHANGED)
    entry = found(cache)
    assert entry is not None
    assert (entry.lines, entry.learned, entry.confirmed, entry.early) == (CHANGED, clock.now, 0, True)


def test_c3_a_reply_cannot_confirm_what_another_process_has_learned_since(cache: EhloCache) -> None:
    cache.learned(KEY, LINES)
    cache.learned(KEY, CHANGED)
    cache.confirmed(KEY, LINES)
    entry = found(cache)
    assert entry is not None
    assert (entry.lines, entry.confirmed) == (LINES, 0)


def test_c3_what_is_not_known_cannot_be_confirmed(cache: EhloCache) -> None:
    cache.confirmed(KEY)
    assert found(cache) is None
    cache.confirmed(KEY, LINES)
    assert may_be_early(cache)


def test_c4_a_flush_keeps_the_lines_but_they_are_not_used_early(cache: EhloCache) -> None:
    cache.learned(KEY, LINES)
    cache.confirmed(KEY)
    cache.flush(KEY, hold_back=False)
    entry = found(cache)
    assert entry is not None
    assert (entry.lines, entry.confirmed, entry.early) == (LINES, 0, False)


@pytest.mark.parametrize("same", [True, False])
def test_c4_the_next_live_reply_is_a_beginning(cache: EhloCache, clock: UnixClock, *, same: bool) -> None:
    cache.learned(KEY, LINES)
    cache.confirmed(KEY)
    cache.flush(KEY, hold_back=False)
    clock.advance(MINUTE)
    if same:
        cache.confirmed(KEY)
    else:
        cache.learned(KEY, LINES)
    entry = found(cache)
    assert entry is not None
    assert (entry.learned, entry.confirmed, entry.early) == (clock.now, 0, True)


def test_c4_a_flush_of_what_is_not_known_is_nothing(cache: EhloCache) -> None:
    cache.flush(KEY, hold_back=False)
    assert found(cache) is None
    cache.learned(KEY, LINES)
    assert may_be_early(cache)


def test_c4_a_flush_takes_the_right_from_its_own_key_only(cache: EhloCache) -> None:
    cache.learned(KEY, LINES)
    cache.learned(OTHER, LINES)
    cache.flush(KEY, hold_back=True)
    assert may_be_early(cache, OTHER)


def test_c5_an_entry_ends_its_time_after_it_was_last_seen(cache: EhloCache, clock: UnixClock) -> None:
    cache.learned(KEY, LINES)
    clock.advance(DAY - 1)
    assert may_be_early(cache)
    cache.confirmed(KEY)
    clock.advance(DAY - 1)
    assert may_be_early(cache)
    clock.advance(1)
    assert found(cache) is None


def test_c5_the_least_recently_used_goes(clock: UnixClock) -> None:
    cache = made(MemoryStore(), clock, entries=3)
    keys = [KEY._replace(port=port) for port in range(4)]
    for key in keys[:3]:
        cache.learned(key, LINES)
    assert found(cache, keys[0])
    cache.confirmed(keys[1])
    cache.learned(keys[3], LINES)
    assert [found(cache, key) is not None for key in keys] == [True, True, False, True]


def test_c6_held_back_for_its_time_however_often_it_is_seen(cache: EhloCache, clock: UnixClock) -> None:
    cache.learned(KEY, LINES)
    cache.flush(KEY, hold_back=True)
    for _ in range(59):
        clock.advance(MINUTE)
        cache.confirmed(KEY)
        assert not may_be_early(cache)
    clock.advance(MINUTE)
    entry = found(cache)
    assert entry is not None
    assert entry.early
    assert entry.confirmed == 58


def test_c6_held_back_though_nothing_was_known_of_it(cache: EhloCache, clock: UnixClock) -> None:
    cache.flush(KEY, hold_back=True)
    assert found(cache) is None
    cache.learned(KEY, LINES)
    assert not may_be_early(cache)
    clock.advance(HOUR)
    assert may_be_early(cache)


def held_for(cache: EhloCache, clock: UnixClock) -> float:
    """Hours until early flights are allowed again; the clock stands there afterwards."""
    hours = 0
    while not may_be_early(cache):
        clock.advance(HOUR)
        cache.confirmed(KEY)
        hours += 1
    return hours


def test_c6_each_time_in_a_row_doubles_to_the_most(cache: EhloCache, clock: UnixClock) -> None:
    cache.learned(KEY, LINES)
    hours = []
    for _ in range(7):
        cache.flush(KEY, hold_back=True)
        hours.append(held_for(cache, clock))
    assert hours == [1, 2, 4, 8, 16, 24, 24]


def test_c6_is_forgotten_after_a_time_without_trouble(cache: EhloCache, clock: UnixClock) -> None:
    cache.learned(KEY, LINES)
    for _ in range(3):
        cache.flush(KEY, hold_back=True)
        held_for(cache, clock)
    clock.advance(DAY - HOUR)
    cache.confirmed(KEY)
    cache.flush(KEY, hold_back=True)
    assert held_for(cache, clock) == 8, "a day is not over"
    clock.advance(DAY)
    cache.learned(KEY, LINES)
    cache.flush(KEY, hold_back=True)
    assert held_for(cache, clock) == 1


def test_c6_sessions_that_fail_together_are_one_trouble(cache: EhloCache, clock: UnixClock) -> None:
    cache.learned(KEY, LINES)
    for _ in range(10):
        cache.flush(KEY, hold_back=True)
        clock.advance(1)
    cache.confirmed(KEY)
    clock.advance(HOUR - 10)
    assert may_be_early(cache)


def test_c6_zero_holds_nothing_back(clock: UnixClock) -> None:
    cache = made(MemoryStore(), clock, hold_back=0.0)
    for _ in range(10):
        cache.learned(KEY, LINES)
        assert may_be_early(cache)
        cache.flush(KEY, hold_back=True)
        assert not may_be_early(cache)
        flap(cache)


def test_a_farm_behind_one_address_ends_up_polite(cache: EhloCache, clock: UnixClock) -> None:
    flap(cache)
    clock.advance(MINUTE)
    flap(cache, confirmations=1)
    clock.advance(MINUTE)
    cache.learned(KEY, CHANGED)
    assert may_be_early(cache), "two are harmless"
    cache.flush(KEY, hold_back=False)
    cache.learned(KEY, LINES)
    assert not may_be_early(cache)
    clock.advance(HOUR)
    assert may_be_early(cache)
    flap(cache)
    flap(cache)
    cache.learned(KEY, LINES)
    assert may_be_early(cache), "it is counted anew"
    flap(cache)
    cache.learned(KEY, LINES)
    assert held_for(cache, clock) == 2


def test_a_lone_flush_is_harmless_where_the_entry_had_proven_itself(cache: EhloCache) -> None:
    for _ in range(20):
        flap(cache, confirmations=4)
    cache.learned(KEY, LINES)
    assert may_be_early(cache)


def test_flushes_far_between_are_harmless(cache: EhloCache, clock: UnixClock) -> None:
    for _ in range(10):
        flap(cache)
        clock.advance(DAY)
    cache.learned(KEY, LINES)
    assert may_be_early(cache)


def test_flushes_are_counted_though_the_lines_have_expired(cache: EhloCache, clock: UnixClock) -> None:
    cache.learned(KEY, LINES)
    clock.advance(23 * HOUR)
    cache.flush(KEY, hold_back=False)
    clock.advance(HOUR)
    assert found(cache) is None
    flap(cache)
    flap(cache)
    cache.learned(KEY, LINES)
    assert not may_be_early(cache)


def test_sessions_that_are_refused_together_are_one_flap(cache: EhloCache) -> None:
    cache.learned(KEY, LINES)
    for _ in range(10):
        cache.flush(KEY, hold_back=False)
    cache.learned(KEY, LINES)
    assert may_be_early(cache)


@pytest.mark.parametrize(
    "absurd",
    [
        (b"PIPELINING", b"X" * 1001),
        (b"X",) * 201,
        (b"X" * 1000,) * 17,
        (b"PIPELINING\r\nPIPECONNECT",),
        (b"SIZE\x1b[2J",),
    ],
)
def test_h8_an_absurd_reply_is_not_remembered(cache: EhloCache, absurd: tuple[bytes, ...]) -> None:
    cache.learned(KEY, absurd)
    assert found(cache) is None
    cache.learned(KEY, LINES)
    cache.learned(KEY, absurd)
    entry = found(cache)
    assert entry is not None
    assert (entry.lines, entry.early) == (LINES, False)


def test_a_clock_that_was_wrong_keeps_nobody_back_for_long(cache: EhloCache, clock: UnixClock) -> None:
    clock.advance(1000 * DAY)
    cache.learned(KEY, LINES)
    cache.flush(KEY, hold_back=True)
    clock.advance(-1000 * DAY)
    assert found(cache) is None
    cache.learned(KEY, LINES)
    assert may_be_early(cache)


def test_what_is_forgotten_is_learned_from_nothing(cache: EhloCache) -> None:
    cache.learned(KEY, LINES)
    cache.learned(OTHER, LINES)
    cache.flush(KEY, hold_back=True)
    done: list[bool] = []
    cache.forget([KEY], done.append)
    assert found(cache) is None
    assert found(cache, OTHER)
    cache.learned(KEY, LINES)
    assert may_be_early(cache)
    cache.forget(None, done.append)
    assert found(cache, OTHER) is None
    assert done == [True, True]


def test_everything_can_be_listed_the_last_used_at_the_end(cache: EhloCache, clock: UnixClock) -> None:
    cache.learned(OTHER, LINES)
    clock.advance(DAY)
    cache.learned(KEY, LINES)
    cache.learned(KEY._replace(tls=True), LINES)
    cache.confirmed(KEY)
    listed: list[object] = []
    cache.all(lambda records: listed.extend(key for key, _ in records or []))
    assert listed == [OTHER, KEY._replace(tls=True), KEY]
    clock.advance(1)
    listed.clear()
    cache.all(lambda records: listed.extend(key for key, _ in records or []))
    assert OTHER not in listed


def test_a_closed_cache_finds_nothing(cache: EhloCache) -> None:
    cache.learned(KEY, LINES)
    cache.close()
    assert found(cache) is None
