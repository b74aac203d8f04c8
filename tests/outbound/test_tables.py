"""The state table of a session with a remote, pair by pair: everything that is not in it raises."""

from __future__ import annotations

from itertools import product

import pytest
from session.test_tables import drawn

from smtpproxy.session.outbound.policy import RemotePolicy
from smtpproxy.session.outbound.remote import Remote
from smtpproxy.session.outbound.states import TRANSITIONS, Event, State
from smtpproxy.session.outbound.target import Target

# What the docstring of remote.py draws, written down once more.
REMOTE = """
GREETING  GREETED   HELLO
HELLO     UPGRADE   STARTTLS
STARTTLS  GO_AHEAD  TLS
STARTTLS  SETTLED   READY
TLS       SECURED   HELLO
HELLO     LOG_IN    LOGIN
LOGIN     SETTLED   READY
HELLO     SETTLED   READY
"""
TABLE = drawn(REMOTE, State, Event)


def remote() -> Remote:
    """Give a session that has just begun."""
    return Remote(Target("mx.example", "192.0.2.1", 25), RemotePolicy(hostname=b"proxy.example"))


def _name(value: State | Event) -> str:
    return value.name


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)), ids=_name)
def test_remote(state: State, event: Event) -> None:
    tried = remote()
    tried.state = state
    target = TABLE.get((state, event))
    if target is None:
        with pytest.raises(KeyError):
            tried.move(event)
        assert tried.state is state
    else:
        tried.move(event)
        assert tried.state is target


def test_the_table_has_nothing_else() -> None:
    assert TABLE == TRANSITIONS


def test_a_session_begins_where_the_picture_begins() -> None:
    assert remote().state is State.GREETING
