"""Servers that speak TLS: who they are, sessions that are resumed, and ends (S10, S18, S19, H8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smtpproxy.net.leg import BackendLeg
from smtpproxy.net.tlsfacts import facts_of

from .backendscene import OFFER, TWO, Scene, deliver, reasons
from .stage import EHLO_REPLY, Stage
from .tlsstage import CLOSE_NOTIFY, EHLO, GREETING, OK


@pytest.fixture
def scene(stage: Callable[..., Stage], pki: Any) -> Scene:
    return Scene(stage, pki)


# --- who it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
@pytest.mark.parametrize("wrong", ["ca", "name", "pins"])
def test_s19_a_server_that_is_not_who_it_should_be(scene: Scene, mode: str, wrong: str) -> None:
    """It is told nothing, the log says why, and it is the next one's turn."""
    settings: dict[str, Any] = {"verify": wrong}
    if wrong == "ca":
        settings["ca"] = str(scene.pki.ca("Another").path)
    elif wrong == "name":
        settings["name"] = "other.example.org"
    else:
        settings |= {"pins": [scene.pki.pair().spki_pin], "ca": "system"}
    if mode == "implicit":
        client = scene.client(mode, settings=settings)
        client.send(EHLO)
        server = scene.server()
    else:
        client, server = scene.ready_for_tls(settings=settings)
        server.answer(b"220 go ahead\r\n")
    server.handshake()
    assert server.asked() == b""
    assert server.wire.ended
    assert scene.play.leg.server.name == TWO[1]
    (why,) = reasons(scene)
    assert why.startswith("TLS")
    assert {"ca": "certificate verify failed", "name": "not for other.example.org", "pins": "pins"}[wrong] in why
    client.vanish()


@pytest.mark.parametrize("settings", ["name", "pins", "none"])
def test_a_server_that_is_who_it_should_be(scene: Scene, settings: str) -> None:
    chosen: dict[str, Any] = {
        "name": {"verify": "name"},
        "pins": {"verify": "pins", "pins": [scene.pair.spki_pin], "ca": "system"},
        "none": {"verify": "none", "ca": "system"},
    }[settings]
    client, server = scene.ready_for_tls(settings=chosen)
    server.answer(b"220 go ahead\r\n")
    server.handshake()
    assert server.asked() == EHLO
    server.answer(EHLO_REPLY)
    client.take()
    deliver(client, server)


# --- resumption and ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_the_next_connection_resumes_the_session(scene: Scene, mode: str) -> None:
    resumed = []
    client = scene.client(mode, servers=TWO[:1])
    for _ in range(3):
        server = scene.server()
        if mode == "starttls":
            server.answer(GREETING)
            client.take()
            client.send(EHLO)
            server.answer(OFFER)
            server.asked()
            server.answer(b"220 go ahead\r\n")
        server.handshake()
        if mode == "implicit":
            server.answer(GREETING)
            client.send(EHLO)
        assert server.asked() == EHLO
        server.answer(EHLO_REPLY)
        client.take()
        resumed.append(facts_of(scene.play.leg.transport.connection).resumed)
        client.send(b"QUIT\r\n")
        server.answer(b"221 bye\r\n")
        client = scene.play.client()
    client.vanish()
    assert resumed == [False, True, True]


def test_we_say_farewell_to_a_server_that_has_answered_quit(scene: Scene) -> None:
    client, server = scene.ready_for_tls("starttls")
    server.answer(b"220 go ahead\r\n")
    server.handshake()
    server.answer(EHLO_REPLY)
    client.send(b"QUIT\r\n")
    server.asked()
    server.answer(b"221 bye\r\n")
    server.peer.feed(server.wire.take())
    assert server.peer.ended == CLOSE_NOTIFY
    assert server.wire.ended == "closed"


def test_s10_a_client_that_vanishes_in_mail_data_resets_the_connection(scene: Scene) -> None:
    """No farewell: a server may take that for an end."""
    client, server = scene.ready_for_tls("starttls")
    server.answer(b"220 go ahead\r\n")
    server.handshake()
    server.answer(EHLO_REPLY)
    client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\n")
    server.answer(OK + OK)
    client.send(b"DATA\r\n")
    server.answer(b"354 go\r\n")
    client.send(b"half\r\n")
    server.asked()
    client.vanish()
    assert server.wire.ended == "reset"
    server.peer.feed(server.wire.take())
    assert server.peer.ended == ""


def test_s18_a_kept_session_is_lent_inside_its_tls(scene: Scene) -> None:
    client, server = scene.ready_for_tls("starttls", reuse=True)
    server.answer(b"220 go ahead\r\n")
    server.handshake()
    server.answer(EHLO_REPLY)
    client.take()
    deliver(client, server)
    other = scene.play.client()
    other.send(b"EHLO other.example\r\n")
    assert server.asked() == b"EHLO other.example\r\n"
    server.answer(EHLO_REPLY)
    assert b"8BITMIME" in other.take()
    assert len(scene.play.dialler.legs) == 1
    other.vanish()


def test_h8_a_server_that_ends_tls_has_closed(scene: Scene) -> None:
    client, server = scene.ready_for_tls("starttls")
    server.answer(b"220 go ahead\r\n")
    server.handshake()
    server.answer(EHLO_REPLY)
    client.take()
    client.send(b"NOOP\r\n")
    leg: BackendLeg = scene.play.leg
    server.wire.protocol.dataReceived(server.peer.bye() + b"250 in clear\r\n")
    assert client.take().startswith(b"421 4.4.2 ")
    assert server.wire.ended
    assert leg.transport is not None
