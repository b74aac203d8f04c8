"""TLS over real sockets with lean transports: what only the kernel can show (S5, S13, S18, H5, H7, H9)."""

from __future__ import annotations

import contextlib
import gc
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL

from .fakes import reset
from .street import EHLO_REPLY, ENVELOPE, GREETING, SMALL, End, Street, big_message
from .tlspeers import a_client, a_connection, client_tls, listener_tls, server_tls
from .tlsstage import CLOSE_NOTIFY, TlsPeer

OFFER = b"250-mx.example.org\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
EHLO = b"EHLO client.example\r\n"
Make = Callable[..., Street]


class SecureEnd:
    """One end of a connection inside TLS."""

    def __init__(self, end: End, connection: SSL.Connection) -> None:
        self.end = end
        self.peer = TlsPeer(connection)

    def look(self) -> None:
        """Read what is there, and answer what has to be answered by TLS itself."""
        self.end.look()
        if self.end.received or not self.peer.secured:
            received, self.end.received = bytes(self.end.received), bytearray()
            back = self.peer.feed(received)
            with contextlib.suppress(ConnectionError):
                self.end.send_all(back)

    def until(self, condition: Callable[[], object]) -> None:
        """Look until the condition holds."""

        def came() -> object:
            self.look()
            return condition()

        self.end._reactor.until(came)

    def handshake(self) -> SecureEnd:
        """Do it all."""
        self.until(lambda: self.peer.secured)
        return self

    def say(self, text: bytes) -> None:
        """Send a text."""
        self.end.send_all(self.peer.say(text))

    def expect(self, ending: bytes) -> bytes:
        """Read up to these octets, which must be the last that come."""
        self.until(lambda: self.peer.heard.endswith(ending))
        return self.peer.take()

    def to_the_end(self) -> bytes:
        """Read until the other side closes."""
        self.until(lambda: self.end.closed)
        return self.peer.take()


class Town:
    """Streets whose listener, and whose backend, may speak TLS."""

    def __init__(self, street: Make, pki: Any) -> None:
        self._street = street
        self._pair = pki.pair()
        self._listener = server_tls(self._pair)
        self._backend = server_tls(self._pair)

    def street(self, mode: str = "implicit", *, backend_mode: str = "none", **changes: Any) -> Street:
        listener = {**changes.pop("listener", {}), "tls": listener_tls(self._pair, mode=mode)}
        tls = {"mode": backend_mode, "verify": "none"}
        backend = {**changes.pop("backend", {}), "tls": tls}
        return self._street(listener=listener, backend=backend, tls=self._listener, backend_tls=client_tls(**tls))

    def client(self, street: Street, context: SSL.Context | None = None) -> SecureEnd:
        """A client that is yet to begin."""
        return SecureEnd(street.connect(), a_connection(context or a_client()))

    def server(self, street: Street) -> SecureEnd:
        """The server of the next connection, yet to begin."""
        return SecureEnd(street.server(), self._backend.connection())

    def greeted(self, street: Street) -> tuple[SecureEnd, End]:
        """A client that has said EHLO inside TLS, and a server that speaks in clear."""
        client = self.client(street).handshake()
        server = street.server()
        server.send_all(GREETING)
        client.expect(GREETING)
        client.say(EHLO)
        server.expect(EHLO)
        server.send_all(EHLO_REPLY)
        client.expect(b"250 PIPE_CONNECT\r\n")
        return client, server

    def in_mail_data(self, street: Street) -> tuple[SecureEnd, End]:
        """A client whose mail data is expected, and the server."""
        client, server = self.greeted(street)
        client.say(ENVELOPE)
        server.expect(ENVELOPE)
        server.send_all(b"250 ok\r\n250 ok\r\n")
        client.expect(b"250 ok\r\n250 ok\r\n")
        client.say(b"DATA\r\n")
        server.expect(b"DATA\r\n")
        server.send_all(b"354 go\r\n")
        client.expect(b"354 go\r\n")
        return client, server


@pytest.fixture
def town(street: Make, pki: Any) -> Town:
    return Town(street, pki)


