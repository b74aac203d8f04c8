"""What happened on the client's side of one session, and when: the input of the pictures and the table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Direction(Enum):
    """Which way an event's bytes went, as the client sees it."""

    SENT = "sent"
    RECEIVED = "received"


@dataclass(frozen=True, slots=True)
class Part:
    """One command, reply or message in an event.

    Attributes:
        short: a word or two, for a crowded line ("MAIL", "250").
        full: what a human wants to see if there is room ("MAIL FROM:<alice@client.example>").
    """

    short: str
    full: str


@dataclass(frozen=True, slots=True)
class Event:
    """Bytes that left or came at one moment.

    Attributes:
        at: milliseconds since the client's SYN.
        direction: sent or received.
        parts: what they were, in order.
    """

    at: float
    direction: Direction
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """One round trip: the client could not go on before something came back.

    Attributes:
        label: what it waited for ("TCP", "220", "MAIL").
        until: milliseconds since the client's SYN at which it had it.
    """

    label: str
    until: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """One message's way, from SYN to the reply to the end of data; QUIT is not part of it.

    Attributes:
        events: all that was sent and received, in order of time.
        waits: the round trips, in order of time; the last one ends with the final reply.
        extensions: the keywords, with their parameters, of the EHLO reply.
    """

    events: tuple[Event, ...]
    waits: tuple[Wait, ...]
    extensions: tuple[str, ...]

    @property
    def round_trips(self) -> int:
        """How many times the client had to wait for the other end of the line."""
        return len(self.waits)

    @property
    def milliseconds(self) -> float:
        """Time from SYN to the final reply."""
        return self.waits[-1].until
