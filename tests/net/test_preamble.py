"""What a server is told of the client by a PROXY header, before all else (S14, S18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smtpproxy.smtp.proxyheader import Ends, v1_header, v2_header

from .stage import CLIENT, EHLO_REPLY, Stage
from .tlspeers import a_client, client_tls, server_tls
from .tlsstage import EHLO, GREETING, SecureClient, TlsPeer, TlsScene, shake_hands

NAMED = Ends(("203.0.113.5", 51000), ("198.51.100.1", 25))
BALANCED: dict[str, Any] = {"proxy_protocol": "required", "trusted": {"proxy_protocol": ["192.0.2.0/24"]}}


@pytest.mark.parametrize(
    ("identity", "address", "header"),
    [
        ("proxy-v1", CLIENT, b"PROXY TCP4 192.0.2.9 192.0.2.1 40025 25\r\n"),
        ("proxy-v1", "2001:db8::9", b"PROXY TCP6 2001:db8::9 2001:db8::25 40025 25\r\n"),
        ("proxy-v1", "", b"PROXY UNKNOWN\r\n"),
        ("proxy-v2", CLIENT, v2_header(Ends((CLIENT, 40025), ("192.0.2.1", 25)))),
        ("proxy-v2", "", v2_header(None)),
    ],
)
def test_s14_the_first_that_a_server_hears_is_who_the_client_is(
    stage: Callable[..., Stage], identity: str, address: str, header: bytes
) -> None:
    play = stage(backend={"identity": identity})
    client = play.client(address)
    client.send(EHLO)
    wire = play.dialler.wires[-1]
    assert wire.take() == header
    play.answer(GREETING)
    assert wire.take() == EHLO
    client.vanish()


def test_a_client_named_by_a_header_is_named_on(stage: Callable[..., Stage]) -> None:
    for identity, make in (("proxy-v1", v1_header), ("proxy-v2", v2_header)):
        play = stage(listener=BALANCED, backend={"identity": identity})
        play.client().transport.protocol.dataReceived(v1_header(NAMED))
        assert play.dialler.wires[-1].take() == make(NAMED)


def test_s19_each_server_is_told(stage: Callable[..., Stage]) -> None:
    play = stage(backend={"identity": "proxy-v1", "servers": ["192.0.2.1:25", "192.0.2.2:25"]})
    client = play.client()
    first = play.dialler.wires[-1].take()
    play.answer(b"421 busy\r\n")
    assert play.dialler.wires[-1].take() == first
    client.vanish()


def test_s18_a_session_that_was_told_by_a_header_is_not_kept(stage: Callable[..., Stage]) -> None:
    for identity in ("proxy-v1", "proxy-v2", "source-address"):
        play = stage(backend={"identity": identity, "reuse": "on"})
        client = play.ready()
        client.send(b"QUIT\r\n")
        assert play.dialler.wires[-1].take() == b"QUIT\r\n"
        play.client()
        assert len(play.dialler.legs) == 2


def test_the_server_learns_of_the_clients_tls(stage: Callable[..., Stage], pki: Any) -> None:
    """Where it was there before the connection with the server, that is on an implicit listener."""
    authority = pki.ca("Clients")
    shown = pki.pair(["joe"], ca=authority, client=True, common_name="Joe")
    scene = TlsScene(stage, pki)
    asked = {"client_certificates": {"mode": "ask", "ca": str(authority.path)}}
    play = scene.stage("implicit", tls=asked, backend={"identity": "proxy-v2"})
    SecureClient(play, tls=a_client(certificate=shown)).handshake()
    header = play.dialler.wires[-1].take()
    assert b"TLSv1.3" in header
    assert b"TLS_AES_256_GCM_SHA384" in header
    assert b"mx.example.org" in header
    assert b"Joe" in header
    play = scene.stage("starttls", backend={"identity": "proxy-v2"})
    play.client()
    assert b"TLSv1" not in play.dialler.wires[-1].take()


def test_the_header_comes_before_tls_with_the_server(stage: Callable[..., Stage], pki: Any) -> None:
    pair = pki.pair()
    tls = {"mode": "implicit", "verify": "none"}
    play = stage(backend={"identity": "proxy-v1", "tls": tls}, backend_tls=client_tls(**tls))
    client = play.client()
    client.send(EHLO)
    wire = play.dialler.wires[-1]
    header, end, hello = wire.take().partition(b"\r\n")
    assert header == b"PROXY TCP4 192.0.2.9 192.0.2.1 40025 25"
    assert hello[:1] == b"\x16"
    peer = TlsPeer(server_tls(pair).connection())
    wire.protocol.dataReceived(peer.feed(hello))
    shake_hands(wire, peer)
    wire.protocol.dataReceived(peer.say(GREETING))
    peer.feed(wire.take())
    assert peer.take() == EHLO
    wire.protocol.dataReceived(peer.say(EHLO_REPLY))
    assert client.take().endswith(end)
    client.vanish()
