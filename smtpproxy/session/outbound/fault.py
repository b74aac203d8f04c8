"""Why a session with a remote is of no use any more."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class Kind(Enum):
    """What went wrong with a session."""

    LOST = "the connection was lost, or the remote was silent for too long"
    GREETING = "it does not want to talk to us"
    HELLO = "it refused EHLO"
    TLS = "there is no TLS, or not with the right server"
    LOGIN = "it did not let us log in"
    NONSENSE = "what it said is no reply, or one too many"
    CLOSING = "it closes (421)"
    CLOSING_AT_MAIL = "it closes (421) in place of beginning a transaction"


class Fault(NamedTuple):
    """Why a session with a remote is of no use any more."""

    kind: Kind
    why: str
    reply: bytes = b""
    """Its last word, if it had one."""


_MOST_QUOTED: Final = 300


def quoted(reply: bytes) -> str:
    """Write what a remote has said for the log, which need not have all of it."""
    return repr(reply if len(reply) <= _MOST_QUOTED else reply[:_MOST_QUOTED] + b"...")


def not_closing(reply: bytes) -> bytes:
    """Give a reply with 451 for 421: that the remote closes is no reason to close the client's connection."""
    if reply[:3] != b"421":
        return reply
    return b"451" + reply.replace(b"\r\n421", b"\r\n451")[3:]
