"""Closing so that the last reply arrives.

A close with unread input makes the kernel send a reset, and a reset makes the peer's kernel throw away what it has
received and not read yet: the 421 that was to explain it all.  So the writing side is closed first, what still comes is
read and thrown away for a while, and only then is the connection closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

from .parting import part

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from .sweep import Sweep


@implementer(IHalfCloseableProtocol)
class Linger:
    """Takes the place of a protocol that has said its last word."""

    __slots__ = ("_deadline", "_key", "_sweep", "factory", "transport")

    def __init__(self, sweep: Sweep, key: int, deadline: float) -> None:
        """``deadline``: when to close whatever comes, in seconds of the sweep's clock."""
        self._sweep = sweep
        self._key = key
        self._deadline = deadline
        self.transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        """Take over a transport."""
        self.transport = transport
        transport.unregisterProducer()
        transport.resumeProducing()
        transport.loseWriteConnection()
        self._sweep.add(self, self._key)

    def dataReceived(self, data: bytes) -> None:
        """Throw it away."""

    def readConnectionLost(self) -> None:
        """The peer has closed too."""
        self._close(reset=False)

    def writeConnectionLost(self) -> None:
        """Our own doing."""

    def connectionLost(self, _reason: Failure) -> None:
        """The connection is gone."""
        self._sweep.discard(self, self._key)

    def sweep(self, now: float) -> None:
        """Close when the time is up."""
        if now > self._deadline:
            self._close(reset=True)

    def _close(self, *, reset: bool) -> None:
        self._sweep.discard(self, self._key)
        part(self.transport, reset=reset)
