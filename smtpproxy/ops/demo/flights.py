"""The demo's four ways to send one message: which commands leave together, and what is waited for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from smtpproxy.ops.demo.messages import RECIPIENT, SENDER
from smtpproxy.ops.demo.timeline import Part

CLIENT_NAME: Final = "client.example"
EARLY_KEYWORD: Final = "PIPECONNECT"


@dataclass(frozen=True, slots=True)
class Item:
    """Something that is sent and gets one reply: a command, the mail data, or a BDAT command with its chunk.

    Attributes:
        name: of the command or the mail data, for its reply.
        part: how it is shown when sent.
        wire: the octets to send; none for the greeting, which is a reply to nothing.
        code: the reply code expected.
    """

    name: str
    part: Part
    wire: bytes
    code: int


@dataclass(frozen=True, slots=True)
class Flight:
    """Items sent in one write, and one round trip: the client goes on when all their replies are there."""

    label: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to send a message.

    Attributes:
        key: for Message-IDs: letters, digits, hyphens.
        name: for the bars.
        title: for headings and the table.
        direct: straight to the legacy MTA, not through the proxy.
        needs: EHLO keywords that must be known before the first message is sent in this way.
        plan: the flights for a message (octets as stored).
    """

    key: str
    name: str
    title: str
    direct: bool
    needs: frozenset[str]
    plan: Callable[[bytes], tuple[Flight, ...]]


_GREETING: Final = Item("greeting", Part("", ""), b"", 220)
_EHLO: Final = Item("EHLO", Part("EHLO", f"EHLO {CLIENT_NAME}"), f"EHLO {CLIENT_NAME}\r\n".encode(), 250)
_DATA: Final = Item("DATA", Part("DATA", "DATA"), b"DATA\r\n", 354)
_POLITE: Final = Flight("220", (_GREETING,))


def _envelope(message: bytes) -> tuple[Item, Item]:
    mail = f"MAIL FROM:<{SENDER}> SIZE={len(message)} BODY=8BITMIME"
    rcpt = f"RCPT TO:<{RECIPIENT}>"
    return (
        Item("MAIL", Part("MAIL", f"MAIL FROM:<{SENDER}>"), f"{mail}\r\n".encode(), 250),
        Item("RCPT", Part("RCPT", rcpt), f"{rcpt}\r\n".encode(), 250),
    )


def _mail_data(message: bytes) -> Flight:
    stuffed = b"." + message if message.startswith(b".") else message
    wire = stuffed.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    part = Part("mail data", f"mail data, {len(message)} octets, and the final dot")
    return Flight("text", (Item("mail data", part, wire, 250),))


def _last_chunk(message: bytes) -> Item:
    command = f"BDAT {len(message)} LAST"
    part = Part(f"{command} + mail data", f"{command} + mail data")
    return Item("BDAT", part, f"{command}\r\n".encode() + message, 250)


def _lock_step(message: bytes) -> tuple[Flight, ...]:
    commands = (_EHLO, *_envelope(message), _DATA)
    return _POLITE, *(Flight(item.name, (item,)) for item in commands), _mail_data(message)


def _pipelined(message: bytes) -> tuple[Flight, ...]:
    group = Flight("MAIL…", (*_envelope(message), _DATA))
    return _POLITE, Flight("EHLO", (_EHLO,)), group, _mail_data(message)


def _early_data(message: bytes) -> tuple[Flight, ...]:
    return Flight("EHLO…", (_GREETING, _EHLO, *_envelope(message), _DATA)), _mail_data(message)


def _early_bdat(message: bytes) -> tuple[Flight, ...]:
    return (Flight("all", (_GREETING, _EHLO, *_envelope(message), _last_chunk(message))),)


_EARLY: Final = frozenset({EARLY_KEYWORD, "PIPELINING"})

WAYS: Final = (
    Way(
        key="lockstep",
        name="lock-step",
        title="lock-step, straight to the legacy MTA",
        direct=True,
        needs=frozenset(),
        plan=_lock_step,
    ),
    Way(
        key="pipelined",
        name="PIPELINING",
        title="PIPELINING, through smtpproxy",
        direct=False,
        needs=frozenset(),
        plan=_pipelined,
    ),
    Way(
        key="early-data",
        name="early, DATA",
        title="early pipelining with DATA",
        direct=False,
        needs=_EARLY,
        plan=_early_data,
    ),
    Way(
        key="early-bdat",
        name="early, BDAT",
        title="early pipelining with BDAT",
        direct=False,
        needs=_EARLY | {"CHUNKING"},
        plan=_early_bdat,
    ),
)
