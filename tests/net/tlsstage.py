"""TLS on the stage: the other end of a connection in memory, whether a client's or a server's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL import SSL

from .stage import CLIENT, EHLO_REPLY, Client, FakeTransport, LeanFake, Stage
from .tlspeers import a_client, a_connection, listener_tls, server_tls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CLOSE_NOTIFY = "close_notify"
STARTTLS_REPLY = b"220 2.0.0 Ready to start TLS\r\n"
GREETING = b"220 mx.example.org ESMTP\r\n"
EHLO = b"EHLO client.example\r\n"
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\n"
OK = b"250 ok\r\n"


class TlsPeer:
    """The other end of a connection inside TLS: it is given octets, and gives octets."""

    def __init__(self, connection: SSL.Connection) -> None:
        self.connection = connection
        self.secured = False
        self.heard = b""
        self.ended = ""
        """CLOSE_NOTIFY when that has come, or OpenSSL's word for the alert or the error that has ended it."""

    def feed(self, data: bytes = b"") -> bytes:
        """Take octets; give what they are answered with by themselves. Text goes to ``heard``."""
        if data:
            self.connection.bio_write(data)
        heard: list[bytes] = []
        try:
            if not self.secured:
                self.connection.do_handshake()
                self.secured = True
            while True:
                heard.append(self.connection.recv(1 << 16))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = CLOSE_NOTIFY
        except SSL.Error as problem:
            self.ended = self.ended or (problem.args[0][0][-1] if problem.args and problem.args[0] else "error")
        self.heard += b"".join(heard)
        return self._out()

    def say(self, text: bytes) -> bytes:
        """Give a text as it goes on the wire."""
        rest = memoryview(text)
        while rest:
            rest = rest[self.connection.send(rest) :]
        return self._out()

    def bye(self) -> bytes:
        """Give a close_notify."""
        self.connection.shutdown()
        return self._out()

    def take(self) -> bytes:
        """What was heard since the last time."""
        heard, self.heard = self.heard, b""
        return heard

    def _out(self) -> bytes:
        pieces: list[bytes] = []
        try:
            while True:
                pieces.append(self.connection.bio_read(1 << 16))
        except SSL.WantReadError:
            return b"".join(pieces)


def whole(data: bytes) -> list[bytes]:
    """In one piece."""
    return [data]


def cut_up(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """In pieces of those sizes, and one of the rest; none is empty."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in (*pieces, data) if piece]


def shake_hands(transport: FakeTransport, peer: TlsPeer, cut: Callable[[bytes], list[bytes]] = whole) -> None:
    """Carry octets between a fake transport, with whatever is on it, and its peer until neither has any more to say.

    ``cut``: into which pieces what the peer says is cut.
    """
    said = peer.feed()
    while True:
        for piece in cut(said) if said else ():
            if transport.protocol is not None:
                transport.protocol.dataReceived(piece)
        answer = transport.take()
        if not answer and not said:
            return
        said = peer.feed(answer)


class SecureClient(Client):
    """A client of a stage that can speak TLS. Once it does, ``send`` and ``take`` are about what is inside."""

    def __init__(
        self, stage: Stage, address: str = CLIENT, *, lean: bool = False, tls: SSL.Context | None = None
    ) -> None:
        super().__init__(stage, address, lean=lean)
        self.peer = TlsPeer(a_connection(tls or a_client(), b"mx.example.org"))

    def hello(self) -> bytes:
        """The first flight of its handshake."""
        return self.peer.feed()

    def handshake(self) -> SecureClient:
        """Do it all."""
        shake_hands(self.transport, self.peer)
        return self

    def ask_for_tls(self) -> None:
        """Say STARTTLS, and be told to go ahead."""
        assert self.send(b"STARTTLS\r\n") == STARTTLS_REPLY

    def receive(self, data: bytes) -> None:
        """Let the proxy receive these octets."""
        if self.transport.protocol is not None:
            self.transport.protocol.dataReceived(data)

    def leave_unread(self, data: bytes) -> None:
        """Let these octets wait in the kernel."""
        assert isinstance(self.transport, LeanFake)
        self.transport.kernel.append(data)

    def send(self, data: bytes) -> bytes:
        self.receive(self.peer.say(data) if self.peer.secured else data)
        return self.take()

    def take(self) -> bytes:
        written = self.transport.take()
        if not self.peer.secured:
            return written
        self.peer.feed(written)
        return self.peer.take()


class TlsScene:
    """Makes stages whose listener, and whose backend, may speak TLS."""

    def __init__(self, make: Callable[..., Stage], pki: Any) -> None:
        self._make = make
        self.pair = pki.pair()
        self._kept: dict[str, Any] = {}

    def stage(self, mode: str = "starttls", *, backend_tls: Any = None, names: Any = None, **changes: Any) -> Stage:
        """A stage with TLS towards clients; ``tls``: more of its settings."""
        tls = changes.pop("tls", {})
        settings = dict(changes.pop("listener", {}))
        contexts = None
        if mode != "none":
            settings["tls"] = listener_tls(self.pair, mode=mode, **tls)
            contexts = server_tls(self.pair, mode=mode, **tls)
        return self._make(listener=settings, tls=contexts, backend_tls=backend_tls, names=names, **changes)


def ready_for_tls(stage: Stage, *, lean: bool = False) -> SecureClient:
    """A client that has been offered STARTTLS, and has been told to go ahead."""
    client = SecureClient(stage, lean=lean)
    stage.answer(GREETING)
    client.take()
    client.send(EHLO)
    stage.answer(EHLO_REPLY)
    assert b"250-STARTTLS\r\n" in client.take()
    client.ask_for_tls()
    return client


def inside(stage: Stage, mode: str = "implicit", *, lean: bool = False) -> SecureClient:
    """A client that has said EHLO inside TLS."""
    if mode == "implicit":
        client = SecureClient(stage, lean=lean).handshake()
        stage.answer(GREETING)
        assert client.take() == GREETING
    else:
        client = ready_for_tls(stage, lean=lean).handshake()
    client.send(EHLO)
    assert stage.asked() == EHLO
    stage.answer(EHLO_REPLY)
    assert b"250-PIPELINING\r\n" in client.take()
    return client


def in_mail_data(stage: Stage, *, lean: bool = False) -> SecureClient:
    """A client whose mail data is expected."""
    client = inside(stage, lean=lean)
    client.send(ENVELOPE)
    stage.answer(OK + OK)
    client.take()
    client.send(b"DATA\r\n")
    stage.answer(b"354 go\r\n")
    assert client.take() == b"354 go\r\n"
    return client
