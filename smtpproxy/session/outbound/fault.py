"""Why a session with a remote is of no use any more."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What went wrong with a session."""

    LOST = "the connection was lost, or the remote was silent for too long"
    GREETING = "it does not want to talk to us"
    HELLO = "it refused EHLO"
    TLS = "there is no TLS, or not with the right server"
    LOGIN = "it did not let us log in"
    NONSENSE = "what it said is no reply, or one too many"
    CLOSING = "it closes (421)"


class Fault(NamedTuple):
    """Why a session with a remote is of no use any more."""

    kind: Kind
    why: str
    reply: bytes = b""
    """Its last word, if it had one."""
