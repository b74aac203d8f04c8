"""Outbound as a process: what it writes of its deliveries, and what it counts (H11)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .outboundproxy import Town, chunk, deliver, deliver_by_data, envelope, route
from .outboundremote import EARLY, PLAIN

TEXT = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


def shown(event: dict[str, Any], *but: str) -> dict[str, Any]:
    """An event without what is another one each time."""
    return {key: value for key, value in event.items() if key not in {"time", "event", "duration", "listener", *but}}


def test_a_line_for_each_delivery_and_what_is_counted(town: Town) -> None:
    remote, refusing = town.remote(keywords=EARLY), town.remote(replies={"RCPT": b"550 5.1.1 who?\r\n"})
    dead = town.nobody()
    routes = [
        route([dead, remote], "good.example"),
        route([refusing], "refusing.example"),
        route([dead], "dead.example"),
    ]
    proxy = town.smarthost(routes, listener={"speculate": {"confirmed": 0}})
    with proxy.client() as client:
        assert deliver(client, TEXT, b"b@good.example", b"c@good.example")[:3] == b"250"
        assert deliver_by_data(client, TEXT, b"b@good.example")[:3] == b"250"
        client.send(envelope(b"b@refusing.example") + b"RSET\r\n" + envelope(b"b@dead.example") + b"QUIT\r\n")
        assert client.codes(6) == [250, 550, 250, 250, 451, 221]
    first, second, refused, unreachable = (shown(event, "failures") for event in proxy.wait_for("delivery", 4))
    common = {"session": 1, "from": "<a@client.example>"}
    good = {"octets": len(TEXT), "host": "127.0.0.1", "remote": remote.nexthop}
    reply = {"reply": "250 2.0.0 taken"}
    # What went wrong on the way is ours to look into, though the message has arrived.
    assert first == common | good | reply | {
        "level": "warning",
        "tries": 2,
        "to": "<b@good.example>,<c@good.example>",
        "recipients": 2,
        "accepted": 2,
        "one_flight": True,
    }
    # The server that is not there rests, so it is not tried again.
    assert second == common | good | reply | {
        "level": "info",
        "tries": 1,
        "to": "<b@good.example>",
        "recipients": 1,
        "accepted": 1,
        "one_flight": True,
        "reused": True,
    }
    assert (refused["accepted"], refused["remote"], refused["level"]) == (0, refusing.nexthop, "info")
    assert unreachable["level"] == "warning"
    assert unreachable["reply"] == "451 4.4.1 No server of the destination could be reached"
    assert proxy.events("delivery")[3]["failures"] == [f"{dead}: Connection refused"]
    session = proxy.wait_for("session")[0]
    assert (session["accepted"], session["refused"], session["end"]) == (3, 2, "quit")
    proxy.stop()
    counters = proxy.counters()
    assert {name: counters[name] for name in ("deliveries", "deliveries_accepted", "deliveries_unknown")} == {
        "deliveries": 4,
        "deliveries_accepted": 2,
        "deliveries_unknown": 0,
    }
    assert (counters["recipients_accepted"], counters["recipients_refused"]) == (3, 2)


def test_a_transcript_has_both_sides_and_no_mail_data(town: Town) -> None:
    remote = town.remote(keywords=PLAIN)
    proxy = town.smarthost([route([remote])], options={"arguments": ["-v"]})
    with proxy.client() as client:
        client.send(envelope() + chunk(b"Secret of the message\r\n") + b"QUIT\r\n")
        assert client.codes(4) == [250, 250, 250, 221]
    proxy.wait_for("session")
    lines = [event["line"] for event in proxy.events("transcript")]
    for line in (
        "C: MAIL FROM:<a@client.example>",
        "S: 250 2.0.0 taken",
        "B< 220 remote.example ESMTP",
        "B> EHLO proxy.example.org",
        "B> DATA",
        "B< 354 go ahead",
        "C: (23 octets of mail data)",
    ):
        assert line in lines
    assert "Secret of the message" not in proxy.text()


def test_a_trace_header_on_top_where_it_is_wanted(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost([route([remote])], listener={"trace_header": True})
    with proxy.client() as client:
        for send in (deliver, deliver_by_data):
            assert send(client, TEXT)[:3] == b"250"
    for text in remote.texts:
        assert text.startswith(b"Received: from client.example ")
        assert b"by proxy.example.org" in text
        assert text.endswith(TEXT)
