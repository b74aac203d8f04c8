"""The frontend: the SMTP server role, from the client's bytes to commands and mail data.

It never parses what it cannot yet understand.  Behind DATA and AUTH the next bytes mean one thing or another,
depending on a reply that has not come; there the frontend waits (rule S5).  Where it stands is one of the states
below, and every way from one to another is in ``TRANSITIONS``; a step that is not there is a bug of ours and raises.

    COMMANDS --DATA--> AWAIT_DATA --354--> MAIL_DATA --CR LF . CR LF--> COMMANDS
    COMMANDS --BDAT--> CHUNK --its last octet--> COMMANDS
    COMMANDS --AUTH--> AWAIT_AUTH --334--> AUTH_RESPONSE --line--> AWAIT_AUTH --235, 4xx, 5xx--> COMMANDS
    COMMANDS --STARTTLS--> AWAIT_TLS, the end of this frontend: inside TLS there is a new one (rule S6)
    COMMANDS --XCLIENT--> AWAIT_CLIENT, the same: the client that was named gets a new one
    any state --CLOSE--> CLOSED, where everything is thrown away
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from smtpproxy.smtp.commands import (
    AUTH_RESPONSE,
    CONTROLS,
    ENDLESS,
    OVERLONG,
    has_controls,
    is_tls,
    match_command,
    parse_command,
)

from .pipeline import Slot

ENDLESS_LINE: Final = 64 * 1024
"""Octets without CR LF after which we stop waiting for one and end the connection (rule H3)."""


class State(IntEnum):
    """What the client's next bytes are."""

    COMMANDS = 1
    AWAIT_DATA = 2
    MAIL_DATA = 3
    CHUNK = 4
    AWAIT_AUTH = 5
    AUTH_RESPONSE = 6
    AWAIT_TLS = 7
    AWAIT_CLIENT = 8
    CLOSED = 9


class Event(IntEnum):
    """What changes the meaning of the client's next bytes."""

    DATA = 1
    GO_AHEAD = 2
    REFUSED = 3
    END_OF_DATA = 4
    BDAT = 5
    END_OF_CHUNK = 6
    AUTH = 7
    CHALLENGE = 8
    RESPONSE = 9
    AUTH_DONE = 10
    STARTTLS = 11
    XCLIENT = 12
    CLOSE = 13


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.COMMANDS, Event.DATA): State.AWAIT_DATA,
    (State.COMMANDS, Event.BDAT): State.CHUNK,
    (State.COMMANDS, Event.AUTH): State.AWAIT_AUTH,
    (State.COMMANDS, Event.STARTTLS): State.AWAIT_TLS,
    (State.COMMANDS, Event.XCLIENT): State.AWAIT_CLIENT,
    (State.AWAIT_DATA, Event.GO_AHEAD): State.MAIL_DATA,
    (State.AWAIT_DATA, Event.REFUSED): State.COMMANDS,
    (State.MAIL_DATA, Event.END_OF_DATA): State.COMMANDS,
    (State.CHUNK, Event.END_OF_CHUNK): State.COMMANDS,
    (State.AWAIT_AUTH, Event.CHALLENGE): State.AUTH_RESPONSE,
    (State.AWAIT_AUTH, Event.AUTH_DONE): State.COMMANDS,
    (State.AUTH_RESPONSE, Event.RESPONSE): State.AWAIT_AUTH,
    **{(state, Event.CLOSE): State.CLOSED for state in State},
}


