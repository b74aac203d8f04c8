"""What a session is waited for, and how long: judged by what has moved since the last look (RFC 5321, 4.5.3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpproxy.smtp.commands import Wait

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from smtpproxy.session.clientside import ClientSide

    from .clientcontext import ClientContext

# Reasons not to read from the client; it is read while there is none.
BACKEND_FULL = 1
CLIENT_FULL = 2
STUFFED = 4


class TimedSession:
    """The part of a client's session that minds the clock."""

    __slots__ = (
        "_client_mark",
        "_client_since",
        "_paused",
        "_window_octets",
        "_window_since",
        "context",
        "dialogue",
        "started",
    )

    context: ClientContext
    dialogue: ClientSide

    def __init__(self, context: ClientContext) -> None:
        self.context = context
        self.started = context.clock()
        self._paused = 0
        self._client_mark = 0
        self._client_since = self._window_since = self.started
        self._window_octets = 0

    def _tell(self, event: Callable[..., None], *arguments: Any) -> None:
        raise NotImplementedError  # ClientSession has it

    def sweep(self, now: float) -> None:
        """End what has waited too long (rule H9); ``now`` in seconds of the context's clock."""
        dialogue = self.dialogue
        session = self.context.settings.timeouts.session
        if (session is not None and now - self.started > session) or self._client_overdue(now):
            self._tell(dialogue.client_timed_out)
        else:
            self._sweep_servers(now)

    def _sweep_servers(self, now: float) -> None:
        """End what a server has let wait too long."""
        raise NotImplementedError  # InboundSession and OutboundSession have it

    def _client_overdue(self, now: float) -> bool:
        dialogue, waits = self.dialogue, self.context.waits
        if self._paused & CLIENT_FULL:
            return now - self._client_since > self.context.settings.timeouts.write
        wait = dialogue.client_wait
        if wait is not Wait.DATA_BLOCK or self._paused:
            self._window_since = now
            self._window_octets = dialogue.octets
        if wait is Wait.NOTHING or self._paused:
            self._client_since = now
            return False
        mark = dialogue.command_count + dialogue.pipeline.replies + dialogue.octets
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
        came, self._window_octets = self.dialogue.octets - self._window_octets, self.dialogue.octets
        self._window_since = now
        return came < settings.limits.minimum_progress
