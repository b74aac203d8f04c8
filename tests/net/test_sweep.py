"""One coarse timer for everything that waits."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from smtpproxy.net.sweep import Sweep


class Visited:
    """Notes when it is looked at."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def sweep(self, now: float) -> None:
        self.times.append(now)


class Held:
    """Notes when it is told to write."""

    def __init__(self) -> None:
        self.count = 0

    def stop_holding(self) -> None:
        self.count += 1


def pass_rounds(clock: Clock, sweep: Sweep, rounds: int) -> None:
    for _ in range(rounds * 10):
        clock.advance(sweep.round / 10)


@pytest.mark.parametrize("key", [0, 1, 7, 10, 123_456_789])
def test_everything_is_visited_once_a_round(key: int) -> None:
    clock = Clock()
    sweep = Sweep(clock, 20.0)
    visited = Visited()
    sweep.add(visited, key)
    sweep.start()
    pass_rounds(clock, sweep, 4)
    assert len(visited.times) == 4
    gaps = {round(later - earlier, 6) for earlier, later in zip(visited.times, visited.times[1:], strict=False)}
    assert gaps == {round(sweep.round, 6)}
    sweep.discard(visited, key)
    pass_rounds(clock, sweep, 2)
    assert len(visited.times) == 4


@pytest.mark.parametrize("shortest", [0.001, 1.0, 5.0, 60.0, 86400.0])
def test_a_round_is_a_part_of_the_shortest_timeout_within_reason(shortest: float) -> None:
    sweep = Sweep(Clock(), shortest)
    assert 0.1 <= sweep.round <= 10.0
    assert sweep.round <= max(shortest / 2, 0.5)


def test_nothing_is_visited_before_the_start_and_after_the_end() -> None:
    clock = Clock()
    sweep = Sweep(clock, 20.0)
    visited = Visited()
    sweep.add(visited, 1)
    pass_rounds(clock, sweep, 2)
    assert visited.times == []
    sweep.start()
    pass_rounds(clock, sweep, 1)
    sweep.stop()
    sweep.stop()
    pass_rounds(clock, sweep, 2)
    assert len(visited.times) == 1
    assert clock.getDelayedCalls() == []


def test_the_load_is_spread() -> None:
    clock = Clock()
    sweep = Sweep(clock, 20.0)
    crowd = [Visited() for _ in range(100)]
    for number, visited in enumerate(crowd):
        sweep.add(visited, number)
    sweep.start()
    pass_rounds(clock, sweep, 1)
    moments = [visited.times[0] for visited in crowd]
    assert max(moments.count(moment) for moment in moments) <= 20
    assert sorted(map(id, sweep)) == sorted(map(id, crowd))


def test_the_time_can_be_another_clocks() -> None:
    clock = Clock()
    sweep = Sweep(clock, 20.0, lambda: 1234.5)
    visited = Visited()
    sweep.add(visited, 0)
    sweep.start()
    pass_rounds(clock, sweep, 1)
    assert visited.times == [1234.5]


def test_a_visit_may_add_and_discard() -> None:
    clock = Clock()
    sweep = Sweep(clock, 20.0)

    class Leaving(Visited):
        def sweep(self, now: float) -> None:
            super().sweep(now)
            sweep.discard(self, 1)
            sweep.add(arrived, 11)

    arrived, leaving, staying = Visited(), Leaving(), Visited()
    sweep.add(leaving, 1)
    sweep.add(staying, 1)
    sweep.start()
    pass_rounds(clock, sweep, 3)
    assert len(leaving.times) == 1
    assert len(staying.times) == 3
    assert len(arrived.times) == 2


def test_h10_a_visit_that_fails_is_logged_and_does_not_stop_the_others() -> None:
    clock = Clock()
    sweep = Sweep(clock, 20.0)
    events: list[object] = []
    globalLogPublisher.addObserver(events.append)

    class Failing:
        def sweep(self, now: float) -> None:
            raise RuntimeError(f"at {now}")

        def stop_holding(self) -> None:
            raise RuntimeError("held")

    try:
        visited, held = Visited(), Held()
        for swept in (Failing(), visited):
            sweep.add(swept, 1)
        sweep.hold(Failing())
        sweep.hold(held)
        sweep.start()
        pass_rounds(clock, sweep, 2)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert len(visited.times) == 2
    assert held.count == 1
    assert len(events) == 3


def test_s4_what_is_held_is_written_soon_and_once() -> None:
    clock = Clock()
    sweep = Sweep(clock, 20.0)
    sweep.start()
    held = Held()
    sweep.hold(held)
    assert held.count == 0
    for _ in range(2):
        clock.advance(sweep.round / 10)
    assert held.count == 1
    pass_rounds(clock, sweep, 2)
    assert held.count == 1
