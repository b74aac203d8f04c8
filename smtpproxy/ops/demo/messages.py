"""The messages that the demo sends: one plain, and three of the kinds that get damaged on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

SENDER: Final = "alice@client.example"
RECIPIENT: Final = "user@demo.example"

_KIBIBYTE: Final = 1024
_LARGE: Final = 100 * _KIBIBYTE

_SHORT: Final = b"Hello,\r\n\r\nthis took fewer round trips than it used to.\r\n"

# Every way in which a dot can begin a line; some lines look like the end of data once a dot is taken away.
_DOTS: Final = b".\r\n..\r\n...\r\n.hidden\r\n. \r\n..twice\r\nno dot.\r\n\r\n.\r\n"

# UTF-8, Latin-1 (not valid UTF-8) and all octets above 127; it travels with BODY=8BITMIME (RFC 6152).
_EIGHT_BIT: Final = "Grüße, 早い, ✉\r\n".encode() + b"Gr\xfc\xdfe\r\n" + bytes(range(128, 256)) + b"\r\n"


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send.

    Attributes:
        name: how the demo calls it ("short", "dots", "8-bit", "100 KiB").
        key: its Message-ID, different for every message and way.
        data: its octets: header, empty line, text, all lines ending with CR LF, no dot-stuffing.
    """

    name: str
    key: bytes
    data: bytes


def messages(way: str) -> Iterator[Message]:
    """Yield the messages to send in the way called `way` (letters, digits, hyphens): the short one first."""
    for name, text in (("short", _SHORT), ("dots", _DOTS), ("8-bit", _EIGHT_BIT), ("100 KiB", _large())):
        key = f"<{name.replace(' ', '')}.{way}@client.example>".encode()
        yield Message(name, key, _header(name, key) + text)


def message_id(data: bytes) -> bytes | None:
    """Return the Message-ID of a message of ours, None if it has none (then it is somebody else's)."""
    for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        if line.startswith(b"Message-ID: "):
            return line.removeprefix(b"Message-ID: ")
    return None


def _header(name: str, key: bytes) -> bytes:
    lines = (
        f"From: Alice <{SENDER}>",
        f"To: {RECIPIENT}",
        f"Subject: smtpproxy demo, {name}",
        f"Date: {formatdate(localtime=True)}",
        f"Message-ID: {key.decode('ascii')}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    )
    return "".join(f"{line}\r\n" for line in lines).encode("ascii") + b"\r\n"


def _large() -> bytes:
    # Lines of growing length, each with its number: a lost, doubled or swapped piece cannot go unnoticed.
    lines: list[bytes] = []
    octets = 0
    while octets < _LARGE:
        number = len(lines)
        lines.append(b"%06d %s\r\n" % (number, b"." * (number % 70)))
        octets += len(lines[-1])
    return b"".join(lines)
