"""TLS with servers: STARTTLS or at once, who the server is, the next server, sessions to resume (S5, S19)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from smtpproxy.net.leg import BackendLeg

from .stage import EHLO_REPLY, Client, FakeTransport, Stage
from .tlspeers import client_tls, server_tls
from .tlsstage import CLOSE_NOTIFY, TlsPeer, shake_hands

GREETING = b"220 mx.example.org ESMTP\r\n"
EHLO = b"EHLO client.example\r\n"
OFFER = b"250-mx.example.org\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
OK = b"250 ok\r\n"
TWO = ["192.0.2.1:25", "192.0.2.2:25"]


class Server:
    """A server of the backend as the proxy meets it; it begins with TLS when it is told to."""

    def __init__(self, wire: FakeTransport, connection: SSL.Connection) -> None:
        self.wire = wire
        self.peer = TlsPeer(connection)

    def handshake(self) -> None:
        """Do it all."""
        self.wire.protocol.dataReceived(self.peer.feed(self.wire.take()))
        shake_hands(self.wire, self.peer)

    def asked(self) -> bytes:
        """What it was sent since the last time."""
        written = self.wire.take()
        if not self.peer.secured:
            return written
        self.peer.feed(written)
        return self.peer.take()

    def answer(self, text: bytes) -> None:
        """Say something."""
        self.wire.protocol.dataReceived(self.peer.say(text) if self.peer.secured else text)


class Scene:
    """One listener, and a backend with TLS."""

    def __init__(self, make: Callable[..., Stage], pki: Any) -> None:
        self._make = make
        self.pki = pki
        self.pair = pki.pair(["mx.example.org", "192.0.2.1"])
        self.server_tls = server_tls(self.pair)
        self.play: Stage

    def client(self, mode: str, *, settings: dict[str, Any] | None = None, **changes: Any) -> Client:
        """A client of a stage whose backend has TLS; by default every certificate of our CA is good."""
        tls = {"mode": mode, "verify": "ca", "ca": str(self.pki.root.path), **(settings or {})}
        backend = {"servers": TWO, "tls": tls, "identity": "none", **changes}
        self.play = self._make(backend=backend, backend_tls=client_tls(**tls))
        return self.play.client()

    def server(self, tls: Any = None) -> Server:
        """The server of the connection that was opened last."""
        return Server(self.play.dialler.wires[-1], (tls or self.server_tls).connection())

    def ready_for_tls(self, mode: str = "starttls", **options: Any) -> tuple[Client, Server]:
        """A client that has said EHLO, and a server that has been asked for TLS and is to say that it is ready."""
        client = self.client(mode, **options)
        server = self.server()
        server.answer(GREETING)
        client.take()
        client.send(EHLO)
        assert server.asked() == EHLO
        server.answer(OFFER)
        assert server.asked() == b"STARTTLS\r\n"
        return client, server


@pytest.fixture
def scene(stage: Callable[..., Stage], pki: Any) -> Scene:
    return Scene(stage, pki)


def reasons(scene: Scene) -> list[str]:
    """Why servers were given up."""
    return [why for _, _, why in scene.play.journal.failures]


def deliver(client: Client, server: Server) -> None:
    """Bring a message through, and take leave."""
    client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\n")
    assert server.asked().endswith(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\n")
    server.answer(OK + OK)
    client.send(b"DATA\r\n")
    assert server.asked() == b"DATA\r\n"
    server.answer(b"354 go\r\n")
    client.send(b"text\r\n.\r\nQUIT\r\n")
    assert server.asked().removesuffix(b"QUIT\r\n") == b"text\r\n.\r\n"
    server.answer(b"250 taken\r\n")
    assert b"250 taken\r\n221 " in client.take()


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
        layer = scene.play.leg.transport
        resumed.append(SSL._lib.SSL_session_reused(layer.connection._ssl))  # type: ignore[attr-defined]
        client.send(b"QUIT\r\n")
        server.answer(b"221 bye\r\n")
        client = scene.play.client()
    client.vanish()
    assert resumed == [0, 1, 1]


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
