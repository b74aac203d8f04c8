"""Replies: what one looks like, and a reader that cuts a stream of bytes into them (RFC 5321, 4.2).

The reader belongs to the side that talks to a server we do not trust: every reply is checked for its form, bounded
in lines and octets, and freed of control characters (rule H8).  A fault is a value, not an exception: it is the
peer's, not ours.
"""

from __future__ import annotations

import re
from typing import Final

from .commands import has_controls

MAX_LINE: Final = 4096
"""Octets in one reply line; RFC 5321, 4.5.3.1.5 says 512, real EHLO and HELP lines are longer."""

MAX_REPLY: Final = 64 * 1024
"""Octets in one reply, all its lines together."""

_FIRST_DIGITS: Final = b"2345"
# A whole reply of one line or several, well formed and free of control characters: nearly all are.
_WHOLE: Final = re.compile(
    rb"([2-5][0-9][0-9])(?:-[^\x00-\x08\x0a-\x1f\x7f]*\r\n\1)*(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n"
)
_CLEAN: Final = bytes(63 if (c < 32 and c != 9) or c == 127 else c for c in range(256))


class Reply:
    """One reply: the code as a number, and all its lines as they go on the wire, each with CR LF."""

    __slots__ = ("code", "raw")

    def __init__(self, code: int, raw: bytes) -> None:
        self.code = code
        self.raw = raw

    @property
    def lines(self) -> list[bytes]:
        """The text of each line, without code, separator and CR LF."""
        return [line[4:] for line in self.raw.split(b"\r\n")[:-1]]

    def __repr__(self) -> str:
        return f"Reply({self.raw!r})"


class ReplyReader:
    """Cuts what a server sends into replies, whatever the pieces it arrives in."""

    __slots__ = ("_buffer", "_clean", "_scanned", "fault")

    def __init__(self) -> None:
        self._buffer = b""
        self._scanned = 0
        self._clean = True
        self.fault = ""
        """Why the stream is no sequence of replies; empty while it is one. Nothing is read after a fault."""

    def receive(self, data: bytes) -> list[Reply]:
        """Take bytes, give the replies that they complete. Look at ``fault`` afterwards."""
        replies: list[Reply] = []
        if self.fault:
            return replies
        buffer = self._buffer + data if self._buffer else data
        start = 0
        if not self._scanned:
            while (whole := _WHOLE.match(buffer, start)) is not None and whole.end() - start <= MAX_LINE:
                replies.append(Reply(int(whole[1]), whole[0]))
                start = whole.end()
            if start == len(buffer):
                self._buffer = b""
                return replies
        scan = start + self._scanned
        while (end := buffer.find(b"\r\n", scan)) >= 0:
            separator = self._check(buffer, start, scan, end)
            if separator is None:
                return replies
            if separator != b"-":
                replies.append(self._complete(buffer[start : end + 2]))
                start = end + 2
            scan = end + 2
        self._buffer = buffer[start:]
        self._scanned = scan - start
        # One octet more than a whole line may have: it can be the CR before an LF that has not come.
        if len(self._buffer) - self._scanned > MAX_LINE + 1 or len(self._buffer) > MAX_REPLY + 1:
            self.fault = "reply too long"
        return replies

    @property
    def pending(self) -> bool:
        """Whether part of a reply has come whose end is still missing."""
        return bool(self._buffer)

    def _check(self, buffer: bytes, start: int, scan: int, end: int) -> bytes | None:
        """Check the line at ``scan``; give the octet behind its code, or None and set ``fault``."""
        code, separator = buffer[scan : scan + 3], buffer[scan + 3 : min(scan + 4, end)]
        if not (code.isdigit() and code[0] in _FIRST_DIGITS and separator in (b" ", b"-", b"")) or end < scan + 3:
            self.fault = "not a reply"
        elif scan != start and code != buffer[start : start + 3]:
            self.fault = "reply lines with different codes"
        elif end - scan > MAX_LINE or end - start > MAX_REPLY:
            self.fault = "reply too long"
        elif self._clean and has_controls(buffer[scan:end]):
            self._clean = False
        return None if self.fault else separator

    def _complete(self, raw: bytes) -> Reply:
        if not self._clean:
            self._clean = True
            raw = b"\r\n".join(line.translate(_CLEAN) for line in raw.split(b"\r\n"))
        return Reply(int(raw[:3]), raw)
