"""Mail data of a DATA command as the octets that BDAT carries (RFC 5321, 4.5.2; RFC 3030, 2).

The other direction is ``chunks.ChunkStuffer``.  Line endings, NUL and the end of data were seen to by
``maildata.MailDataReader``, whose pieces come in here.
"""

from __future__ import annotations


class Unstuffer:
    """Takes the stuffed dots and the end of data off one message, whatever the pieces in which it comes."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        # What of CR LF stands before the next piece; a message begins at the start of a line.
        self._tail = b"\r\n"

    def receive(self, piece: bytes, *, last: bool) -> bytes:
        """Take what ``MailDataReader.receive`` gave; give the message's own octets, as they count for BDAT.

        ``last``: this piece has the whole end of data at its end (``MailDataReader.rest`` is not None), or it is
        empty because the message was refused.
        """
        if last:
            piece = piece[:-3]
        if not piece:
            return b""
        # Mostly nothing stands before: only where the reader made CR LF of a bare LF at the end of the last piece.
        before = len(self._tail)
        text = self._tail + piece
        self._tail = b"\r\n" if text.endswith(b"\r\n") else b"\r" if text.endswith(b"\r") else b""
        return text.replace(b"\r\n.", b"\r\n")[before:]
