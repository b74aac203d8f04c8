"""One connection to the embedded "legacy MTA": a command, its reply, the next command, and not a byte more.

The rule is stricter than any real server's, so that the demo proves something: whatever arrives while a reply
is owed, the greeting included, is a violation. It gets 554 and the connection is closed; nothing of it is
stored. To be sure to notice, the session thinks for a moment before each reply (a real server looks up a
recipient or writes a file) and listens meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from smtpproxy.ops.demo.legacy_commands import (
    GREETING,
    NOT_STORED,
    SIZE_LIMIT,
    STORED,
    Answer,
    Envelope,
    LegacyCommands,
)

_THINKING_SECONDS: Final = 0.001
_IDLE_SECONDS: Final = 300.0
_CLOSING_SECONDS: Final = 2.0
_LINE_LIMIT: Final = 2048
_CRLF: Final = b"\r\n"
_END_OF_DATA: Final = b"\r\n.\r\n"
_GO_AHEAD: Final = 354


class Office(Protocol):
    """What a session needs from the MTA around it."""

    def store(self, envelope: Envelope, message: bytes) -> None:
        """Keep `message`, its dots already unstuffed; raises OSError."""

    def answered(self, answer: Answer) -> None:
        """Hear that `answer` has been sent."""

    def violated(self) -> None:
        """Hear that a session was ended because something arrived before the reply that was owed."""

    def opened(self, session: LegacySession) -> None:
        """Hear that `session` has begun."""

    def closed(self, session: LegacySession) -> None:
        """Hear that `session` has ended."""


class LegacySession(asyncio.Protocol):
    """The server's side of one connection."""

    _transport: asyncio.Transport

    def __init__(self, office: Office) -> None:
        """Report to `office` and store there."""
        self._office = office
        self._commands = LegacyCommands()
        self._input = bytearray()
        self._in_data = False
        self._owed: asyncio.TimerHandle | None = None  # the reply that is being thought about
        self._clock: asyncio.TimerHandle | None = None  # ends an idle session, then a closing one
        self._closing = False
        self._peer_done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, after a thought."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  what create_server() promises, for mypy
        self._transport = transport
        self._office.opened(self)
        self._think(GREETING)

    def data_received(self, data: bytes) -> None:
        """Take a command, or a piece of the mail data."""
        if self._closing:
            return
        searched = max(0, len(self._input) - len(_END_OF_DATA) + 1)
        self._input += data
        if self._owed is not None:
            self._violation()
        elif self._in_data:
            self._data(searched)
        else:
            self._line()

    def eof_received(self) -> bool:
        """Return whether to stay open: as long as a reply is owed."""
        self._peer_done = True
        return self._owed is not None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the interface's signature
        """Forget what was not finished."""
        self._closing = True
        for timer in (self._owed, self._clock):
            if timer is not None:
                timer.cancel()
        self._office.closed(self)

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def _line(self) -> None:
        end = self._input.find(_CRLF)
        if end < 0:
            if len(self._input) > _LINE_LIMIT:
                self._end(b"500 5.5.2 Line too long\r\n")
            return
        if len(self._input) > end + len(_CRLF):
            self._violation()
            return
        answer = self._commands.answer(bytes(self._input[:end]))
        # What stands before the first line of the mail data is a line's end too: an empty message is ".CRLF".
        self._input[:] = _CRLF if answer.code == _GO_AHEAD else b""
        self._think(answer)

    def _data(self, searched: int) -> None:
        end = self._input.find(_END_OF_DATA, searched)
        if end < 0:
            if len(self._input) > SIZE_LIMIT:
                self._end(b"552 5.3.4 Too large\r\n")
        elif len(self._input) > end + len(_END_OF_DATA):
            self._violation()
        else:
            self._think(STORED)

    def _think(self, answer: Answer) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self._owed = asyncio.get_running_loop().call_later(_THINKING_SECONDS, self._reply, answer)

    def _reply(self, answer: Answer) -> None:
        self._owed = None
        if answer is STORED:
            answer = self._stored()
        self._in_data = answer.code == _GO_AHEAD
        self._office.answered(answer)
        if self._peer_done or answer.verb == "QUIT":
            self._end(answer.wire)
            return
        self._transport.write(answer.wire)
        self._clock = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._end, b"421 4.4.2 Nobody there?\r\n")

    def _stored(self) -> Answer:
        message = bytes(self._input[len(_CRLF) : -len(_END_OF_DATA) + len(_CRLF)])
        self._input.clear()
        try:
            self._office.store(self._commands.finish(), unstuffed(message))
        except OSError:
            return NOT_STORED
        return STORED

    def _violation(self) -> None:
        if self._owed is not None:
            self._owed.cancel()
        self._office.violated()
        self._end(b"554 5.5.0 One thing at a time: you did not wait for my reply\r\n")

    def _end(self, last_words: bytes) -> None:
        # Closing over unread input would turn into a reset that destroys the last words: so close only our
        # half, and take what still comes for a while.
        self._closing = True
        self._transport.write(last_words)
        self._transport.write_eof()
        if self._clock is not None:
            self._clock.cancel()
        self._clock = asyncio.get_running_loop().call_later(_CLOSING_SECONDS, self._transport.close)


def unstuffed(mail_data: bytes) -> bytes:
    """Return `mail_data`, the final dot's line left out, without each line's first dot (RFC 5321 4.5.2)."""
    head = mail_data.removeprefix(b".")
    return head.replace(b"\r\n.", b"\r\n")
