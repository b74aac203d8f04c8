"""A smarthost delivers to a Postfix whose postscreen tests whether clients talk before it greets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from .clients import burst, post, send_at_once
from .lab import wait_for
from .messages import Sample, assert_intact, sample
from .outbound_clients import RelayingPostfix, relaying_postfix
from .outbound_exim import EximRemote, exim_remote
from .outbound_postscreen import ScreenedPostfix, screened_postfix
from .outbound_smarthost import Destination, Smarthost, Way, harmless, smarthost

pytestmark = pytest.mark.interop

by_action = pytest.mark.parametrize("action", ["enforce", "drop"])
KINDS = ["sample", "harmless"]
by_kind = pytest.mark.parametrize("kind", KINDS)
HOLD_BACK = 1.0


@pytest.fixture(scope="module")
def screened() -> Iterator[ScreenedPostfix]:
    """The remote."""
    with screened_postfix() as server:
        yield server


@pytest.fixture(scope="module")
def exim(server_pair: Any) -> Iterator[EximRemote]:
    """What was at the same address before."""
    with exim_remote(server_pair) as server:
        yield server


@pytest.fixture(scope="module")
def house(screened: ScreenedPostfix, exim: EximRemote) -> Iterator[Smarthost]:
    """A smarthost for which two domains have a postscreen, and others an Exim as yet."""
    ways = {
        **{f"{action}.test": Way(screened.screens[action][0]) for action in ("enforce", "drop")},
        **{f"{kind}.{action}.test": Way(exim.port) for action in ("enforce", "drop") for kind in KINDS},
    }
    others = {"cache": {"store": "memory:", "hold_back": f"{HOLD_BACK:g} s"}}
    with smarthost(ways, others=others) as made:
        yield made


@pytest.fixture(scope="module")
def client(house: Smarthost) -> Iterator[RelayingPostfix]:
    """A mail server that hands everything to the smarthost."""
    with relaying_postfix(f"smtp:[127.0.0.1]:{house.port}") as server:
        yield server


@by_action
def test_it_is_met_politely(house: Smarthost, screened: ScreenedPostfix, client: RelayingPostfix, action: str) -> None:
    """The first message and the ones after it: postscreen never sees anybody talk early."""
    where = house.destinations[f"{action}.test"]
    for _ in range(3):
        message = sample()
        post(client.port, message, where.to())
        client.emptied()
        assert_intact(screened.delivered(), message, (where.to(),))
        assert where.conversation().before_greeting == b""
    assert "PREGREET" not in screened.log()


@by_action
@by_kind
def test_where_an_exim_was_before(
    house: Smarthost, screened: ScreenedPostfix, exim: EximRemote, client: RelayingPostfix, *, action: str, kind: str
) -> None:
    """C6, C7: the first flight of commands, or with the whole message in it, meets a postscreen. Without mail data in
    it the message is delivered politely at once; else the client has to try again. Either way it arrives once.
    """
    where = house.destinations[f"{kind}.{action}.test"]
    where.line.hold = 0.5
    assert [learn(where, exim, kind) for _ in range(4)] == [False, True, True, True]
    pregreets = screened.log().count("PREGREET")
    where.line.target, where.line.hold = screened.screens[action][1 + KINDS.index(kind)], 0.0
    for _ in range(2):
        message = make(kind)
        post(client.port, message, where.to())
        client.emptied()
        assert_intact(screened.delivered(), message, (where.to(),))
    ends = re.findall(rf" to=<{re.escape(where.to())}>,.* status=(\w+)", client.log())
    assert ends == (["deferred"] if kind == "harmless" else []) + ["sent"] * 2
    assert screened.log().count("PREGREET") == pregreets + 1
    failed = [event for event in house.events("early_pipelining_failed") if where.is_about(event)]
    assert failed
    assert failed[0]["held_back"] is True

    # The Exim is there again: it is learned anew, and talked to early when the time of holding back is over.
    where.line.target, where.line.hold = exim.port, 0.3
    wait_for(lambda: learn(where, exim, kind), "early pipelining, after a while", 15.0)


def make(kind: str) -> Sample:
    """A message of a kind: only the harmless ones leave early as a whole."""
    return harmless(sample()) if kind == "harmless" else sample()


def learn(where: Destination, exim: EximRemote, kind: str) -> bool:
    """Send a message to Exim; gives whether that was early."""
    message = make(kind)
    assert send_at_once(where.smarthost.port, burst(message, where.to()))[1] == [220, 250, 250, 250, 250, 221]
    assert_intact(exim.delivered(), message, (where.to(),))
    return where.conversation().before_greeting != b""
