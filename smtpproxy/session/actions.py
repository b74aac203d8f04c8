"""What a relay wants its owner to do besides writing."""

from __future__ import annotations

from enum import Enum


class Action(Enum):
    """One thing to do; the value says it in words."""

    CONNECT = "open or borrow a backend session"
    NEXT_SERVER = "this server cannot serve: drop its connection, try another one (rule S19)"
    ABORT_BACKEND = "reset the backend connection: nothing that it has half of may count (rules S10, S15)"
    DROP_BACKEND = "close the backend connection"
    QUIT_BACKEND = "take leave of the backend, then close"
    AWAIT_CLOSE = "leave has been taken of the backend: close when it has answered"
    RELEASE_BACKEND = "keep the backend session for another client"
    PROBE_CLIENT = "read once more, without waiting, and report by client_received or client_quiet (rule H4)"
    START_TLS = "go on inside TLS with the client, by another relay (rule S6)"
    START_BACKEND_TLS = "begin TLS with the backend, and report by backend_secured"
    CHANGE_CLIENT = "go on with the client that XCLIENT has named, by another relay"
    IDENTIFY_CLIENT = "find out who the client is, and report by client_identified"
    CLOSE_CLIENT = "close the client connection when everything is written"

    # They are looked up in a table for every session; each is the only one of its name.
    __hash__ = object.__hash__
