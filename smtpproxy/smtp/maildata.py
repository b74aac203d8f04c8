"""Mail data behind DATA: where it ends, and what of it may go on (RFC 5321, 4.1.1.4 and 4.5.2; rules S11, H2).

There are no lines here.  The data goes through as the pieces that the socket gave, still dot-stuffed; the end of data
is CR LF . CR LF and nothing else, found by one bulk search.  At most four octets are held back at the end of a
piece, those that may turn out to begin the end of data.  So a piece that is not the last one never ends in CR LF, both
halves of a CR LF are always in one piece, and a CR at the end of a piece is a bare one: another CR was held back.
"""

from __future__ import annotations

import re
from typing import Final

from .lineendings import BarePolicy, DataFault, has_bare

_END_OF_DATA: Final = b"\r\n.\r\n"
_LINE_ENDINGS: Final = re.compile(rb"\r\n\.\n\.?|\r\n|\n\.?|\r")


class MailDataReader:
    """Reads one message of a client up to the end of data, applying the policies to what it passes on."""

    __slots__ = (
        "_after_bare",
        "_held",
        "_nul",
        "_phantom",
        "_policy",
        "bare_seen",
        "fault",
        "octets",
        "rest",
    )

    def __init__(self, policy: BarePolicy, *, pass_nul: bool) -> None:
        self._policy = policy
        self._nul = pass_nul
        # The CR LF of the DATA line counts as the one before a lone dot; it is searched but not sent.
        self._held = b"\r\n"
        self._phantom = 2
        self._after_bare = False
        self.bare_seen = False
        self.fault: DataFault | None = None
        """Why the message must be refused; from then on nothing more of it is given."""
        self.rest: bytes | None = None
        """What came behind the end of data; None until the end was found."""
        self.octets = 0
        """Octets of mail data seen, still dot-stuffed, without the end of data."""

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the client; give what of them is to go on (dot-stuffed, with the end of data when it came)."""
        buffer = self._held + data
        end = buffer.find(_END_OF_DATA)
        if end < 0:
            held = _may_begin_the_end(buffer)
            size = len(buffer) - held
            self._held = buffer[size:]
            piece = buffer[:size]
            ending = b""
        else:
            self.rest = buffer[end + 5 :]
            self._held = b""
            piece = buffer[: end + 2]
            ending = b".\r\n"
        phantom, self._phantom = self._phantom, 0 if piece else self._phantom
        self.octets += len(piece) - phantom if piece else 0
        return self._pass_on(piece, phantom, ending)

    def _pass_on(self, piece: bytes, phantom: int, ending: bytes) -> bytes:
        if self.fault is not None:
            return b""
        if not self._nul and b"\0" in piece:
            self.fault = DataFault.NUL
            return b""
        if self._policy is not BarePolicy.PASS and (self._after_bare or has_bare(piece)):
            self.bare_seen = True
            if self._policy is BarePolicy.REJECT:
                self.fault = DataFault.BARE
                return b""
            piece = self._normalize(piece)
        if phantom:
            piece = piece[phantom:]
        return piece + ending if ending else piece

    def _normalize(self, piece: bytes) -> bytes:
        """Give the piece with every bare LF as CR LF and every bare CR as a space, and dots stuffed anew.

        A bare LF makes a line where the strict reading had none: a dot behind it was never stuffed and has to be,
        and a dot between CR LF and bare LF was a stuffed one on a line that now is empty.
        """
        stuffed = b"." if self._after_bare and piece[:1] == b"." else b""
        if piece:
            self._after_bare = piece[-1:] == b"\n" and piece[-2:] != b"\r\n"
        return stuffed + _LINE_ENDINGS.sub(_normal_ending, piece)


def _normal_ending(match: re.Match[bytes]) -> bytes:
    found = match.group()
    if found == b"\r\n":
        return found
    if found == b"\r":
        return b" "
    ending = b"\r\n\r\n" if found.startswith(b"\r\n") else b"\r\n"
    return ending + b".." if found.endswith(b".") else ending


def _may_begin_the_end(buffer: bytes) -> int:
    """Give how many octets at the end of ``buffer`` may be the first ones of CR LF . CR LF."""
    last = buffer[-1:]
    if last == b"\n":
        return 2 if buffer.endswith(b"\r\n") else 0
    if last == b".":
        return 3 if buffer.endswith(b"\r\n.") else 0
    if last == b"\r":
        return 4 if buffer.endswith(b"\r\n.\r") else 1
    return 0
