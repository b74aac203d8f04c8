"""Both directions of smtpproxy back to back: a mail server, a smarthost, a long line, an inbound listener, a Postfix
that has neither early pipelining nor TLS. On the line there is nothing but early flights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .clients import burst, post, send_at_once
from .fronts import Front, fronts, tls
from .fronts import Way as InboundWay
from .messages import assert_intact, sample
from .outbound_clients import RelayingPostfix, relaying_postfix
from .outbound_smarthost import Destination, Smarthost, Way, harmless, smarthost
from .postfix import Postfix
from .relay import Conversation

pytestmark = pytest.mark.interop

LINE = 0.05
"""Seconds that everything is under way between the two, so that what is sent together arrives together."""
MODES = ["clear", "starttls"]
by_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def inbound(postfix_plain: Postfix, server_pair: Any) -> Iterator[dict[str, Front]]:
    """The far end."""
    settings = {"recipient_domains": [f"{mode}.test" for mode in MODES] + [f"kept.{mode}.test" for mode in MODES]}
    ways = {
        "clear": InboundWay(postfix_plain.port, {}, settings),
        "starttls": InboundWay(postfix_plain.port, {}, {**settings, **tls("starttls-required", server_pair)}),
    }
    with fronts(ways) as made:
        yield made


@pytest.fixture(scope="module")
def house(inbound: dict[str, Front], lasting_pki: Any) -> Iterator[Smarthost]:
    """The near end."""
    modes = {
        "clear": {"mode": "none"},
        "starttls": {"mode": "verified", "name": "mx.lab.test", "ca": str(lasting_pki.root.path)},
    }
    ways = {f"{mode}.test": Way(inbound[mode].port, {"tls": modes[mode]}) for mode in MODES}
    ways |= {f"kept.{mode}.test": Way(inbound[mode].port, {"tls": modes[mode], "reuse": True}) for mode in MODES}
    with smarthost(ways) as made:
        for where in made.destinations.values():
            where.line.delay = LINE
        yield made


@pytest.fixture(scope="module")
def client(house: Smarthost) -> Iterator[RelayingPostfix]:
    """A mail server that hands everything to the smarthost."""
    with relaying_postfix(f"smtp:[127.0.0.1]:{house.port}") as server:
        yield server


def flights(seen: Conversation) -> list[bytes]:
    """What the client sent in each of its flights: without hearing anything from the server in between."""
    sent: list[bytes] = []
    heard = True
    for event in seen.events:
        if event.side == "server":
            heard = heard or bool(event.data)
        elif event.data and heard:
            sent.append(event.data)
            heard = False
        elif event.data:
            sent[-1] += event.data
    return sent


def learn(house: Smarthost, where: Destination, server: Postfix) -> None:
    """Send messages until the far end is known well enough."""
    for _ in range(3):
        message = harmless(sample())
        assert send_at_once(house.port, burst(message, where.to()))[1] == [220, 250, 250, 250, 250, 221]
        assert_intact(server.delivered(), message, (where.to(),))
        where.conversation()


@by_mode
def test_nothing_but_early_flights(
    house: Smarthost, client: RelayingPostfix, postfix_plain: Postfix, mode: str
) -> None:
    """A message from a mail server: in clear text everything in one flight; with TLS one to ask for it, one for the
    handshake, and one with the rest of the handshake and everything else.
    """
    where = house.destinations[f"{mode}.test"]
    learn(house, where, postfix_plain)
    for _ in range(3):
        message = harmless(sample())
        post(client.port, message, where.to())
        client.emptied()
        assert_intact(postfix_plain.delivered(), message, (where.to(),))
        sent = flights(where.conversation())
        sent = [flight.removesuffix(b"QUIT\r\n") for flight in sent if flight != b"QUIT\r\n"]
        if mode == "clear":
            (flight,) = sent
            lines = flight.split(b"\r\n")
            assert [line.split(b" ")[0] for line in lines[:3]] == [b"EHLO", b"MAIL", b"RCPT"]
            assert lines[3].startswith(b"BDAT ")
            assert lines[3].endswith(b" LAST")
            assert flight.endswith(message.body.replace(b"\n", b"\r\n"))
        else:
            assert sent[0] == b"EHLO smarthost.lab.test\r\nSTARTTLS\r\n"
            assert len(sent) in (3, 4), [len(flight) for flight in sent]
            assert len(sent[2]) > len(message.wire)
    delivery = where.deliveries()[-1]
    assert (delivery["early"], delivery["one_flight"]) == (True, True)


@by_mode
def test_the_next_message_takes_one_flight(house: Smarthost, postfix_plain: Postfix, mode: str) -> None:
    """On a kept session."""
    where = house.destinations[f"kept.{mode}.test"]

    for number in range(3):
        message = sample()
        before = len(flights(where.line.conversations[-1])) if number else 0
        assert send_at_once(house.port, burst(message, where.to()))[1] == [220, 250, 250, 250, 250, 221]
        assert_intact(postfix_plain.delivered(), message, (where.to(),))
        if number:
            assert len(flights(where.line.conversations[-1])) == before + 1
    assert len(where.line.conversations) == 1


@by_mode
def test_other_messages(house: Smarthost, client: RelayingPostfix, postfix_plain: Postfix, mode: str) -> None:
    """All the awkward lines, and 1 MiB."""
    where = house.destinations[f"{mode}.test"]
    for message in (sample(), sample(size=1 << 20), sample()):
        post(client.port, message, where.to())
        client.emptied()
        assert_intact(postfix_plain.delivered(), message, (where.to(),))
