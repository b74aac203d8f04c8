"""A message on its way to one destination, as its own octets, kept no longer than rule C7 has a use for it."""

from __future__ import annotations

from smtpproxy.smtp.lookalikes import holds_commands


class Message:
    """What is here of a message, and what has left.

    A small message that is wholly here is kept while it is being sent: as long as no octet of it was handed to the
    kernel, or where the remote has refused to begin, there may be another try.
    """

    __slots__ = ("_dangerous", "_keep", "_sent", "complete", "gone", "octets", "pieces", "waiting")

    def __init__(self, keep: int) -> None:
        """``keep``: octets of the largest message that is kept."""
        self._keep = keep
        self._sent: list[bytes] = []
        self._dangerous: bool | None = None
        self.pieces: list[bytes] = []
        """What has come and not left."""
        self.waiting = 0
        """Octets of that."""
        self.octets = 0
        """Octets that have come."""
        self.complete = False
        """Whether that is all of it."""
        self.gone = False
        """Whether octets have left that are not kept, so that there cannot be another try."""

    def feed(self, data: bytes) -> None:
        """Take octets of the message."""
        if data:
            self.pieces.append(data)
            self.waiting += len(data)
            self.octets += len(data)

    def take(self) -> list[bytes]:
        """Give what is here, to be sent."""
        pieces, self.pieces, self.waiting = self.pieces, [], 0
        if pieces and self.complete and not self.gone and self.octets <= self._keep:
            self._sent = pieces
        elif pieces:
            self.gone = True
        return pieces

    def restore(self) -> None:
        """Begin anew with what was sent."""
        if self._sent:
            self.pieces, self._sent = self._sent, []
            self.waiting = self.octets

    def forget(self) -> None:
        """Let go of everything: there will be no other try."""
        self.pieces, self._sent, self.waiting = [], [], 0

    @property
    def dangerous(self) -> bool:
        """Whether a server that takes it for commands would find some in it (rule C8). It must be wholly here."""
        if self._dangerous is None:
            self._dangerous = holds_commands(b"".join(self.pieces))
        return self._dangerous
