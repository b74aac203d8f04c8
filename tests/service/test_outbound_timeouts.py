"""Outbound on real sockets: servers that fail or are silent at any step, and what the client hears of it (C7, H9)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from .client import Client
from .outboundproxy import Smarthost, Town, deliver, deliver_by_data, envelope, route
from .outboundremote import EARLY, SILENCE, Dialogue
from .process import Settings
from .tlstools import server_context
from .waiting import PATIENCE, eventually

SHORT = "1 s"
"""Of a route with several servers the good ones have no more either: it must be plenty for a busy machine."""
KINDS = ("greeting", "ehlo", "mail", "rcpt", "data", "end_of_data", "other", "tls_handshake", "connect")


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


def only(kind: str) -> Settings:
    """Time-outs of which one is short."""
    return {kind: SHORT}


def slow(town: Town, kind: str, *, domain: str, spare: Any = None, **script: Any) -> tuple[Any, Settings]:
    """A server that is silent somewhere, and the route to it."""
    remote = town.remote(**script)
    return remote, route([remote] + ([spare] if spare else []), domain, timeouts=only(kind), reuse=False)


def test_each_silence_before_the_message_leads_to_the_next_server_when_its_time_is_up(town: Town) -> None:
    spare = town.remote(keywords=EARLY)
    scripts: dict[str, Settings] = {
        "greeting": {"greeting": SILENCE},
        "ehlo": {"replies": {"EHLO": SILENCE}},
        "mail": {"replies": {"MAIL": SILENCE}},
        "rcpt": {"replies": {"RCPT": SILENCE}},
    }
    made = {kind: slow(town, kind, domain=f"{kind}.example", spare=spare, **scripts[kind]) for kind in scripts}
    smarthost = town.smarthost([each[1] for each in made.values()])
    clients = {kind: smarthost.client() for kind in made}
    for kind, client in clients.items():
        client.send(envelope(f"b@{kind}.example".encode()) + b"DATA\r\n")
    for client in clients.values():
        assert client.codes(3) == [250, 250, 354]
        client.send(b"x\r\n.\r\n")
        assert client.codes(1) == [250]
        client.sock.close()
    events = {event["to"]: event for event in smarthost.wait_for("delivery", len(made))}
    for kind, (remote, _) in made.items():
        event = events[f"<b@{kind}.example>"]
        assert event["remote"] == spare.nexthop
        assert event["failures"] == [f"{remote.nexthop}: timed out"]
        assert event["duration"] >= 1.0
    assert len(spare.messages) == len(made)


def test_silence_at_data_or_behind_it_is_the_clients_451(town: Town) -> None:
    silent_at_data, data = slow(town, "data", domain="data.example", replies={"DATA": SILENCE})
    _, end = slow(town, "end_of_data", domain="end.example", replies={".": SILENCE})
    _, chunk = slow(town, "end_of_data", domain="chunk.example", keywords=EARLY, replies={".": SILENCE})
    smarthost = town.smarthost([data, end, chunk])
    clients = [smarthost.client() for _ in range(3)]
    for client, name in zip(clients, (b"data", b"end", b"chunk"), strict=True):
        client.send(envelope(b"b@" + name + b".example") + b"DATA\r\n")
        assert client.codes(2) == [250, 250]
    assert clients[0].reply()[:3] == b"451"
    for client in clients[1:]:
        assert client.codes(1) == [354]
        client.send(b"x\r\n.\r\n")
    for client in clients[1:]:
        assert client.reply()[:9] == b"451 4.4.2"
    for client in clients:
        assert client.code(b"QUIT") == 221
        client.sock.close()
    assert silent_at_data.messages == []
    smarthost.stop()
    assert smarthost.counters()["deliveries_unknown"] == 2


def test_a_handshake_that_stands_still_ends_when_its_time_is_up(town: Town, pki: Any) -> None:
    starttls = town.remote(tls=_Deaf())
    implicit = town.remote(tls=_Deaf(), implicit=True)
    spare, inside = town.remote(keywords=EARLY), town.remote(tls=server_context(pki.pair(["127.0.0.1"])), implicit=True)
    verified = {"mode": "implicit", "ca": str(pki.root.path)}
    short = only("tls_handshake") | only("connect")
    routes = [
        route([starttls, spare], "starttls.example", tls={"downgrade": "refuse"}, timeouts=short),
        route([implicit, inside], "implicit.example", tls=verified, timeouts=short),
    ]
    smarthost = town.smarthost(routes)
    for name in (b"starttls.example", b"implicit.example"):
        with smarthost.client() as client:
            assert deliver(client, b"x\r\n", b"b@" + name)[:3] == b"250"
    assert [event["tries"] for event in smarthost.wait_for("delivery", 2)] == [2, 2]


class _Deaf(ssl.SSLContext):
    """A server that never answers in the handshake."""

    def __new__(cls) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def wrap_socket(self, sock: Any, *_arguments: Any, **_options: Any) -> Any:
        while sock.recv(65536):
            pass
        raise EOFError


def _black_hole() -> socket.socket:
    """A socket whose queue is full: whoever connects hears nothing."""
    return socket.create_server(("127.0.0.1", 0), backlog=0)


def test_a_server_that_does_not_answer_the_connection_is_given_up(town: Town) -> None:
    spare = town.remote(keywords=EARLY)
    with _black_hole() as hole, socket.socket() as one, socket.socket() as two:
        for filler in (one, two):
            filler.settimeout(0)
            filler.connect_ex(hole.getsockname())
        nexthop = "{}:{}".format(*hole.getsockname())
        smarthost = town.smarthost([route([nexthop, spare], timeouts=only("connect"))])
        with smarthost.client() as client:
            assert deliver(client)[:3] == b"250"
        event = smarthost.wait_for("delivery")[0]
        assert (event["remote"], event["failures"]) == (spare.nexthop, [f"{nexthop}: timed out"])
        assert event["duration"] >= 1.0


def test_a_silent_server_is_not_waited_for_while_there_are_others(town: Town) -> None:
    silent, deaf, spare = town.remote(greeting=SILENCE), town.remote(replies={"EHLO": SILENCE}), town.remote()
    smarthost = town.smarthost([route([silent, deaf, spare], timeouts=only("others_left"))])
    with smarthost.client() as client:
        assert deliver(client)[:3] == b"250"
    event = smarthost.wait_for("delivery")[0]
    assert event["remote"] == spare.nexthop
    assert event["failures"] == [f"{remote.nexthop}: timed out" for remote in (silent, deaf)]


def _time_passes(smarthost: Smarthost) -> None:
    """As much as all tries together have, and the next look at the clock: somebody else's time is up."""
    with smarthost.client() as other:
        assert deliver_by_data(other, b"x\r\n", b"b@silent.example")[:9] == b"451 4.4.7"


