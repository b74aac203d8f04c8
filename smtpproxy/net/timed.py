"""What a session is waited for, and how long: judged by what has moved since the last look (RFC 5321, 4.5.3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpproxy.smtp.commands import Wait

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from smtpproxy.session.relay import Relay

    from .context import Context
    from .leg import BackendLeg

# Reasons not to read from the client; it is read while there is none.
BACKEND_FULL = 1
CLIENT_FULL = 2
STUFFED = 4


class TimedSession:
    """The part of a client's session that minds the clock."""

    __slots__ = (
        "_backend_mark",
        "_backend_since",
        "_client_mark",
        "_client_since",
        "_paused",
        "_window_octets",
        "_window_since",
        "context",
        "leg",
        "relay",
        "started",
    )

    relay: Relay
    leg: BackendLeg | None

    def __init__(self, context: Context) -> None:
        self.context = context
        self.started = context.clock()
        self._paused = 0
        self._client_mark = self._backend_mark = 0
        self._client_since = self._backend_since = self._window_since = self.started
        self._window_octets = 0

    def _tell(self, event: Callable[..., None], *arguments: Any) -> None:
        raise NotImplementedError  # InboundSession has it

    def sweep(self, now: float) -> None:
        """End what has waited too long (rule H9); ``now`` in seconds of the context's clock."""
        relay = self.relay
        session = self.context.settings.timeouts.session
        if (session is not None and now - self.started > session) or self._client_overdue(now):
            self._tell(relay.client_timed_out)
        elif self._backend_overdue(now):
            self._tell(relay.backend_timed_out)

    def _client_overdue(self, now: float) -> bool:
        relay, waits = self.relay, self.context.waits
        if self._paused & CLIENT_FULL:
            return now - self._client_since > self.context.settings.timeouts.write
        wait = relay.client_wait
        if wait is not Wait.DATA_BLOCK or self._paused:
            self._window_since = now
            self._window_octets = relay.octets
        if wait is Wait.NOTHING or self._paused:
            self._client_since = now
            return False
        mark = relay.command_count + relay.pipeline.replies + relay.octets
        if mark != self._client_mark:
            self._client_mark = mark
            self._client_since = now
        if now - self._client_since > waits[wait]:
            return True
        return wait is Wait.DATA_BLOCK and self._too_slow(now)

    def _too_slow(self, now: float) -> bool:
        """Judge mail data by how much of it came within a window of time (rule H9)."""
        settings = self.context.settings
        if now - self._window_since < settings.timeouts.minimum_progress:
            return False
        came, self._window_octets = self.relay.octets - self._window_octets, self.relay.octets
        self._window_since = now
        return came < settings.limits.minimum_progress

    def _backend_overdue(self, now: float) -> bool:
        relay, timeouts = self.relay, self.context.pool.settings.timeouts
        wait = relay.backend_wait
        unconnected = wait is Wait.GREETING and self.leg is not None and not self.leg.connected
        if self._paused & BACKEND_FULL and not unconnected:
            return now - self._backend_since > timeouts.data_block
        mark = relay.reply_count + relay.octets
        if wait is Wait.NOTHING or mark != self._backend_mark:
            self._backend_mark = mark
            self._backend_since = now
            return False
        waited = now - self._backend_since
        return (unconnected and waited > self._to_connect()) or waited > self.context.waits[wait]

    def _to_connect(self) -> float:
        """Give the seconds that a connection may take to come about, its handshake included where TLS comes first."""
        settings = self.context.pool.settings
        handshake = settings.timeouts.tls_handshake if settings.tls.mode == "implicit" else 0.0
        return settings.timeouts.connect + handshake
