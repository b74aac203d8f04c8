"""A smarthost delivers to Exim 4.96, which offers early pipelining: learned, used, in clear text and TLS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .clients import burst, post, send_at_once
from .conversation import codes, conversation
from .messages import Sample, assert_intact, sample
from .outbound_clients import RelayingPostfix, relaying_postfix
from .outbound_exim import EximRemote, exim_remote, pipelining
from .outbound_smarthost import Destination, Smarthost, Way, harmless, smarthost

pytestmark = pytest.mark.interop

BY = ["BDAT", "DATA"]
TLS = ["clear", "starttls"]
by_command = pytest.mark.parametrize("command", BY)
by_tls = pytest.mark.parametrize("tls", TLS)


@pytest.fixture(scope="module")
def exim(server_pair: Any) -> Iterator[EximRemote]:
    """The remote."""
    with exim_remote(server_pair, pause=0.1) as server:
        yield server


@pytest.fixture(scope="module")
def house(exim: EximRemote, lasting_pki: Any) -> Iterator[Smarthost]:
    """A domain for each way to reach it, and each of them for each kind of test: what is learned is learned once."""
    modes = {
        "clear": {"mode": "none"},
        "starttls": {"mode": "verified", "name": "mx.lab.test", "ca": str(lasting_pki.root.path)},
    }
    ways = {
        f"{kind}.{tls}.{command.lower()}.test": Way(exim.port if command == "BDAT" else exim.data, {"tls": modes[tls]})
        for kind in ("postfix", "rides", "big")
        for tls in TLS
        for command in BY
    }
    ways["kept.test"] = Way(exim.port, {"reuse": True})
    ways["odd.test"] = Way(exim.port)
    ways["odd.data.test"] = Way(exim.data)
    ways["verdicts.test"] = Way(exim.port)
    ways["shy.test"] = Way(exim.port, {"early_pipelining": False})
    ways["polite.test"] = Way(exim.polite)
    with smarthost(ways) as made:
        yield made


@pytest.fixture(scope="module")
def client(house: Smarthost) -> Iterator[RelayingPostfix]:
    """A mail server that hands everything to the smarthost."""
    with relaying_postfix(f"smtp:[127.0.0.1]:{house.port}") as server:
        yield server


def destination(house: Smarthost, kind: str, tls: str, command: str) -> Destination:
    """One of them."""
    return house.destinations[f"{kind}.{tls}.{command.lower()}.test"]


def first_flight(where: Destination) -> list[bytes]:
    """The commands that the remote got before it had said anything, in the last conversation."""
    return where.conversation().before_greeting.split(b"\r\n")[:-1]


def assert_told_by_exim(signs: list[str]) -> None:
    """Exim's log shows the first message as polite and later ones as early.

    It takes for early what has come by the time of its greeting: the recorder may be late once, not always.
    """
    assert signs[0] == "L."
    assert "L*" in signs[1:], signs


@by_tls
@by_command
def test_from_the_second_message_on_it_is_early(
    house: Smarthost, exim: EximRemote, client: RelayingPostfix, tls: str, command: str
) -> None:
    """C1 to C3, from a Postfix: the first delivery learns; the next ones send their first flight before the greeting,
    MAIL never in clear where TLS is wanted, and nothing of a message before its recipient was accepted.
    """
    where = destination(house, "postfix", tls, command)
    signs: list[str] = []
    for number in range(1, 4):
        message = sample()
        where.line.hold = 0.3 if number == 1 else 5.0
        post(client.port, message, where.to())
        client.emptied()
        delivery = where.next_delivery(number)
        assert "250 OK id=" in delivery["reply"], delivery
        assert delivery["tries"] == 1
        assert delivery.get("early", False) is (number > 1)
        arrival = exim.arrival(message)
        signs.append(pipelining(arrival))
        assert (" K " in arrival) is (command == "BDAT"), arrival
        assert (" X=TLS1.3" in arrival) is (tls == "starttls"), arrival
        verbs = [line.split(b" ")[0] for line in first_flight(where)]
        if number == 1:
            assert verbs == []
        elif tls == "starttls":
            assert verbs == [b"EHLO", b"STARTTLS"]
        else:
            assert verbs == [b"EHLO", b"MAIL", b"RCPT", *([b"DATA"] if command == "DATA" else [])]
        assert_intact(exim.delivered(), message, (where.to(),))
    assert_told_by_exim(signs)


@by_tls
@by_command
def test_a_whole_message_in_the_first_flight(house: Smarthost, exim: EximRemote, tls: str, command: str) -> None:
    """C8: when the remote was found twice as it is remembered, and nothing in the message looks like a command; and
    never where the remote has no CHUNKING.
    """
    where = destination(house, "rides", tls, command)
    signs: list[str] = []
    for number in range(1, 6):
        message = harmless(sample(), 3000)
        where.line.hold = 0.3 if number == 1 else 5.0
        assert send_at_once(house.port, burst(message, where.to()))[1] == [220, 250, 250, 250, 250, 221]
        delivery = where.next_delivery(number)
        rides = number > 3 and command == "BDAT"
        signs.append(pipelining(exim.arrival(message)))
        if tls == "clear":
            octets = where.conversation().before_greeting
            assert (message.wire in octets) is rides, octets[:300]
        if number > 3:
            assert delivery.get("one_flight", False) is rides, delivery
        assert_intact(exim.delivered(), message, (where.to(),))
    assert_told_by_exim(signs)


def test_a_message_that_looks_like_commands_waits(house: Smarthost, exim: EximRemote) -> None:
    """C8: a server that has lost CHUNKING would obey it."""
    where = house.destinations["odd.test"]
    for _ in range(4):
        message = sample()
        assert send_at_once(house.port, burst(message, where.to()))[1] == [220, 250, 250, 250, 250, 221]
        assert_intact(exim.delivered(), message, (where.to(),))
    assert b"MAIL FROM:<sender@lab.test>" in where.conversation().before_greeting
    assert b"BDAT" not in where.conversation().before_greeting


@by_tls
@by_command
def test_a_large_message(house: Smarthost, exim: EximRemote, client: RelayingPostfix, tls: str, command: str) -> None:
    """1 MiB, from Postfix (DATA) and in one chunk, polite and early."""
    where = destination(house, "big", tls, command)
    for _ in range(2):
        message = sample(size=1 << 20)
        post(client.port, message, where.to())
        client.emptied()
        assert_intact(exim.delivered(), message, (where.to(),))
        message = sample(size=1 << 20)
        assert send_at_once(house.port, burst(message, where.to()))[1] == [220, 250, 250, 250, 250, 221]
        assert_intact(exim.delivered(), message, (where.to(),))


@pytest.mark.parametrize("domain", ["odd.test", "odd.data.test"])
def test_a_message_without_a_last_line_end(house: Smarthost, exim: EximRemote, domain: str) -> None:
    """As it is in chunks; DATA cannot say it, so it gets one. Exim's file has one in both cases."""
    where = house.destinations[domain]
    for _ in range(2):
        message = sample()
        cut = Sample(message.token, message.body.removesuffix(b"\n") + b"the end")
        assert send_at_once(house.port, burst(cut, where.to()))[1] == [220, 250, 250, 250, 250, 221]
        assert_intact(exim.delivered(), Sample(cut.token, cut.body + b"\n"), (where.to(),))
        where.conversation()
        sent = where.conversation().sent_by("client")
        assert (cut.wire in sent) is (domain == "odd.test")