class Frontend:
    """Holds the bytes of one client that are not consumed yet, and knows what they are."""

    __slots__ = ("_auth_line", "_buffer", "_chunk_left", "_line", "_position", "_skipped", "state")

    def __init__(self, line: int, auth_line: int) -> None:
        """Take the longest command line, and the longest line of an AUTH exchange, in octets with CR LF (rule H3)."""
        self._line = line
        self._auth_line = auth_line
        self._buffer = b""
        self._position = 0
        self._skipped = 0
        self._chunk_left = 0
        self.state = State.COMMANDS

    def move(self, event: Event) -> None:
        """Change the state; a step that is not in the table raises KeyError."""
        self.state = TRANSITIONS[self.state, event]

    def receive(self, data: bytes) -> None:
        """Take bytes of the client."""
        if self.state is State.CLOSED:
            return
        if self._position == len(self._buffer):
            self._buffer = data
        else:
            self._buffer = self._buffer[self._position :] + data
        self._position = 0

    @property
    def waiting(self) -> int:
        """Octets that are here and not consumed."""
        return len(self._buffer) - self._position

    def close(self) -> None:
        """Throw away what is here and what will come."""
        self.move(Event.CLOSE)
        self._buffer = b""
        self._position = 0

    def next_command(self) -> Slot | None:
        """Give the next command, or the next line of an AUTH exchange, as the slot of the reply that is owed to it.

        None while its CR LF has not come.
        """
        buffer, start = self._buffer, self._position
        if start == len(buffer):
            return None
        if self.state is State.COMMANDS and not self._skipped:
            command = match_command(buffer, start, Slot)
            if command is not None and len(command.raw) <= self._line:
                self._position = start + len(command.raw)
                return command
        end = buffer.find(b"\r\n", start)
        return self._no_line_yet() if end < 0 else self._odd_line(start, end)

    def _odd_line(self, start: int, end: int) -> Slot:
        """Give a line that is not at first sight a command of the table."""
        size = end + 2 - start + self._skipped
        self._position = end + 2
        raw = self._buffer[start : end + 2]
        if size > self._line and (fault := self._overlong(size, start)) is not None:
            return fault
        if has_controls(raw[:-2]):
            return Slot(CONTROLS, raw)
        if self.state is State.AUTH_RESPONSE:
            return Slot(AUTH_RESPONSE, raw)
        return parse_command(raw, Slot)

    def _no_line_yet(self) -> Slot | None:
        start = self._position
        if is_tls(self._buffer[start : start + 1]) and not self._skipped:
            return Slot(CONTROLS, self._buffer[start:])
        return self._skip() if self._skipped or self.waiting > self._line else None

    def _limit(self, start: int) -> int:
        if self.state is State.AUTH_RESPONSE or self._buffer[start : start + 5].upper() == b"AUTH ":
            return self._auth_line
        return self._line

    def _overlong(self, size: int, start: int) -> Slot | None:
        """Judge a complete line that is longer than a command may be; it is refused whole (rule H3)."""
        skipped, self._skipped = self._skipped, 0
        if size > ENDLESS_LINE:
            return Slot(ENDLESS, b"\r\n")
        if skipped or size > self._limit(start):
            return Slot(OVERLONG, b"\r\n")
        return None

    def _skip(self) -> Slot | None:
        """Drop the beginning of a line that is too long already, and remember how much of it there was."""
        if not self._skipped and self.waiting <= self._limit(self._position):
            return None
        if self._skipped + self.waiting > ENDLESS_LINE:
            return Slot(ENDLESS, b"\r\n")
        # A CR may be half of the CR LF that is waited for.
        keep = 1 if self._buffer.endswith(b"\r") else 0
        self._skipped += self.waiting - keep
        self._buffer = self._buffer[len(self._buffer) - keep :]
        self._position = 0
        return None

    def take_mail_data(self) -> bytes:
        """Give everything that is here."""
        data = self._buffer[self._position :] if self._position else self._buffer
        self._buffer = b""
        self._position = 0
        return data

    def end_mail_data(self, rest: bytes) -> None:
        """Leave the mail data; ``rest`` is what came behind the end of data."""
        self._buffer = rest
        self._position = 0
        self.move(Event.END_OF_DATA)

    def begin_chunk(self, size: int) -> None:
        """Expect the octets of a BDAT chunk (RFC 3030, 2)."""
        self.move(Event.BDAT)
        self._chunk_left = size

    def take_chunk(self) -> bytes:
        """Give what is here of the chunk; after its last octet the state is COMMANDS again."""
        start, left = self._position, self._chunk_left
        if start == 0 and len(self._buffer) <= left:
            data, self._buffer = self._buffer, b""
        else:
            data = self._buffer[start : start + left]
            self._position = start + len(data)
        self._chunk_left = left - len(data)
        if not self._chunk_left:
            self.move(Event.END_OF_CHUNK)
        return data