def test_the_time_that_the_client_takes_is_not_counted_as_ours(town: Town) -> None:
    remote, silent = town.remote(), town.remote(greeting=SILENCE)
    short = only("delivery")
    smarthost = town.smarthost([route([remote], timeouts=short), route([silent], "silent.example", timeouts=short)])
    with smarthost.client() as client:
        client.send(envelope())
        assert client.codes(2) == [250, 250]
        for _ in range(2):
            _time_passes(smarthost)
        client.send(b"DATA\r\n")
        assert client.codes(1) == [354]
        client.send(b"x\r\n.\r\n")
        assert client.codes(1) == [250]
    assert len(remote.messages) == 1


def test_all_tries_together_have_their_time_as_long_as_no_message_is_on_its_way(town: Town) -> None:
    silent = town.remote(greeting=SILENCE)
    late = town.remote(replies={".": _when_it_is_over})
    short = only("delivery")
    smarthost = town.smarthost(
        [
            route([silent, late], "silent.example", timeouts=short),
            route([late], "late.example", timeouts=short),
        ]
    )
    with smarthost.client() as client:
        client.send(envelope(b"b@late.example") + b"DATA\r\n")
        assert client.codes(3) == [250, 250, 354]
        client.send(b"x\r\n.\r\n")
        eventually(lambda: late.dialogue().heard[-1] == ".", "the message is there")
        _time_passes(smarthost)
        late.over.set()
        assert client.codes(1) == [250]
        assert client.code(b"QUIT") == 221
    assert [event["tries"] for event in smarthost.wait_for("delivery", 2)] == [1, 1]


def _when_it_is_over(dialogue: Dialogue) -> bytes:
    """Answer when the test says so."""
    assert dialogue.owner.over.wait(PATIENCE)
    return b"250 2.0.0 taken\r\n"


def test_a_server_that_takes_no_more_mail_data(town: Town) -> None:
    remote = town.remote(receive_buffer=4096)
    smarthost = town.smarthost([route([remote], timeouts=only("data_block"))])
    with smarthost.client() as client:
        client.send(envelope() + b"DATA\r\n")
        assert client.codes(3) == [250, 250, 354]
        remote.reading.clear()
        # More than the buffers of the kernel hold: when it is given up, the rest of the message is thrown away.
        client.send((b"x" * 998 + b"\r\n") * 16_000 + b".\r\n")
        assert client.reply()[:9] == b"451 4.4.2"
        assert client.code(b"QUIT") == 221
    assert remote.messages == []


