"""Outbound on real sockets: sessions with remotes that are kept for the next message (C9, S18)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from freeports import free_port

from .client import Client
from .outboundproxy import Town, chunk, deliver, envelope, route, smarthost
from .outboundremote import EARLY, Dialogue, RemoteServer
from .tlstools import server_context
from .waiting import PATIENCE, eventually

TRANSPORTS = ("lean", "stock")


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path) as made:
        yield made


def messages_of(remote: RemoteServer) -> list[int]:
    """How many messages came over each connection."""
    return [dialogue.verbs.count("MAIL") for dialogue in remote.dialogues]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_session_serves_so_many_messages_one_flight_each_and_is_left_with_quit(town: Town, transport: str) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost([route([remote], reuse={"uses": 3})], service={"transport": transport})
    for _ in range(7):
        with proxy.client() as client:
            assert deliver(client)[:3] == b"250"
    assert messages_of(remote) == [3, 3, 1]
    eventually(lambda: [dialogue.verbs[-1] for dialogue in remote.dialogues[:2]] == ["QUIT", "QUIT"], "QUIT")
    assert [bool(event.get("reused")) for event in proxy.wait_for("delivery", 7)] == [False, True, True] * 2 + [False]
    proxy.stop()
    assert remote.dialogues[2].ended.wait(PATIENCE)
    if transport == "lean":
        assert remote.dialogues[2].verbs[-1] == "QUIT"
    counters = proxy.counters()
    assert (counters["remote_connects"], counters["remote_reuses"]) == (3, 4)


def test_an_idle_session_is_left_when_its_time_is_up(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost([route([remote], reuse={"idle": "300 ms"})])
    with proxy.client() as client:
        assert deliver(client)[:3] == b"250"
        assert remote.dialogue().ended.wait(10)
        assert remote.dialogue().verbs[-1] == "QUIT"
        assert deliver(client)[:3] == b"250"
    assert messages_of(remote) == [1, 1]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("last", [b"421 4.4.2 idle for too long\r\n", b""])
def test_a_session_that_the_remote_has_ended_is_not_lent(town: Town, last: bytes, transport: str) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost([route([remote])], service={"transport": transport})
    with proxy.client() as client:
        assert deliver(client)[:3] == b"250"
        if last:
            remote.dialogue().sock.sendall(last)
        remote.dialogue().end()
        assert deliver(client)[:3] == b"250"
    assert len(remote.messages) == 2
    assert len(remote.dialogues) == 2


@pytest.mark.parametrize("say", [b"421 4.4.2 closing\r\n", None])
def test_c7_a_kept_session_that_ends_as_it_is_lent_is_replaced(town: Town, say: bytes | None) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost([route([remote])])
    with proxy.client() as client:
        assert deliver(client)[:3] == b"250"
        # Without the message behind it: with it the fate would be unknown.
        remote.dialogue().script.replies["MAIL"] = say if say is not None else b"close"
        remote.behave(keywords=EARLY)
        client.send(envelope())
        assert [client.reply()[:3], client.reply()[:3]] == [b"250", b"250"]
        assert client.code(b"RSET") == 250
    assert [dialogue.verbs.count("MAIL") for dialogue in remote.dialogues] == [2, 1]


def test_no_more_sessions_are_kept_than_the_route_says(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost([route([remote], reuse={"sessions": 2})])
    clients = [proxy.client() for _ in range(5)]
    for client in clients:
        client.send(envelope())
        assert [client.reply()[:3], client.reply()[:3]] == [b"250", b"250"]
    assert len(remote.dialogues) == 5
    for client in clients:
        client.send(b"BDAT 3 LAST\r\nx\r\n")
        assert client.reply()[:3] == b"250"
        client.sock.close()
    eventually(lambda: sum(dialogue.ended.is_set() for dialogue in remote.dialogues) == 3, "three are left")
    assert [dialogue.verbs[-1] == "QUIT" for dialogue in remote.dialogues] == [
        dialogue.ended.is_set() for dialogue in remote.dialogues
    ]


def test_s18_a_session_is_never_lent_to_where_it_makes_a_difference(town: Town, pki: Any, tmp_path: Path) -> None:
    tls = server_context(pki.pair(["127.0.0.1"]))
    remote = town.remote(keywords=(*EARLY, "AUTH PLAIN"), tls=tls)
    (tmp_path / "password").write_text("pw")
    login = {"password_file": str(tmp_path / "password")}
    verified = {"mode": "verified", "ca": str(pki.root.path)}
    routes = [
        route([remote], "clear.example"),
        route([remote], "opportunistic.example", tls={"mode": "opportunistic"}),
        route([remote], "verified.example", tls=verified),
        route([remote], "us.example", tls=verified, credentials=login | {"user": "us"}),
        route([remote], "them.example", tls=verified, credentials=login | {"user": "them"}),
        route([remote], "source.example", source={"ipv4": "127.0.0.2"}),
    ]
    ports = [free_port(), free_port()]
    listeners = [smarthost(ports[0]), smarthost(ports[1], "other", hostname="other.example.org")]
    town.smarthost(routes, listeners)
    names = [each["domain"].encode() for each in routes]
    for port in ports:
        for name in names * 2:
            with Client(("127.0.0.1", port)).begin() as client:
                assert deliver(client, name + b"\r\n", b"b@" + name)[:3] == b"250"
    assert messages_of(remote) == [2] * 12


def test_a_session_that_has_refused_something_is_not_kept(town: Town) -> None:
    remote = town.remote(keywords=EARLY, replies={".": b"554 5.7.1 spam\r\n"})
    proxy = town.smarthost([route([remote])])
    with proxy.client() as client:
        assert deliver(client) == b"554 5.7.1 spam\r\n"
        assert remote.dialogue().ended.wait(10)
        assert remote.dialogue().verbs[-1] == "QUIT"


def test_kept_sessions_end_at_a_reload_and_the_next_message_has_a_new_one(town: Town) -> None:
    remote = town.remote(keywords=EARLY)
    proxy = town.smarthost([route([remote])])
    with proxy.client() as client:
        assert deliver(client)[:3] == b"250"
        proxy.reload()
        proxy.wait_for("reloaded")
        assert remote.dialogue().ended.wait(10)
        assert remote.dialogue().verbs[-1] == "QUIT"
        # The client's session goes on with the old configuration, and keeps nothing any more.
        assert deliver(client)[:3] == b"250"
        assert remote.dialogue(-1, 2).ended.wait(10)
    with proxy.client() as client:
        assert deliver(client)[:3] == b"250"
    assert messages_of(remote) == [1, 1, 1]
    proxy.stop()


def test_one_with_tls_is_kept_and_its_session_resumed_by_the_next_one(town: Town, pki: Any) -> None:
    tls = server_context(pki.pair(["127.0.0.1"]))
    remote = town.remote(keywords=EARLY, tls=tls)
    verified = {"mode": "verified", "ca": str(pki.root.path)}
    proxy = town.smarthost([route([remote], tls=verified, reuse={"uses": 2})])
    for _ in range(4):
        with proxy.client() as client:
            assert deliver(client)[:3] == b"250"
    assert messages_of(remote) == [2, 2]
    assert [dialogue.resumed for dialogue in remote.dialogues] == [False, True]


def test_after_a_kept_session_that_takes_no_more_comes_a_fresh_one(town: Town) -> None:
    """Not another kept one, which would say the same."""
    remote = town.remote(keywords=EARLY, replies={"MAIL": _once_only})
    proxy = town.smarthost([route([remote])])
    with proxy.client() as one, proxy.client() as two:
        for client in (one, two):
            client.send(envelope())
            assert client.codes(2) == [250, 250]
        for client in (one, two):
            client.send(chunk(b"x\r\n"))
            assert client.codes(1) == [250]
        assert messages_of(remote) == [1, 1]
        one.send(envelope())
        assert one.codes(2) == [250, 250]
        one.send(chunk(b"x\r\n"))
        assert one.codes(1) == [250]
    assert sorted(messages_of(remote)) == [1, 1, 2]
    assert proxy.wait_for("delivery", 3)[-1]["tries"] == 2
    assert len(remote.messages) == 3


def _once_only(dialogue: Dialogue) -> bytes:
    return b"250 2.1.0 ok\r\n" if dialogue.verbs.count("MAIL") == 1 else b"451 4.7.0 too many messages\r\n"
