"""Chunks of BDAT as the mail data of a DATA command (RFC 3030, 2; RFC 5321, 4.5.2; rules S9, S11, H2).

A backend without CHUNKING gets one DATA for all the chunks of a message: dots are stuffed, bare line endings meet the
same policy as in DATA, and a message that does not end in CR LF gets one.
"""

from __future__ import annotations

import re
from typing import Final

from .lineendings import BarePolicy, DataFault, has_bare

_LINE_STARTS: Final = re.compile(rb"\r\n\.?|\n\.?|\r")


class ChunkStuffer:
    """Turns the octets of chunks, in any pieces, into dot-stuffed mail data."""

    __slots__ = ("_after_bare", "_held", "_nul", "_phantom", "_policy", "bare_seen", "fault")

    def __init__(self, policy: BarePolicy, *, pass_nul: bool) -> None:
        self._policy = policy
        self._nul = pass_nul
        # A message begins at the start of a line, as if a CR LF stood before it; that one is not sent.
        self._held = b"\r\n"
        self._phantom = 2
        self._after_bare = False
        self.bare_seen = False
        self.fault: DataFault | None = None
        """Why the message must be refused; from then on nothing more of it is given."""

    def receive(self, data: bytes) -> bytes:
        """Take octets of a chunk; give what can be sent of them, dot-stuffed."""
        buffer = self._held + data
        held = 2 if buffer.endswith(b"\r\n") else 1 if buffer.endswith(b"\r") else 0
        size = len(buffer) - held
        self._held = buffer[size:]
        return self._stuff(buffer[:size])

    def finish(self) -> bytes:
        """Give the end of the message: what was held back, CR LF where it is missing, and the end of data."""
        held, self._held = self._held, b""
        at_line_start = held == b"\r\n" or (not held and self._after_bare)
        if held == b"\r" and self._policy is not BarePolicy.PASS:
            self.bare_seen = True
            if self._policy is BarePolicy.REJECT:
                self.fault = DataFault.BARE
            held = b" "
        if self.fault is not None:
            return b""
        held = held[self._phantom :]
        return held + (b".\r\n" if at_line_start else b"\r\n.\r\n")

    def _stuff(self, piece: bytes) -> bytes:
        if not piece or self.fault is not None:
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
        elif b"\r\n." in piece:
            piece = piece.replace(b"\r\n.", b"\r\n..")
        if self._phantom:
            piece = piece[2:]
            self._phantom = 0
        return piece

    def _normalize(self, piece: bytes) -> bytes:
        stuffed = b"." if self._after_bare and piece[:1] == b"." else b""
        self._after_bare = piece[-1:] == b"\n"
        return stuffed + _LINE_STARTS.sub(_line_start, piece)


def _line_start(match: re.Match[bytes]) -> bytes:
    found = match.group()
    if found == b"\r":
        return b" "
    return b"\r\n.." if found.endswith(b".") else b"\r\n"
