"""A mail transaction: from an accepted MAIL to the reply to the end of data (RFC 5321, 3.3)."""

from __future__ import annotations

from typing import Final

from smtpproxy.smtp.commands import Verb

_RECIPIENTS_KEPT: Final = 5


class Transaction:
    """What is known of one mail transaction, as the backend's replies tell it."""

    __slots__ = (
        "accepted",
        "bare_seen",
        "mail",
        "octets",
        "recipients",
        "refused",
        "reply",
        "split",
        "started",
        "verb",
    )

    def __init__(self, mail: bytes, started: float) -> None:
        """Take the MAIL line, and the time of its reply in seconds."""
        self.mail = mail
        self.started = started
        self.accepted = 0
        self.refused = 0
        self.recipients: list[bytes] = []
        """The RCPT lines of the first accepted recipients."""
        self.verb: Verb | None = None
        """DATA or BDAT, whichever carried the message."""
        self.octets = 0
        self.bare_seen = False
        """Whether a bare CR or LF was met (rule S11)."""
        self.split = 0
        """Recipients put off because they have another destination than the first one (outbound)."""
        self.reply = b""
        """The last word on it; empty: it was given up before there was one."""

    def accept(self, rcpt: bytes) -> None:
        """Count an accepted recipient."""
        self.accepted += 1
        if len(self.recipients) < _RECIPIENTS_KEPT:
            self.recipients.append(rcpt)