def test_addresses_in_utf_8(house: Smarthost, exim: EximRemote) -> None:
    """SMTPUTF8 and its parameter reach a remote that offers it."""
    where = house.destinations["odd.test"]
    message = sample()
    octets = burst(message, where.to()).replace(
        b"MAIL FROM:<sender@lab.test>", "MAIL FROM:<größe@lab.test> SMTPUTF8 BODY=8BITMIME".encode(), 1
    )
    assert send_at_once(house.port, octets)[1] == [220, 250, 250, 250, 250, 221]
    assert_intact(exim.delivered(), message, (where.to(),))
    assert " <= größe@lab.test " in exim.arrival(message)


def test_verdicts_are_the_remotes_own(house: Smarthost, exim: EximRemote) -> None:
    """A refused and a deferred recipient among others, politely and early; each flushes what was learned (C4)."""
    where = house.destinations["verdicts.test"]
    for _ in range(3):
        message = sample()
        names = [where.to(name) for name in ("one", "refused", "later", "two")]
        with conversation(house.port) as talk:
            talk.send_octets(burst(message, *names))
            replies = talk.replies()
        assert codes(replies) == [220, 250, 250, 250, 550, 451, 250, 250, 221]
        assert replies[4].text == "5.1.1 no such user"
        assert replies[5].text == "4.2.0 come back later"
        assert_intact(exim.delivered(), message, (names[0], names[3]))
        assert send_at_once(house.port, burst(sample(), where.to("refused")))[1][3] == 550


def test_a_session_that_is_kept(house: Smarthost, exim: EximRemote) -> None:
    """One connection for several messages; all of a message in one flight."""
    where = house.destinations["kept.test"]
    messages = [sample() for _ in range(4)]
    for message in messages:
        assert send_at_once(house.port, burst(message, where.to()))[1] == [220, 250, 250, 250, 250, 221]
    where.next_delivery(len(messages))
    deliveries = where.deliveries()
    stored = exim.delivered()
    for message in messages:
        assert_intact(stored, message, (where.to(),))
    assert [delivery.get("reused", False) for delivery in deliveries] == [False, True, True, True]
    (line,) = where.line.conversations
    sent = [event.data for event in line.events if event.side == "client"]
    assert sum(data.startswith(b"MAIL FROM:") and b"BDAT" in data for data in sent) >= 3, sent


@pytest.mark.parametrize(("domain", "sign"), [("shy.test", "L."), ("polite.test", "L")])
def test_without_the_extension(house: Smarthost, exim: EximRemote, domain: str, sign: str) -> None:
    """`early_pipelining: no`, and a remote that does not offer it: nothing comes before the greeting."""
    where = house.destinations[domain]
    where.line.hold = 0.3
    for number in range(1, 4):
        message = sample()
        assert send_at_once(house.port, burst(message, where.to()))[1] == [220, 250, 250, 250, 250, 221]
        assert not where.next_delivery(number).get("early")
        assert where.conversation().before_greeting == b""
        assert pipelining(exim.arrival(message)) == sign
        assert_intact(exim.delivered(), message, (where.to(),))
