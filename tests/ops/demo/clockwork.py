"""A loop of asyncio's whose clock stands still while anything moves, so that a busy machine is never late."""

import asyncio
import selectors
from typing import Final

QUIET: Final = 0.02
"""Seconds of the real clock in which nothing moves, so that nothing will."""


class Waiting(selectors.DefaultSelector):
    """Passes time at once that would have to be waited for."""

    def __init__(self) -> None:
        """Begin at nought."""
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; where that is nothing, `timeout` seconds have passed."""
        ready = super().select(timeout and QUIET)
        if not ready and timeout:
            self.now += timeout
        return ready


class Clockwork(asyncio.SelectorEventLoop):
    """A loop with the clock of a `Waiting`."""

    def __init__(self) -> None:
        """Make both."""
        self._waiting = Waiting()
        super().__init__(self._waiting)

    def time(self) -> float:
        """Return seconds of that clock."""
        return self._waiting.now
