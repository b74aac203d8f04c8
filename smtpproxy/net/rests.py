"""Addresses of remotes that could not be reached a short while ago: they are tried after all others.

There is no queue here, so each message would wait for a dead server anew, and its client with it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from smtpproxy.session.outbound.target import Target

_MOST: Final = 10_000


class Rests:
    """Remembers which addresses rest, the latest ones."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic, in seconds."""
        self._clock = clock
        self._until: OrderedDict[tuple[str, int], float] = OrderedDict()

    def rest(self, target: Target, seconds: float) -> None:
        """Let an address rest."""
        key = target.address, target.port
        self._until[key] = self._clock() + seconds
        self._until.move_to_end(key)
        if len(self._until) > _MOST:
            self._until.popitem(last=False)

    def woke(self, target: Target) -> None:
        """Note that an address answers."""
        if self._until:
            self._until.pop((target.address, target.port), None)

    def ordered(self, targets: list[Target]) -> list[Target]:
        """Give targets in their order, but those that rest behind the others."""
        if not self._until:
            return targets
        now = self._clock()
        return sorted(targets, key=lambda target: self._until.get((target.address, target.port), 0.0) > now)