@pytest.mark.parametrize("by", ["DATA", "BDAT"])
def test_lmtp_nobodys_word_waits_for_another_destination_and_not_for_ever(town: Town, by: str) -> None:
    quick, silent = town.remote(keywords=EARLY), town.remote(keywords=EARLY, replies={".": SILENCE})
    # The one that is silent may be so for longer, but not while the client waits for it with others.
    times = {"end_of_data": "1 h", "others_done": SHORT}
    routes = [route([quick], "quick.example"), route([silent], "silent.example", timeouts=times)]
    smarthost = town.smarthost(routes, listener={"protocol": "lmtp"})
    with Client(smarthost.address()) as client:
        assert b"LMTP" in client.reply()
        assert client.code(b"LHLO client.example") == 250
        recipients = [b"b@quick.example", b"c@silent.example", b"d@quick.example"]
        if by == "DATA":
            client.send(envelope(*recipients) + b"DATA\r\n")
            assert client.codes(5) == [250, 250, 250, 250, 354]
            client.send(b"x\r\n.\r\n")
        else:
            client.send(envelope(*recipients) + b"BDAT 3 LAST\r\nx\r\n")
            assert client.codes(4) == [250, 250, 250, 250]
        assert client.reply()[:3] == b"250"
        assert client.reply() == b"451 4.4.2 Connection lost, fate of the message unknown\r\n"
        assert client.reply()[:3] == b"250"
        assert client.code(b"QUIT") == 221
    assert len(quick.messages) == 1
    assert {event["to"]: event.get("failures") for event in smarthost.wait_for("delivery", 2)} == {
        "<b@quick.example>,<d@quick.example>": None,
        "<c@silent.example>": [f"{silent.nexthop}: timed out, and others wait"],
    }


def test_a_reply_that_trickles_in_is_not_waited_for_for_ever(town: Town) -> None:
    remotes = {
        "mail.example": ("mail", town.remote(replies={"MAIL": _trickle})),
        "end.example": ("end_of_data", town.remote(replies={".": _trickle})),
    }
    smarthost = town.smarthost([route([remote], name, timeouts=only(kind)) for name, (kind, remote) in remotes.items()])
    for name in remotes:
        with smarthost.client() as client:
            reply = deliver(client, b"x\r\n", b"b@" + name.encode())
            assert reply[:9] == b"451 4.4.2"
    events = {event["to"]: event for event in smarthost.wait_for("delivery", 2)}
    for name, (_, remote) in remotes.items():
        assert events[f"<b@{name}>"]["failures"] == [f"{remote.nexthop}: timed out"]


def _trickle(dialogue: Dialogue) -> bytes:
    """Begin a reply, and never come to its end."""
    dialogue.sock.sendall(b"250-")
    while not dialogue.owner.over.wait(0.1):
        dialogue.sock.sendall(b"x")
    return b""


def test_h9_what_a_slow_client_has_sent_leaves_before_the_remote_has_waited_too_long(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    smarthost = town.smarthost([route([remote])])
    with smarthost.client() as client:
        client.send(envelope() + b"DATA\r\n")
        assert client.codes(3) == [250, 250, 354]
        client.send(b"Subject: x\r\n")
        eventually(lambda: "BDAT 10" in remote.dialogue().heard, "the beginning of the message")
        client.send(b"\r\nx\r\n.\r\n")
        assert client.codes(1) == [250]
    assert remote.texts == [b"Subject: x\r\n\r\nx\r\n"]


def test_a_greeting_that_is_none_leads_to_the_next_server(town: Town) -> None:
    spare = town.remote(keywords=EARLY)
    greetings = (b"554 5.7.1 go away\r\n", b"421 4.3.2 not now\r\n", b"nonsense\r\n", b"354 hi\r\n")
    remotes = [town.remote(greeting=greeting) for greeting in greetings]
    routes = [route([remote, spare], f"d{number}.example") for number, remote in enumerate(remotes)]
    smarthost = town.smarthost(routes)
    for number in range(len(greetings)):
        with smarthost.client() as client:
            assert deliver(client, b"x\r\n", b"b@d%d.example" % number)[:3] == b"250"
    assert [event["tries"] for event in smarthost.wait_for("delivery", 4)] == [2] * 4


def test_the_last_word_where_every_server_fails(town: Town) -> None:
    refusing, busy = town.remote(greeting=b"554 5.7.1 go away\r\n"), town.remote(greeting=b"421 4.3.2 not now\r\n")
    routes = [
        route([town.nobody()], "nobody.example"),
        route([refusing], "refusing.example"),
        route([busy], "busy.example"),
        route([refusing, town.nobody()], "mixed.example"),
    ]
    smarthost = town.smarthost(routes)
    said = {}
    for name in (b"nobody.example", b"refusing.example", b"busy.example", b"mixed.example"):
        with smarthost.client() as client:
            client.send(envelope(b"b@" + name))
            assert client.codes(1) == [250]
            said[name.decode()] = client.reply()
            assert client.code(b"QUIT") == 221
    assert said == {
        "nobody.example": b"451 4.4.1 No server of the destination could be reached\r\n",
        "refusing.example": b"554 5.7.1 go away\r\n",
        "busy.example": b"451 4.3.2 not now\r\n",
        "mixed.example": b"451 4.4.1 No server of the destination could be reached\r\n",
    }
