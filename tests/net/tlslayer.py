"""A TLS layer between a fake transport and a protocol that writes down, and the peer that it talks to."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

from smtpproxy.net.tls import TlsLayer

from .fakes import FakeReactor, HalfRecorder
from .stage import FakeTransport, LeanFake
from .tlspeers import a_client, a_connection, client_tls
from .tlsstage import TlsPeer, shake_hands


class Owner:
    """Writes down what becomes of the handshake."""

    def __init__(self) -> None:
        self.secured = 0
        self.failed: list[str] = []

    def tls_secured(self, _layer: TlsLayer) -> None:
        self.secured += 1

    def tls_failed(self, _layer: TlsLayer, why: str) -> None:
        self.failed.append(why)


class Joined:
    """A layer in the server's role, or in the client's, and the other side of it."""

    def __init__(
        self, tls: Any, context: SSL.Context | None = None, *, lean: bool = False, as_client: bool = False
    ) -> None:
        """``tls``: the ServerTls at either end; ``context``: of its client, if that is the peer."""
        self.reactor = FakeReactor()
        self.lower: Any = (LeanFake if lean else FakeTransport)(self.reactor)
        self.owner = Owner()
        self.protocol = HalfRecorder()
        self._as_client = as_client
        if as_client:
            connection, peer = client_tls(verify="none").connection("mx.example.org"), tls.connection()
        else:
            connection, peer = tls.connection(), a_connection(context or a_client())
        self.layer = TlsLayer(connection, self.owner)
        self.peer = TlsPeer(peer)

    def begin(self, first: bytes = b"") -> Joined:
        """Put the layer in."""
        self.layer.start(self.lower, self.protocol, first=first, speak=self._as_client)
        return self

    def secure(self) -> Joined:
        """Put the layer in and do the handshake; what it had to write by itself is read."""
        self.begin()
        if self._as_client:
            self.receive(self.peer.feed(self.lower.take()))
        shake_hands(self.lower, self.peer)
        assert (self.owner.secured, self.owner.failed) == (1, [])
        return self

    def receive(self, data: bytes) -> None:
        """Let the transport read these octets."""
        self.lower.protocol.dataReceived(data)

    def close(self) -> None:
        """Let the transport read the end."""
        self.lower.protocol.readConnectionLost()

    def heard(self) -> bytes:
        """What the peer has been told since the last time; its own replies to that go back."""
        back = self.peer.feed(self.lower.take())
        if back and self.lower.protocol is not None:
            self.receive(back)
        return self.peer.take()