# --- messages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend_mode", ["implicit", "starttls"])
def test_a_big_message_through_two_tls_connections_arrives_bit_for_bit(town: Town, backend_mode: str) -> None:
    here = town.street(backend_mode=backend_mode, backend={"identity": "none"})
    client = town.client(here).handshake()
    server = town.server(here)
    message = big_message(3 << 20)
    chunk = b"BDAT %d LAST\r\n" % len(message) + message
    if backend_mode == "implicit":
        server.handshake()
        server.say(GREETING)
    else:
        server.end.send_all(GREETING)
    client.expect(GREETING)
    client.say(EHLO)
    if backend_mode == "starttls":
        server.end.expect(EHLO)
        server.end.send_all(OFFER)
        server.end.expect(b"STARTTLS\r\n")
        server.end.send_all(b"220 go\r\n")
        server.handshake()
    server.expect(EHLO)
    server.say(b"250-mx.example.org\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    client.expect(b"250 PIPE_CONNECT\r\n")
    records = client.peer.say(ENVELOPE + chunk + b"QUIT\r\n")
    sent = 0
    while sent < len(records):
        with contextlib.suppress(BlockingIOError):
            sent += client.end.sock.send(records[sent : sent + 100_000])
        server.look()
        here.reactor.turn()
    server.until(lambda: len(server.peer.heard) >= len(ENVELOPE + chunk))
    assert server.peer.heard.removesuffix(b"QUIT\r\n") == ENVELOPE + chunk
    server.say(b"250 ok\r\n" * 3)
    read = client.to_the_end()
    assert read.startswith(b"250 ok\r\n" * 3 + b"221 ")
    assert client.peer.ended == CLOSE_NOTIFY


def test_h9_what_waits_for_a_server_that_does_not_read_is_bounded(town: Town) -> None:
    client, server = town.in_mail_data(town.street())
    message = big_message(1 << 20) * 32
    records = client.peer.say(message)
    sent = client.end.send_what_fits(records)
    assert SMALL < sent < 16 << 20, "the client should long have been stopped"
    total, stopped = 0, sent
    while total < sent // 2:
        total += server.look()
        server._reactor.turn()
    assert client.end.send_what_fits(records[stopped:]) > 0, "and goes on when the server reads"
    reset(client.end.sock)


def test_h9_what_waits_for_a_client_that_does_not_read_is_bounded(town: Town) -> None:
    client, server = town.greeted(town.street())
    page = b"214-%s\r\n" % (b"x" * 1000) * 60 + b"214 end\r\n"
    help_record = [client.peer.say(b"HELP\r\n") for _ in range(1000)]
    answered = 0
    for record in help_record:
        client.end.send_what_fits(record)
        if not server.hears(b"HELP", answered + 1):
            break
        answered += 1
        if server.send_what_fits(page) < len(page):
            break
    else:
        raise AssertionError("1000 pages are somewhere in the proxy")
    wanted = answered * len(page) // 2
    client.until(lambda: len(client.peer.heard) > wanted)
    assert client.peer.take().startswith(b"214-")


# --- the wall -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", ["text", "hello"])
def test_s5_text_in_the_segment_of_starttls_is_not_run(town: Town, behind: str) -> None:
    here = town.street("starttls")
    client = town.client(here)
    server = here.server()
    server.send_all(GREETING)
    client.end.expect(GREETING)
    client.end.sock.sendall(EHLO + b"STARTTLS\r\n" + (client.peer.feed() if behind == "hello" else b"RSET\r\n"))
    server.expect(EHLO)
    server.send_all(EHLO_REPLY)
    read = client.end.to_the_end()
    assert read.splitlines()[-1].startswith(b"554 5.5.0 ")
    assert b"220 2.0.0" not in read
    assert server.expect(b"QUIT\r\n") == b"QUIT\r\n"


def test_s5_text_in_the_segment_of_the_hello_is_not_run_and_the_alert_arrives(town: Town) -> None:
    here = town.street("starttls")
    client = town.client(here)
    server = here.server()
    server.send_all(GREETING)
    client.end.expect(GREETING)
    client.end.send_all(b"STARTTLS\r\n")
    client.end.expect(b"220 2.0.0 Ready to start TLS\r\n")
    client.end.sock.sendall(b"MAIL FROM:<x@evil.example>\r\n" + client.peer.feed() + b"DATA\r\n" * 2000)
    read = client.end.to_the_end()
    assert read[:1] in {b"", b"\x15"}
    assert len(here.journal.tls_failures) == 1
    assert server.expect(b"QUIT\r\n") == b"QUIT\r\n"


def test_h5_the_alert_arrives_although_the_client_goes_on_talking(town: Town) -> None:
    """A close with unread input would be a reset, and the alert would be lost."""
    here = town.street()
    client = town.client(here, a_client(alpn=[b"h2"]))
    client.end.sock.sendall(client.peer.feed() + b"PRI * HTTP/2.0\r\n\r\n" * 2000)
    client.until(lambda: client.end.closed)
    assert "no application protocol" in client.peer.ended


def test_a_last_word_inside_tls_is_not_lost_to_a_reset(town: Town) -> None:
    client, server = town.greeted(town.street(listener={"limits": {"errors": 3}}))
    client.say(b"NONSENSE\r\n" * 2000)
    read = client.to_the_end()
    assert read.splitlines()[-1].startswith(b"421 4.7.0 ")
    assert client.peer.ended == CLOSE_NOTIFY
    assert server.expect(b"QUIT\r\n") == b"QUIT\r\n"


# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["farewell", "close", "reset"])
def test_h7_s10_an_end_in_mail_data_resets_the_backend(town: Town, end: str) -> None:
    client, server = town.in_mail_data(town.street())
    client.say(b"text\r\n.")
    server.expect(b"text")
    if end == "farewell":
        client.end.sock.sendall(client.peer.bye() + b"\r\n.\r\n")
    elif end == "close":
        client.end.sock.shutdown(socket.SHUT_WR)
    else:
        reset(client.end.sock)
    with pytest.raises(ConnectionResetError):
        server.to_the_end()
    assert server.received == b""


def test_s13_a_client_that_half_closes_behind_quit_reads_everything(town: Town) -> None:
    """With a farewell, as TLS has it, and without."""
    for farewell in (True, False):
        here = town.street()
        client = town.client(here).handshake()
        message = b"Subject: x\r\n\r\ntext\r\n"
        client.say(EHLO + ENVELOPE + b"BDAT %d LAST\r\n" % len(message) + message + b"QUIT\r\n")
        if farewell:
            client.end.send_all(client.peer.bye())
        client.end.sock.shutdown(socket.SHUT_WR)
        server = here.server()
        server.send_all(GREETING)
        server.expect(EHLO)
        server.send_all(EHLO_REPLY)
        server.expect(ENVELOPE + b"DATA\r\n")
        server.send_all(b"250 ok\r\n250 ok\r\n354 go\r\n")
        assert server.message() == message + b".\r\n"
        server.send_all(b"250 taken\r\n")
        read = client.to_the_end().splitlines()
        assert [line[:3] for line in read if line[3:4] == b" "] == [b"220", b"250", b"250", b"250", b"250", b"221"]
        assert client.peer.ended == CLOSE_NOTIFY


# --- the first look, and the last -----------------------------------------------------------------------------------


def test_s2_talk_before_a_learned_greeting_is_seen_inside_tls(town: Town) -> None:
    """Lazy: the greeting could go at once; what came with the end of the handshake was there before it."""
    here = town.street(
        backend={"connect": "lazy"}, listener={"early_pipelining": {"advertise_to": [], "unlicensed": "reject"}}
    )
    first = town.client(here).handshake()
    server = here.server()
    server.send_all(GREETING)
    first.expect(GREETING)
    first.say(EHLO)
    server.expect(EHLO)
    server.send_all(EHLO_REPLY)
    first.expect(b"250 8BITMIME\r\n")
    first.say(b"QUIT\r\n")
    first.to_the_end()
    polite = town.client(here).handshake()
    assert polite.expect(b"\r\n").startswith(b"220 mx.example.org")
    rude = town.client(here)
    rude.end.send_all(rude.peer.feed())
    last_flight = b""

    def finished() -> bool:
        nonlocal last_flight
        rude.end.look()
        received, rude.end.received = bytes(rude.end.received), bytearray()
        last_flight += rude.peer.feed(received)
        return rude.peer.secured

    here.reactor.until(finished)
    rude.end.sock.sendall(last_flight + rude.peer.say(b"EHLO spammer\r\n"))
    told = rude.to_the_end()
    assert told.startswith(b"554 5.5.0 proxy.example.org ")
    assert told.count(b"\r\n") == 1


def test_s18_a_kept_session_inside_tls_is_lent_late_tickets_or_not(town: Town) -> None:
    """The server's tickets have been read long ago, or wait in the kernel: in no case are they noise."""
    here = town.street("none", backend_mode="implicit", backend={"reuse": True, "identity": "none"})
    first = here.connect()
    server = town.server(here).handshake()
    server.say(GREETING)
    first.expect(GREETING)
    first.send_all(EHLO)
    server.expect(EHLO)
    server.say(EHLO_REPLY)
    first.expect(b"250 PIPE_CONNECT\r\n")
    first.send_all(b"QUIT\r\n")
    first.to_the_end()
    second = here.connect()
    assert second.expect(b"\r\n").startswith(b"220 ")
    second.send_all(EHLO)
    server.expect(EHLO)
    server.say(EHLO_REPLY)
    second.expect(b"250 PIPE_CONNECT\r\n")
    second.send_all(b"QUIT\r\n")
    second.to_the_end()
    server.say(b"421 4.3.2 bye\r\n")
    third = here.connect()
    fresh = town.server(here).handshake()
    fresh.say(GREETING)
    third.expect(GREETING)


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["quit", "farewell", "close", "reset", "421 and a reset", "421 and a close"])
def test_an_ended_session_leaves_nothing_for_the_collector(town: Town, end: str) -> None:
    here = town.street(backend_mode="implicit", backend={"identity": "none"})
    client = town.client(here).handshake()
    server = town.server(here).handshake()
    server.say(GREETING)
    client.expect(GREETING)
    (session,) = [each for each in here.sweep if hasattr(each, "cut_off")]
    kept = [weakref.ref(session.transport.connection), weakref.ref(session.leg.transport.connection)]
    gc.collect()
    gc.disable()
    try:
        if end == "quit":
            client.say(b"QUIT\r\n")
            client.to_the_end()
        elif end == "farewell":
            client.end.send_all(client.peer.bye())
        elif end == "close":
            client.end.sock.shutdown(socket.SHUT_WR)
        elif end == "reset":
            reset(client.end.sock)
        else:
            session.cut_off()
            assert client.to_the_end().startswith(b"421 ")
            if end.endswith("reset"):
                reset(client.end.sock)
            else:
                client.end.sock.shutdown(socket.SHUT_WR)
        del session
        here.reactor.until(lambda: here.journal.sessions)
        server.end.sock.close()
        here.journal.sessions.clear()
        here.journal.secured.clear()
        here.reactor.until(lambda: all(each() is None for each in kept))
    finally:
        gc.enable()
