"""What the embedded "legacy MTA" answers to each command: SMTP with SIZE and 8BITMIME, and nothing newer.

No sockets here: one command line in, one reply out. It takes mail for one domain.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

HOSTNAME: Final = "legacy.demo.example"
SIZE_LIMIT: Final = 50 * 1024 * 1024

_DOMAIN: Final = b"@demo.example"
_MAIL: Final = re.compile(rb"FROM:<([^<>]*)>((?: [^ ]+)*)", re.IGNORECASE)
_RCPT: Final = re.compile(rb"TO:<([^<>]+)>((?: [^ ]+)*)", re.IGNORECASE)
_SIZE: Final = re.compile(rb" SIZE=(\d{1,20})(?: |$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply of the legacy MTA.

    Attributes:
        verb: the command it answers, in upper case; "" for the greeting, "mail data" for the end of data.
        code: the reply code.
        lines: the text, one string for each line.
    """

    verb: str
    code: int
    lines: tuple[str, ...]

    @property
    def wire(self) -> bytes:
        """The reply as it is sent."""
        marks = "-" * (len(self.lines) - 1) + " "
        lines = [f"{self.code}{mark}{line}\r\n" for mark, line in zip(marks, self.lines, strict=True)]
        return "".join(lines).encode("ascii")


@dataclass(slots=True)
class Envelope:
    """The envelope of a mail transaction; addresses as they came, without angle brackets."""

    sender: str
    recipients: list[str] = field(default_factory=list)


GREETING: Final = Answer("", 220, (f"{HOSTNAME} ESMTP, one thing at a time",))
STORED: Final = Answer("mail data", 250, ("2.0.0 Stored",))
NOT_STORED: Final = Answer("mail data", 452, ("4.3.1 Cannot store that now",))


class LegacyCommands:
    """The state of one session: greeted or not, and the envelope so far.

    Attributes:
        envelope: the current mail transaction's, None outside of one.
    """

    def __init__(self) -> None:
        """Begin as after the greeting."""
        self.envelope: Envelope | None = None
        self._greeted = False
        self._table: dict[bytes, Callable[[bytes], tuple[int, str]]] = {
            b"EHLO": self._ehlo,
            b"HELO": self._helo,
            b"MAIL": self._mail,
            b"RCPT": self._rcpt,
            b"DATA": self._data,
            b"RSET": self._rset,
            b"NOOP": lambda _: (250, "2.0.0 Nothing done"),
            b"VRFY": lambda _: (252, "2.0.0 Send it and see"),
            b"QUIT": lambda _: (221, "2.0.0 Goodbye"),
        }

    def answer(self, line: bytes) -> Answer:
        """Return the reply to the command `line` (without its CR LF); 354 asks for mail data."""
        verb, _, argument = line.partition(b" ")
        verb = verb.upper()
        action = self._table.get(verb)
        code, text = action(argument) if action else (500, "5.5.1 Never heard of that")
        return Answer(verb.decode("ascii", "replace"), code, tuple(text.split("\n")))

    def finish(self) -> Envelope:
        """End the mail transaction and return its envelope; raises RuntimeError if there is none."""
        envelope, self.envelope = self.envelope, None
        if envelope is None:
            raise RuntimeError("mail data without a mail transaction")
        return envelope

    def _ehlo(self, argument: bytes) -> tuple[int, str]:
        code, text = self._helo(argument)
        return code, f"{text}\nSIZE {SIZE_LIMIT}\n8BITMIME" if code == 250 else text

    def _helo(self, argument: bytes) -> tuple[int, str]:
        if not argument:
            return 501, "5.5.4 And who are you?"
        self._greeted, self.envelope = True, None
        return 250, HOSTNAME

    def _mail(self, argument: bytes) -> tuple[int, str]:
        path = _MAIL.fullmatch(argument)
        if not self._greeted or self.envelope is not None:
            return 503, "5.5.1 Not now"
        if path is None:
            return 501, "5.5.4 MAIL FROM:<address>"
        size = _SIZE.search(path[2])
        if size and int(size[1]) > SIZE_LIMIT:
            return 552, "5.3.4 Too large"
        self.envelope = Envelope(path[1].decode("utf-8", "replace"))
        return 250, "2.1.0 Sender ok"

    def _rcpt(self, argument: bytes) -> tuple[int, str]:
        path = _RCPT.fullmatch(argument)
        if self.envelope is None:
            return 503, "5.5.1 MAIL first"
        if path is None:
            return 501, "5.5.4 RCPT TO:<address>"
        if not path[1].lower().endswith(_DOMAIN):
            return 550, "5.7.1 Only for demo.example"
        self.envelope.recipients.append(path[1].decode("utf-8", "replace"))
        return 250, "2.1.5 Recipient ok"

    def _data(self, _: bytes) -> tuple[int, str]:
        if self.envelope is None or not self.envelope.recipients:
            return 503, "5.5.1 RCPT first"
        return 354, "Go ahead, end with <CRLF>.<CRLF>"

    def _rset(self, _: bytes) -> tuple[int, str]:
        self.envelope = None
        return 250, "2.0.0 Forgotten"
