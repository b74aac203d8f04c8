"""One coarse timer for everything that waits.

A timer of its own for each wait would cost more than the waiting.  Instead every session is looked at in turn, a few
times within the shortest time-out there is, and judges by itself whether it has made progress since.  So the hot path
never touches a timer, and a time-out is kept to within one round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BUCKETS: Final = 10
_SHORTEST_ROUND: Final = 0.2
_LONGEST_ROUND: Final = 5.0
_ROUNDS_IN_A_TIMEOUT: Final = 4
_log: Final = Logger()


class Swept(Protocol):
    """Something that is looked at once a round."""

    __slots__ = ()

    def sweep(self, now: float) -> None:
        """Act on whatever has waited too long; ``now`` in seconds of a monotonic clock."""


class Holding(Protocol):
    """Something that holds replies back for the rest of their group."""

    __slots__ = ()

    def stop_holding(self) -> None:
        """Write what is held."""


class Sweep:
    """Visits everything that was added, once a round of ``round`` seconds, a tenth of it at each step."""

    def __init__(self, clock: Any, shortest_timeout: float, now: Callable[[], float] | None = None) -> None:
        """``clock`` is an IReactorTime; the round follows from the shortest time-out in seconds.

        ``now`` gives the time that sessions go by, if it is another one than the clock's.
        """
        self._now: Callable[[], float] = now or clock.seconds
        self.round = min(max(shortest_timeout / _ROUNDS_IN_A_TIMEOUT, _SHORTEST_ROUND), _LONGEST_ROUND)
        self._buckets: list[set[Swept]] = [set() for _ in range(_BUCKETS)]
        self._next = 0
        self._holding: list[Holding] = []
        self._call = LoopingCall(self._step)
        self._call.clock = clock

    def start(self) -> None:
        """Begin to visit."""
        self._call.start(self.round / _BUCKETS, now=False)

    def stop(self) -> None:
        """Visit no more."""
        if self._call.running:
            self._call.stop()

    def add(self, swept: Swept, key: int) -> None:
        """Visit this from now on; ``key`` spreads the load."""
        self._buckets[key % _BUCKETS].add(swept)

    def discard(self, swept: Swept, key: int) -> None:
        """Visit this no more."""
        self._buckets[key % _BUCKETS].discard(swept)

    def hold(self, holding: Holding) -> None:
        """Call ``stop_holding`` at the next step but one at the latest (rule S4)."""
        self._holding.append(holding)

    def __iter__(self) -> Iterator[Swept]:
        for bucket in self._buckets:
            yield from list(bucket)

    def _step(self) -> None:
        holding, self._holding = self._holding, []
        for held in holding:
            self._safely(held.stop_holding)
        bucket = self._buckets[self._next]
        self._next = (self._next + 1) % _BUCKETS
        now = self._now()
        for swept in list(bucket):
            self._safely(swept.sweep, now)

    def _safely(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception:
            _log.failure("a visit failed")
