"""A session goes on for the client that a trusted proxy has named; limits and offers are its own (H6, S14, S18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .stage import CLIENT, EHLO_REPLY, OWN, Client, Stage
from .tlsstage import EHLO, GREETING, OK

PROXY = CLIENT
NAMED = "203.0.113.5"
TRUSTED: dict[str, Any] = {"trusted": {"xclient": ["192.0.2.0/24"]}}
Make = Callable[..., Stage]


def behind_a_proxy(stage: Make, *, listener: Any = None, backend: Any = None) -> Stage:
    """A stage whose clients are a proxy that is trusted."""
    return stage(listener=TRUSTED | (listener or {}), backend={"identity": "none"} | (backend or {}))


def named(client: Client, line: bytes = b"XCLIENT ADDR=203.0.113.5\r\n") -> bytes:
    """Let the proxy name somebody; give what it is told."""
    return client.send(line)


# --- XCLIENT from a proxy in front ----------------------------------------------------------------------------------


def test_h6_the_session_is_the_named_clients_from_then_on(stage: Make) -> None:
    play = behind_a_proxy(stage)
    client = play.greeted()
    line = (
        b"XCLIENT NAME=mail.client.example ADDR=203.0.113.5 PORT=51000 LOGIN=joe DESTADDR=198.51.100.1 DESTPORT=587\r\n"
    )
    assert named(client, line) == GREETING
    session = client.session
    assert session.address == session.counted == NAMED
    vouched = session.vouched
    assert (vouched.via, vouched.port, vouched.name, vouched.login) == (PROXY, 51000, b"mail.client.example", b"joe")
    assert vouched.destination == ("198.51.100.1", 587)
    assert len(play.dialler.legs) == 1, "the session with the server goes on where that may not know the client"
    client.send(EHLO)
    assert play.asked() == EHLO
    play.answer(EHLO_REPLY)
    assert b"XCLIENT NAME ADDR" in client.take()
    client.send(b"QUIT\r\n")
    assert len(play.journal.sessions) == 1


@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2", "source-address"])
def test_s18_where_the_connection_says_who_the_client_is_there_is_a_new_one(stage: Make, identity: str) -> None:
    play = behind_a_proxy(stage, backend={"identity": identity})
    client = play.greeted()
    first = play.dialler.wires[0]
    assert named(client) == b""
    assert first.take().endswith(b"QUIT\r\n")
    assert len(play.dialler.legs) == 2, "one, and no more"
    play.answer(GREETING)
    assert client.take() == GREETING
    client.vanish()


@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2"])
@pytest.mark.parametrize("address", [CLIENT, ""])
def test_s14_a_client_named_without_a_destination_is_still_named_to_the_server(
    stage: Make, identity: str, address: str
) -> None:
    """Else the server would take it for the proxy itself, and relay for it."""
    play = stage(
        listener={"trusted": {"xclient": ["192.0.2.0/24"]}, "recipient_domains": "any"}, backend={"identity": identity}
    )
    client = play.client(CLIENT)
    client.session.transport._address = address  # where it came in may be a Unix socket
    play.answer(GREETING)
    client.take()
    named(client)
    header = play.dialler.wires[-1].take()
    if identity == "proxy-v1":
        assert header.startswith(b"PROXY TCP4 203.0.113.5 %s " % (OWN.encode() if address else b"0.0.0.0"))
    else:
        assert header[12] == 0x21
        assert header[16:20] == bytes([203, 0, 113, 5])
    client.vanish()


def test_s6_nothing_that_the_proxy_said_before_counts(stage: Make) -> None:
    play = behind_a_proxy(stage)
    client = play.greeted()
    client.send(EHLO)
    play.answer(EHLO_REPLY)
    client.take()
    assert named(client) == GREETING
    assert client.send(b"MAIL FROM:<a@b.example>\r\n") == b"503 5.5.1 Send EHLO first\r\n"


def test_what_follows_in_the_same_packet_is_the_named_clients(stage: Make) -> None:
    """A proxy that is trusted may send it all at once."""
    play = behind_a_proxy(stage)
    client = play.client()
    client.send(b"XCLIENT ADDR=203.0.113.5\r\nEHLO real.example\r\nMAIL FROM:<a@b.example>\r\n")
    play.answer(GREETING)
    assert client.session.address == NAMED
    assert play.asked() == b"EHLO real.example\r\n"
    play.answer(EHLO_REPLY)
    assert play.asked() == b"MAIL FROM:<a@b.example>\r\n"
    play.answer(OK)
    assert client.take().startswith(GREETING + GREETING + b"250-mx.example.org\r\n")


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8::7", ""])
def test_h6_others_are_not_believed(stage: Make, address: str) -> None:
    play = behind_a_proxy(stage)
    client = play.greeted(address)
    assert named(client) == b"550 5.7.0 XCLIENT not allowed\r\n"
    assert (client.session.address, client.session.vouched) == (address, None)


def test_h6_who_was_named_by_a_header_is_not_the_proxy_any_more(stage: Make) -> None:
    trusted = {"proxy_protocol": ["192.0.2.0/24"], "xclient": ["192.0.2.0/24"]}
    play = stage(listener={"proxy_protocol": "required", "trusted": trusted}, backend={"identity": "none"})
    client = play.client()
    client.transport.protocol.dataReceived(b"PROXY TCP4 203.0.113.5 192.0.2.1 1 25\r\n")
    play.answer(GREETING)
    client.take()
    assert named(client, b"XCLIENT ADDR=127.0.0.1\r\n").startswith(b"550 5.7.0 ")


def test_limits_are_for_the_named_client(stage: Make) -> None:
    play = behind_a_proxy(stage, listener={"limits": {"sessions_per_client": 1}})
    crowd = [play.greeted() for _ in range(3)]
    assert named(crowd[0]) == GREETING, "who speaks for many is not one client"
    refused = named(crowd[1])
    assert refused == b"421 4.3.2 proxy.example.org Too many sessions from this client, try again later\r\n"
    assert crowd[1].transport.half_closed
    assert play.journal.refused == [("mx", NAMED, "too many sessions from this client")]
    assert named(crowd[2], b"XCLIENT ADDR=203.0.113.6\r\n") == GREETING
    assert play.context.sessions == 2
    crowd[0].send(b"QUIT\r\n")
    again = play.greeted()
    assert named(again) == GREETING


def test_a_client_may_be_named_twice(stage: Make) -> None:
    play = behind_a_proxy(stage, listener={"limits": {"sessions_per_client": 1}})
    client = play.greeted()
    assert named(client) == GREETING
    assert named(client, b"XCLIENT LOGIN=joe\r\n") == GREETING
    assert (client.session.address, client.session.vouched.login) == (NAMED, b"joe")
    assert named(client, b"XCLIENT ADDR=203.0.113.6\r\n") == GREETING
    assert (client.session.address, client.session.vouched.via) == ("203.0.113.6", PROXY)
    other = play.greeted()
    assert named(other) == GREETING, "the first address is free again"


def test_a_proxy_that_tells_no_address_is_not_counted_as_a_client(stage: Make) -> None:
    play = behind_a_proxy(stage, listener={"limits": {"sessions_per_client": 1}})
    crowd = [play.greeted() for _ in range(3)]
    assert [named(client, b"XCLIENT LOGIN=joe\r\n") for client in crowd] == [GREETING] * 3


@pytest.mark.parametrize("said", [b"ADDR=[UNAVAILABLE]", b"ADDR=[TEMPUNAVAIL]"])
def test_a_client_whose_address_nobody_knows(stage: Make, said: bytes) -> None:
    play = behind_a_proxy(stage, backend={"identity": "proxy-v1"})
    client = play.greeted()
    named(client, b"XCLIENT " + said + b"\r\n")
    assert client.session.address == ""
    assert play.dialler.wires[-1].take() == b"PROXY UNKNOWN\r\n"
    play.answer(GREETING)
    client.take()
    client.send(EHLO)
    play.answer(EHLO_REPLY)
    client.send(b"MAIL FROM:<a@b.example>\r\n")
    play.answer(OK)
    client.take()
    assert client.send(b"RCPT TO:<c@else.example>\r\n").startswith(b"550 5.7.1 "), "S14"


def test_early_pipelining_is_offered_by_the_named_address(stage: Make) -> None:
    play = behind_a_proxy(stage, listener={"early_pipelining": {"advertise_to": ["203.0.113.0/24"]}})
    for line, offered in ((b"XCLIENT ADDR=203.0.113.5\r\n", True), (b"XCLIENT ADDR=198.51.100.5\r\n", False)):
        client = play.greeted()
        named(client, line)
        client.send(EHLO)
        play.answer(EHLO_REPLY)
        assert (b"PIPE_CONNECT" in client.take()) == offered
