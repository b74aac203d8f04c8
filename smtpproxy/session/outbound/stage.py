"""Where a delivery stands, what it wants done, and how far one try of it has come."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smtpproxy.smtp.chunks import ChunkStuffer


class Stage(IntEnum):
    """Where a delivery stands."""

    SEARCHING = 1
    OPENING = 2
    TALKING = 3
    DONE = 4


class Errand(Enum):
    """One thing that a delivery wants its owner to do besides writing."""

    FIND_TARGETS = "find out where the message can go, and report by targets_found"
    OPEN = "lend a kept session with the target, or open one; report by begin or borrow"
    START_TLS = "begin TLS with the remote, and report by remote_secured"
    KEEP = "keep the session for another delivery"
    QUIT = "take leave of the remote, and close without waiting (rule C9)"
    DROP = "reset the connection: nothing that the remote has half of may count"


class Progress:
    """How far one try has come."""

    __slots__ = (
        "answered",
        "by",
        "finished",
        "go_ahead",
        "mail_refusal",
        "mail_sent",
        "rcpts_sent",
        "stuffer",
    )

    def __init__(self) -> None:
        self.mail_sent = False
        self.rcpts_sent = 0
        self.answered = 0
        """Recipients that the remote has answered."""
        self.mail_refusal = b""
        self.by = b""
        """How the message leaves: BDAT, DATA, or empty as long as it does not."""
        self.go_ahead = False
        self.finished = False
        """Whether its last octet has been sent."""
        self.stuffer: ChunkStuffer | None = None
