"""Who was offered early pipelining, and when (rule S2)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_MOST: Final = 100_000


class Offers:
    """Remembers client networks for a time; the number is bounded, the oldest offer goes first."""

    def __init__(self, ttl: float, clock: Callable[[], float], most: int = _MOST) -> None:
        """``ttl`` in seconds of ``clock``; ``most`` entries are kept."""
        self._ttl = ttl
        self._clock = clock
        self._most = most
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def remember(self, network: Hashable) -> None:
        """Note an offer made now."""
        self._until[network] = self._clock() + self._ttl
        self._until.move_to_end(network)
        if len(self._until) > self._most:
            self._until.popitem(last=False)

    def known(self, network: Hashable) -> bool:
        """Say whether an offer was made that is still remembered."""
        until = self._until.get(network)
        if until is None:
            return False
        if until < self._clock():
            del self._until[network]
            return False
        return True
