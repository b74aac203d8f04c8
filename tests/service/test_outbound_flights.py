"""Outbound on real sockets: what leaves before the greeting, and what a connection that fails comes to (C2, C6, C7)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .outboundproxy import Smarthost, Town, deliver, deliver_by_data, route
from .outboundremote import CLOSE, EARLY, RESET

TEXT = b"Subject: dots\r\n\r\n.\r\n..two\r\n" + b"x" * 900 + b"\r\nend\r\n"
READY = {"speculate": {"confirmed": 0}}
TRANSPORTS = ("lean", "stock")


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


def warm(town: Town, *hops: Any, transport: str = "lean", **more: Any) -> Smarthost:
    """A smarthost that knows the last of the servers, and opens a connection for each message."""
    smarthost = town.smarthost([route(hops, reuse=False, **more)], listener=READY, service={"transport": transport})
    with smarthost.client() as client:
        assert deliver(client)[:3] == b"250"
    return smarthost


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("send", [deliver, deliver_by_data])
def test_c2_c8_all_of_it_leaves_before_the_greeting(town: Town, transport: str, send: Any) -> None:
    remote = town.remote(keywords=EARLY)
    smarthost = warm(town, remote, transport=transport)
    remote.behave(keywords=EARLY, waits=True)
    with smarthost.client() as client:
        assert send(client, TEXT) == b"250 2.0.0 taken\r\n"
    early = remote.dialogue(-1, 2).early
    assert early.startswith(b"EHLO proxy.example.org\r\nMAIL FROM:<a@client.example>")
    assert remote.texts[1:] == [TEXT]
    event = smarthost.wait_for("delivery", 2)[1]
    assert (event["early"], event["one_flight"], event["tries"]) == (True, True, 1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_c7_a_refused_connection_goes_on_to_the_next_though_the_message_is_queued(town: Town, transport: str) -> None:
    first, second = town.remote(keywords=EARLY), town.remote(keywords=EARLY)
    smarthost = warm(town, first, second, transport=transport)
    first.refuse()
    with smarthost.client() as client:
        assert deliver(client, TEXT) == b"250 2.0.0 taken\r\n"
    assert second.texts == [TEXT]
    event = smarthost.wait_for("delivery", 2)[1]
    assert event["tries"] == 2
    assert event["remote"] == second.nexthop
    assert [why for why in event["failures"] if "refused" in why] == event["failures"]
    assert smarthost.events("early_pipelining_failed") == []


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_c7_a_connection_lost_behind_the_flight_is_unknown(town: Town, transport: str, end: bytes) -> None:
    first, second = town.remote(keywords=EARLY), town.remote(keywords=EARLY)
    smarthost = warm(town, first, second, transport=transport)
    first.behave(keywords=EARLY, waits=True, greeting=lambda dialogue: _read_all(dialogue, end))
    with smarthost.client() as client:
        assert deliver(client, TEXT)[:9] == b"451 4.4.2"
    event = smarthost.wait_for("delivery", 2)[1]
    assert (event["level"], event["tries"]) == ("warning", 1)
    assert (len(first.messages), len(second.messages)) == (1, 0)
    smarthost.stop()
    assert smarthost.counters()["deliveries_unknown"] == 1


def _read_all(dialogue: Any, end: bytes) -> bytes:
    """Read until the message's end has come; it is not answered."""
    data = dialogue.early
    while not data.endswith(TEXT):
        data += dialogue.sock.recv(65536)
    return end


def test_c6_whoever_does_not_stand_early_talk_gets_it_politely(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    smarthost = warm(town, remote)
    remote.behave(keywords=EARLY, waits=True, greeting=_early_554)
    with smarthost.client() as client:
        assert deliver(client, TEXT) == b"250 2.0.0 taken\r\n"
        assert deliver(client, TEXT) == b"250 2.0.0 taken\r\n"
    assert remote.texts[1:] == [TEXT, TEXT]
    assert [bool(dialogue.early) for dialogue in remote.dialogues] == [False, True, False, False]
    assert smarthost.wait_for("early_pipelining_failed")[0]["held_back"] is True


def _early_554(dialogue: Any) -> bytes:
    """Turn an early talker away, and greet whoever comes next."""
    dialogue.owner.behave(keywords=EARLY)
    return b"554 5.5.1 you talk too early\r\n"


def test_a_large_message_arrives_as_it_was_sent(town: Town) -> None:
    by_data, by_chunks = town.remote(), town.remote(keywords=EARLY)
    smarthost = town.smarthost([route([by_data], "data.example"), route([by_chunks], "chunks.example")])
    text = b"Subject: large\r\n\r\n" + b"".join(b".%d a line of text\r\n" % n for n in range(200_000))
    for domain, remote in (("data.example", by_data), ("chunks.example", by_chunks)):
        with smarthost.client() as client:
            assert deliver(client, text, b"b@" + domain.encode())[:3] == b"250"
            assert deliver_by_data(client, text, b"b@" + domain.encode())[:3] == b"250"
        assert [len(each) for each in remote.texts] == [len(text)] * 2
        assert remote.texts == [text, text]


def test_c4_a_refusal_of_an_early_flight_is_the_clients_and_flushes(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    smarthost = warm(town, remote)
    remote.behave(keywords=EARLY, replies={"RCPT": b"550 5.1.1 no such user\r\n", ".": b"554 5.5.1 nobody\r\n"})
    with smarthost.client() as client:
        client.send(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.org>\r\n")
        assert client.reply()[:3] == b"250"
        assert client.reply() == b"550 5.1.1 no such user\r\n"
    assert len(smarthost.wait_for("early_pipelining_failed")) == 1
    remote.behave(keywords=EARLY)
    with smarthost.client() as client:
        assert deliver(client, TEXT)[:3] == b"250"
    assert remote.dialogue().early == b""
