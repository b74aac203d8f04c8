"""Messages to send and the messages that arrived, compared octet by octet.

A sample has a token that no other message has; a mail server may add headers above the sample's own, and
nothing else.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_serial = itertools.count(1)
_run = uuid.uuid4().hex[:8]

# What a careless relay breaks: dots at the start of a line, SMTP words, empty lines, white space at the
# end, octets above 127 (UTF-8 and not), the longest line that RFC 5321 (4.5.3.1.6) allows, "From " of mbox
# files.
AWKWARD_LINES = (
    b".",
    b"..",
    b". leading dot",
    b"...three",
    b"",
    b"",
    b"QUIT",
    b"RSET",
    b"MAIL FROM:<evil@lab.test>",
    b"250 2.0.0 Ok",
    b"From here on",
    b">From there",
    b"trailing blanks  \t ",
    b"\tindented",
    "Grüße, 你好".encode(),
    bytes(range(0xA0, 0x100)),
    b"x" * 998,
    b"." + b"y" * 997,
    b"--",
    b".",
)


@dataclass(frozen=True)
class Sample:
    """A message to send.  `body` has LF line ends, as files have; `wire` gives it as SMTP wants it."""

    token: str
    body: bytes

    @property
    def text(self) -> bytes:
        """Headers and body with LF line ends."""
        headers = (
            "From: Sender <sender@lab.test>\n"
            "To: Recipient <recipient@lab.test>\n"
            f"Subject: sample {self.token}\n"
            f"Message-ID: <{self.token}@client.lab.test>\n"
            "Date: Mon, 01 Jan 2024 00:00:00 +0000\n"
            f"X-Token: {self.token}\n"
            "MIME-Version: 1.0\n"
            "Content-Type: text/plain; charset=utf-8\n"
            "Content-Transfer-Encoding: 8bit\n\n"
        )
        return headers.encode("ascii") + self.body

    @property
    def wire(self) -> bytes:
        """The message with CR LF, not dot-stuffed: what BDAT carries."""
        return self.text.replace(b"\n", b"\r\n")


def sample(*, size: int = 0) -> Sample:
    """A message like no other: all the awkward lines, and lines of random octets up to `size` octets in
    all.
    """
    token = f"t{_run}n{next(_serial)}"
    lines = list(AWKWARD_LINES)
    octets = sum(len(line) + 1 for line in lines)
    source = random.Random(token)
    alphabet = bytes(b for b in range(256) if b not in b"\r\n\0")
    block = bytes(source.choices(alphabet, k=50_000))
    while octets < size:
        start, length = source.randrange(49_000), source.choice((0, 1, 3, 72, 500, 990))
        line = block[start : start + length]
        lines.append(b"." + line if length == 3 else line)
        octets += len(lines[-1]) + 1
    return Sample(token, b"\n".join(lines) + b"\n")


@dataclass(frozen=True)
class Stored:
    """A message as a mail server delivered it to one recipient: the file's octets, LF line ends."""

    content: bytes

    def header(self, name: bytes) -> bytes:
        """The value of the first header field of that name, b"" if there is none."""
        for line in self.content.split(b"\n\n", 1)[0].split(b"\n"):
            if line.lower().startswith(name.lower() + b":"):
                return line[len(name) + 1 :].strip()
        return b""

    @property
    def recipient(self) -> str:
        """Whom it was delivered to."""
        names = (b"X-Original-To", b"Delivered-To", b"Envelope-To")  # Postfix, OpenSMTPD, Exim
        return next(filter(None, map(self.header, names)), b"").decode("ascii")

    @property
    def body(self) -> bytes:
        """Everything behind the first empty line."""
        return self.content.split(b"\n\n", 1)[1]


class Maildir:
    """A Maildir that only grows; every file is read once."""

    def __init__(self, folder: Path) -> None:
        """`folder` need not exist yet."""
        self.folder = folder
        self._known: dict[str, Stored] = {}

    def messages(self) -> list[Stored]:
        """All the messages that have been delivered completely."""
        for path in (self.folder / "new").glob("*"):
            if path.name not in self._known:
                self._known[path.name] = Stored(path.read_bytes())
        return list(self._known.values())


def assert_intact(stored: list[Stored], sent: Sample, recipients: tuple[str, ...] = ("recipient@lab.test",)) -> None:
    """AssertionError unless `stored` has the sample exactly once for each recipient, and each copy octet by
    octet.
    """
    copies = [message for message in stored if message.header(b"X-Token") == sent.token.encode("ascii")]
    found = Counter(message.recipient for message in copies)
    assert found == Counter(recipients), f"{sent.token} is there for {found}, not for {recipients}"
    for copy in copies:
        assert copy.header(b"Subject") == f"sample {sent.token}".encode("ascii"), copy.content[:2000]
        assert copy.body == sent.body, first_difference(copy.body, sent.body)


def first_difference(got: bytes, expected: bytes) -> str:
    """Where two bodies part, readable also when they have megabytes."""
    place = next(
        (i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b),
        min(len(got), len(expected)),
    )
    window = slice(max(0, place - 30), place + 30)
    sizes = f"bodies of {len(got)} and {len(expected)} octets"
    return f"{sizes} part at {place}: got {got[window]!r}, sent {expected[window]!r}"
