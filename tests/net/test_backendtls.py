"""TLS with servers: STARTTLS, or from the first octet on, and whose turn it is where that fails (S5, S6, S8, S19)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from .backendscene import TWO, Scene, deliver, reasons
from .stage import EHLO_REPLY, Stage
from .tlsstage import EHLO, GREETING


@pytest.fixture
def scene(stage: Callable[..., Stage], pki: Any) -> Scene:
    return Scene(stage, pki)


# --- STARTTLS -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["starttls", "starttls-required"])
def test_s6_starttls_and_then_ehlo_anew(scene: Scene, mode: str) -> None:
    client, server = scene.ready_for_tls(mode)
    server.answer(b"220 go ahead\r\n")
    server.handshake()
    assert server.asked() == EHLO
    assert client.take() == b"", "the client's EHLO is still to be answered"
    server.answer(EHLO_REPLY)
    assert b"250-8BITMIME\r\n" in client.take()
    deliver(client, server)
    assert server.peer.secured
    assert scene.play.journal.failures == []


def test_the_name_that_is_asked_for(scene: Scene) -> None:
    """By its name of the configuration, never by an address; or as the setting says."""
    for servers, settings, name in (
        (["192.0.2.1:25"], {"verify": "name"}, None),
        (["192.0.2.1:25"], {"sni": "mx.example.org"}, b"mx.example.org"),
        (["192.0.2.1:25"], {"verify": "name", "name": "mx.example.org"}, b"mx.example.org"),
    ):
        _, server = scene.ready_for_tls(servers=servers, settings=settings)
        server.answer(b"220 go ahead\r\n")
        server.handshake()
        assert server.peer.connection.get_servername() == name
        assert server.asked() == EHLO


@pytest.mark.parametrize("code", [b"454 4.7.0 not now\r\n", b"502 what?\r\n", b"503-no\r\n503 no\r\n"])
def test_a_refused_starttls_is_passed_over_where_it_is_not_demanded(scene: Scene, code: bytes) -> None:
    client, server = scene.ready_for_tls("starttls")
    server.answer(code)
    assert b"250-8BITMIME\r\n" in client.take(), "its reply to EHLO holds"
    deliver(client, server)


@pytest.mark.parametrize("offered", [True, False])
def test_s19_without_the_tls_that_is_demanded_it_is_the_next_servers_turn(scene: Scene, *, offered: bool) -> None:
    if offered:
        client, server = scene.ready_for_tls("starttls-required")
        server.answer(b"454 4.7.0 not now\r\n")
    else:
        client = scene.client("starttls-required")
        server = scene.server()
        server.answer(GREETING)
        client.send(EHLO)
        server.asked()
        server.answer(EHLO_REPLY)
    assert server.wire.ended
    assert scene.play.leg.server.name == TWO[1]
    second = scene.server()
    assert second.asked() == b""
    second.answer(GREETING)
    assert second.asked() == EHLO
    second.answer(EHLO_REPLY)
    read = client.take()
    assert read.splitlines()[-1].startswith(b"421 4.3.2 ")
    assert b"8BITMIME" not in read
    assert "STARTTLS" in reasons(scene)[0]


@pytest.mark.parametrize("injected", [b"250 ok\r\n", b"2", b"\x16\x03", b"\r\n", b"garbage\r\n"])
@pytest.mark.parametrize("code", [b"220 go ahead\r\n", b"454 not now\r\n"])
def test_s5_what_a_server_says_behind_its_reply_to_starttls_ends_the_connection(
    scene: Scene, code: bytes, injected: bytes
) -> None:
    client, server = scene.ready_for_tls("starttls")
    server.answer(code + injected)
    assert server.wire.ended
    assert server.wire.take() == b"", "no handshake"
    assert scene.play.leg.server.name == TWO[1]
    assert reasons(scene) == ["backend sent more than its reply to STARTTLS"]
    client.vanish()


def test_s5_what_comes_in_clear_after_the_220_is_no_reply(scene: Scene) -> None:
    client, server = scene.ready_for_tls("starttls")
    server.answer(b"220 go ahead\r\n")
    server.wire.take()
    server.answer(b"250 trust me\r\n")
    assert server.wire.ended
    assert reasons(scene)[0].startswith("TLS handshake failed: ")
    client.vanish()


@pytest.mark.parametrize("end", ["close", "reset", "time"])
def test_s19_a_server_that_does_not_finish_the_handshake(scene: Scene, end: str) -> None:
    client, server = scene.ready_for_tls("starttls", timeouts={"tls_handshake": 20.0})
    server.answer(b"220 go ahead\r\n")
    if end == "close":
        server.wire.protocol.readConnectionLost()
    elif end == "reset":
        server.wire.protocol.connectionLost(Failure(ConnectionLost()))
    else:
        scene.play.pass_time(19.0)
        assert not server.wire.ended
        scene.play.pass_time(1.0 + 2 * scene.play.sweep.round)
    assert scene.play.leg.server.name == TWO[1]
    second = scene.server()
    second.answer(GREETING)
    assert second.asked() == EHLO
    assert len(reasons(scene)) == 1
    client.vanish()


# --- from the first octet on ----------------------------------------------------------------------------------------


def test_s8_tls_from_the_first_octet_on(scene: Scene) -> None:
    client = scene.client("implicit")
    client.send(EHLO)
    server = scene.server()
    server.handshake()
    assert server.asked() == b"", "nothing before its greeting"
    server.answer(GREETING)
    assert server.asked() == EHLO
    server.answer(EHLO_REPLY)
    client.take()
    deliver(client, server)


def test_tls_from_the_first_octet_on_with_a_server_that_speaks_in_clear(scene: Scene) -> None:
    client = scene.client("implicit")
    server = scene.server()
    server.wire.take()
    server.answer(GREETING)
    assert server.wire.ended
    assert scene.play.leg.server.name == TWO[1]
    assert reasons(scene)[0].startswith("TLS handshake failed: ")
    assert client.take() == b""
    client.vanish()


def test_s19_tls_from_the_first_octet_on_that_does_not_come_about(scene: Scene) -> None:
    """Until then the server is not connected; it has the time for both."""
    client = scene.client("implicit", timeouts={"connect": 12.0, "tls_handshake": 8.0})
    first = scene.server()
    hello = first.peer.feed(first.wire.take())
    first.wire.protocol.dataReceived(hello[:100])
    scene.play.pass_time(15.0)
    assert not first.wire.ended
    first.wire.protocol.dataReceived(hello[100:200])
    scene.play.pass_time(5.0 + 2 * scene.play.sweep.round)
    assert scene.play.leg.server.name == TWO[1]
    scene.play.pass_time(20.0 + 2 * scene.play.sweep.round)
    assert client.take().startswith(b"421 4.3.2 ")
    assert scene.play.context.sessions == 0
    assert len(reasons(scene)) == 3
