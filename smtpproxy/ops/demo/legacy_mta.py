"""The embedded "legacy MTA": strictly lock-step, with a Maildir; nobody dares to touch it any more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from smtpproxy.ops.demo.legacy_commands import Answer, Envelope
from smtpproxy.ops.demo.legacy_session import LegacySession
from smtpproxy.ops.demo.maildir import Maildir

_LOOPBACK: Final = "127.0.0.1"
_REMEMBERED: Final = 50

Watcher = Callable[[Envelope, Path, int], None]


class LegacyMta:
    """The server around the sessions; use it as an asynchronous context manager, `port` is known inside.

    Attributes:
        port: where it listens, on loopback.
        commands: how many commands and messages it has answered.
        violations: how many sessions it has closed because something came before its reply.
        on_stored: called with envelope, file and octets of each message stored; None: nobody is told.
        on_violation: called after each violation; None: nobody is told.
    """

    def __init__(self, maildir: Maildir, port: int = 0) -> None:
        """Store to `maildir`; listen on `port` (0: any free one)."""
        self.port = port
        self.commands = 0
        self.violations = 0
        self.on_stored: Watcher | None = None
        self.on_violation: Callable[[], None] | None = None
        self._maildir = maildir
        self._listener: asyncio.Server | None = None
        self._sessions: set[LegacySession] = set()
        self._dialogue: deque[Answer] = deque(maxlen=_REMEMBERED)

    async def __aenter__(self) -> Self:
        """Start to listen; raises OSError if the port is taken."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: LegacySession(self), _LOOPBACK, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop to listen and cut all sessions."""
        if self._listener is not None:
            self._listener.close()
        for session in self._sessions:
            session.abort()
        await asyncio.sleep(0)  # the loop tells the sessions that they are lost

    @property
    def last_dialogue(self) -> tuple[Answer, ...]:
        """The answers given in the session that began last (at most 50)."""
        return tuple(self._dialogue)

    # Office, for the sessions

    def opened(self, session: LegacySession) -> None:
        """Keep the session, so that it can be cut."""
        self._sessions.add(session)
        self._dialogue.clear()

    def closed(self, session: LegacySession) -> None:
        """Forget the session."""
        self._sessions.discard(session)

    def answered(self, answer: Answer) -> None:
        """Count and remember."""
        self.commands += bool(answer.verb)
        self._dialogue.append(answer)

    def violated(self) -> None:
        """Count, and tell whom it may concern."""
        self.violations += 1
        if self.on_violation is not None:
            self.on_violation()

    def store(self, envelope: Envelope, message: bytes) -> None:
        """Deliver to the Maildir; raises OSError."""
        path = self._maildir.deliver(message)
        if self.on_stored is not None:
            self.on_stored(envelope, path, len(message))
