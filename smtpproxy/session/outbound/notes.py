"""What a session with a remote has to tell the cache of EHLO replies and the log."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Finding(Enum):
    """One thing found out about a remote."""

    LEARNED = "it offers something else than was known (rules C1, C3)"
    CONFIRMED = "it offers what was known"
    FLUSHED = "early pipelining with it has failed (rules C3, C4)"
    REFUSED = "something of an early flight was refused, as happens to everybody (rule C4)"
    HELD_BACK = "it does not take early talk at all (rule C6)"
    DOWNGRADED = "it offered STARTTLS before, and does not now"


class Note(NamedTuple):
    """A finding, and about which state of TLS."""

    finding: Finding
    secure: bool
    lines: tuple[bytes, ...] = ()
    """The keyword lines of LEARNED and CONFIRMED."""
