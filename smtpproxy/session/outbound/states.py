"""How far a remote has answered: the states of a session with it, and every way from one to another."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class State(IntEnum):
    """How far the remote has answered."""

    GREETING = 1
    HELLO = 2
    STARTTLS = 3
    TLS = 4
    LOGIN = 5
    READY = 6
    CLOSED = 7


class Event(IntEnum):
    """What moves the session on."""

    GREETED = 1
    UPGRADE = 2
    GO_AHEAD = 3
    SECURED = 4
    LOG_IN = 5
    SETTLED = 6
    CLOSE = 7


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.GREETING, Event.GREETED): State.HELLO,
    (State.HELLO, Event.UPGRADE): State.STARTTLS,
    (State.STARTTLS, Event.GO_AHEAD): State.TLS,
    (State.STARTTLS, Event.SETTLED): State.READY,
    (State.TLS, Event.SECURED): State.HELLO,
    (State.HELLO, Event.LOG_IN): State.LOGIN,
    (State.LOGIN, Event.SETTLED): State.READY,
    (State.HELLO, Event.SETTLED): State.READY,
    **{(state, Event.CLOSE): State.CLOSED for state in State},
}
