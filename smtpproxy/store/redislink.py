"""The connection with Redis: made, made again when it is lost, and given up where it does not answer.

This module imports txredisapi, which imports the reactor: import it only after that has been chosen.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import txredisapi  # type: ignore[import-untyped]  # it ships no types
from twisted.internet import protocol
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RedisLink"]

_PATIENCE: Final = 0.25  # seconds for each operation
_FIRST_PAUSE: Final = 0.5  # seconds between two tries to connect, doubling to:
_LAST_PAUSE: Final = 10.0


class _Factory(protocol.Factory):
    """What a connection of txredisapi asks its factory for."""

    noisy = False
    isLazy = False  # noqa: N815  (txredisapi's name)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.trouble = ""
        self._make = make

    def buildProtocol(self, addr: object) -> Any:  # noqa: ANN401, ARG002, N802  (Twisted's interface)
        connection = self._make()
        connection.factory = self
        return connection

    def stopTrying(self) -> None:  # noqa: N802  (txredisapi's name)
        """Ours goes on trying: a password may be mended while we run."""

    def connectionError(self, why: str) -> None:  # noqa: N802  (the same)
        """It was refused."""
        self.trouble = why


class RedisLink:
    """One connection, and whether it is of use."""

    def __init__(
        self,
        endpoint: Any,  # noqa: ANN401  (zope interfaces are no types)
        reactor: Any,  # noqa: ANN401  (the same)
        report: Callable[[str], None],
        *,
        username: str | None,
        password: str | None,
        database: int | None,
    ) -> None:
        """Connect to nothing yet; see ``RedisStore``."""
        self.connection: Any = None
        """txredisapi's, while there is one that has answered; operations fail after a quarter of a second."""
        self.up = False
        """Whether the last operation succeeded."""
        self._endpoint = endpoint
        self._reactor = reactor
        self._report = report
        self._factory = _Factory(partial(_connection, reactor, username, password, database))
        self._pause = _FIRST_PAUSE
        self._again: Any = None  # IDelayedCall of the next try
        self._connecting: Any = None  # Deferred of the one under way
        self._closed = False
        self._said: bool | None = None  # what was last reported; None: nothing yet
        self._curious: list[Callable[[bool], None]] = []
        self._ready: Callable[[], None] = _nothing

    def start(self, ready: Callable[[], None]) -> None:
        """Begin to connect; ``ready`` is called whenever a connection is there."""
        self._ready = ready
        self._connect()

    def whether_up(self, told: Callable[[bool], None]) -> None:
        """Call ``told`` once, as soon as it is known whether Redis answers."""
        if self._said is None:
            self._curious.append(told)
        else:
            told(self.up)

    def works(self) -> None:
        """An operation has succeeded."""
        if self._closed:
            return
        if self._said is False:
            self._report("Redis is back: the EHLO cache is used again")
        self._is(up=True)

    def failed(self, failure: Failure) -> None:
        """An operation has failed.  Where the connection did, it says so by itself; else the next one may succeed."""
        self._went(failure.getErrorMessage())

    def close(self) -> None:
        """Let go of everything."""
        self._closed = True
        self.up = False
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._connecting is not None:
            self._connecting.cancel()
        if self.connection is not None:
            self.connection.transport.loseConnection()
            self.connection = None

    def _connect(self) -> None:
        self._again = None
        self._factory.trouble = ""
        self._connecting = self._endpoint.connect(self._factory)
        self._connecting.addCallbacks(self._connected, self._lost)

    def _connected(self, connection: Any) -> None:  # noqa: ANN401  (txredisapi's)
        self._connecting = None
        connection.whenDisconnected().addCallback(self._lost)
        # It is of use when it has answered something: a server that hangs can be connected with, too.
        connection.whenConnected().addCallback(lambda _: connection.ping()).addCallbacks(
            lambda _: self._answers(connection), lambda failure: self._refused(connection, failure)
        )

    def _answers(self, connection: Any) -> None:  # noqa: ANN401  (the same)
        if self._closed:
            connection.transport.loseConnection()
            return
        self.connection = connection
        self._pause = _FIRST_PAUSE
        self.works()
        self._ready()

    def _refused(self, connection: Any, failure: Failure) -> None:  # noqa: ANN401  (the same)
        self._factory.trouble = failure.getErrorMessage()
        connection.transport.abortConnection()

    def _lost(self, why: object) -> None:
        """There is no connection, or none any more."""
        self._connecting = self.connection = None
        if self._closed:
            return
        reason = why.getErrorMessage() if isinstance(why, Failure) else "the connection was lost"
        self._went(self._factory.trouble or reason)
        self._again = self._reactor.callLater(self._pause, self._connect)
        self._pause = min(2 * self._pause, _LAST_PAUSE)

    def _went(self, reason: str) -> None:
        if self._closed:
            return
        if self._said is not False:
            self._report(f"Redis is away: {reason}; remotes are met politely without the EHLO cache")
        self._is(up=False)

    def _is(self, *, up: bool) -> None:
        self.up = self._said = up
        curious, self._curious = self._curious, []
        for told in curious:
            told(up)


def _connection(reactor: Any, username: str | None, password: str | None, database: int | None) -> Any:  # noqa: ANN401  (no types)
    connection = txredisapi.BaseRedisProtocol(
        charset=None,
        convertNumbers=False,
        replyTimeout=_PATIENCE,
        username=username,
        password=password,
        dbid=database,
    )
    connection.callLater = reactor.callLater  # it would take the global one
    return connection


def _nothing() -> None:
    """Before it is started."""
