"""The two state tables, pair by pair: what is in them moves, everything else is a bug of ours and raises."""

from __future__ import annotations

from enum import IntEnum
from itertools import product

import pytest

from smtpproxy.session import backend, frontend
from smtpproxy.session.answers import TABLE as ANSWERS
from smtpproxy.session.commands import TABLE as COMMANDS
from smtpproxy.smtp import commands as verbs
from smtpproxy.smtp.commands import Verb

# What the docstrings of the two modules draw, written down once more.
FRONTEND = """
COMMANDS       DATA          AWAIT_DATA
AWAIT_DATA     GO_AHEAD      MAIL_DATA
AWAIT_DATA     REFUSED       COMMANDS
MAIL_DATA      END_OF_DATA   COMMANDS
COMMANDS       BDAT          CHUNK
CHUNK          END_OF_CHUNK  COMMANDS
COMMANDS       AUTH          AWAIT_AUTH
AWAIT_AUTH     CHALLENGE     AUTH_RESPONSE
AWAIT_AUTH     AUTH_DONE     COMMANDS
AUTH_RESPONSE  RESPONSE      AWAIT_AUTH
COMMANDS       STARTTLS      AWAIT_TLS
COMMANDS       XCLIENT       AWAIT_CLIENT
"""
BACKEND = """
GREETING  GREETED      READY
READY     GO_AHEAD     MESSAGE
MESSAGE   END_OF_DATA  READY
READY     STARTTLS     TLS
TLS       TLS_ENDED    READY
"""


def drawn(picture: str, states: type[IntEnum], events: type[IntEnum]) -> dict[tuple[IntEnum, IntEnum], IntEnum]:
    """Read a picture; CLOSE leads from every state to CLOSED."""
    table = {}
    for line in picture.split("\n"):
        if line:
            state, event, target = line.split()
            table[states[state], events[event]] = states[target]
    for state in states:
        table[state, events["CLOSE"]] = states["CLOSED"]
    return table


def _name(value: IntEnum) -> str:
    return value.name


FRONTEND_TABLE = drawn(FRONTEND, frontend.State, frontend.Event)
BACKEND_TABLE = drawn(BACKEND, backend.State, backend.Event)


@pytest.mark.parametrize(("state", "event"), list(product(frontend.State, frontend.Event)), ids=_name)
def test_frontend(state: frontend.State, event: frontend.Event) -> None:
    tried = frontend.Frontend(512, 512)
    tried.state = state
    target = FRONTEND_TABLE.get((state, event))
    if target is None:
        with pytest.raises(KeyError):
            tried.move(event)
        assert tried.state is state
    else:
        tried.move(event)
        assert tried.state is target


@pytest.mark.parametrize(("state", "event"), list(product(backend.State, backend.Event)), ids=_name)
def test_backend(state: backend.State, event: backend.Event) -> None:
    tried = backend.Backend(lockstep=False)
    tried.state = state
    target = BACKEND_TABLE.get((state, event))
    if target is None:
        with pytest.raises(KeyError):
            tried.move(event)
        assert tried.state is state
    else:
        tried.move(event)
        assert tried.state is target


def test_the_tables_have_nothing_else() -> None:
    assert FRONTEND_TABLE == frontend.TRANSITIONS
    assert BACKEND_TABLE == backend.TRANSITIONS


def test_frontend_and_backend_begin_where_the_pictures_begin() -> None:
    assert frontend.Frontend(512, 512).state is frontend.State.COMMANDS
    assert backend.Backend(lockstep=False).state is backend.State.GREETING


def test_every_verb_has_its_place() -> None:
    """What a client can send has a function in the one table, what a backend is asked in the other."""
    known = {name: value for name, value in vars(verbs).items() if isinstance(value, Verb)}
    of_clients = set(verbs.VERBS.values()) | verbs.NO_COMMANDS | {verbs.AUTH_RESPONSE}
    never_asked = verbs.NO_COMMANDS | {verbs.LHLO, verbs.QUIT, verbs.CLOSING, verbs.STARTTLS, verbs.XCLIENT}
    assert set(COMMANDS) == of_clients
    assert set(ANSWERS) == set(known.values()) - never_asked
