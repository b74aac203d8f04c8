"""A listener in clear, a backend with TLS, and its servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from .stage import Client, FakeTransport, Stage
from .tlspeers import client_tls, server_tls
from .tlsstage import EHLO, GREETING, OK, TlsPeer, shake_hands

OFFER = b"250-mx.example.org\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
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
