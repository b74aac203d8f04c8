"""Closing a connection whose protocol wants to hear nothing more of it, whatever its transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from .transport import FLUSH_SECONDS, OwnTransport


def part(transport: Any, *, reset: bool = False) -> None:
    """Close, with a reset or when everything is written; None is closed already."""
    if isinstance(transport, OwnTransport):
        transport.detach(reset=reset)
    elif transport is not None:
        transport.unregisterProducer()
        # A paused transport would never report its loss.
        transport.resumeProducing()
        if reset:
            transport.abortConnection()
        else:
            transport.loseConnection()
            # The reactor keeps it for as long as it is open, and nobody after that.
            transport.reactor.callLater(FLUSH_SECONDS, _cut_off, ref(transport))


def _cut_off(transport: Callable[[], Any]) -> None:
    if (still_there := transport()) is not None:
        still_there.abortConnection()
