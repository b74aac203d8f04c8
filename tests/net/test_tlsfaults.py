"""Handshakes that fail, records that are none, and what a peer may ask of us inside TLS (H5, S5, S6)."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from smtpproxy.net.tls import words_for

from .tlslayer import Joined
from .tlspeers import a_client, server_tls
from .tlsstage import CLOSE_NOTIFY

BOTH = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])
LOWERS = pytest.mark.parametrize("lean", [True, False], ids=["lean", "stock"])
CLOSED = "connection closed in the handshake"
HTTP = b"GET / HTTP/1.1\r\nHost: mx.example.org\r\n\r\n"
KEY_UPDATE, REQUESTED, NOT_REQUESTED = b"\x18\0\0\1", b"\1", b"\0"
HANDSHAKE, TEXT = 22, 23
SUITE = "TLS_AES_128_GCM_SHA256"


@pytest.fixture
def tls(pki: Any) -> Any:
    return server_tls(pki.pair())


def only(version: int) -> SSL.Context:
    return a_client(versions=(version, version))


# --- the handshake fails --------------------------------------------------------------------------------------------


def test_a_close_before_the_handshake_is_nothing_to_tell(tls: Any) -> None:
    """A load balancer that looks whether the port is open."""
    joined = Joined(tls).begin()
    joined.close()
    assert joined.owner.failed == []
    assert joined.protocol.events == ["read lost"]


@pytest.mark.parametrize("moment", ["within the hello", "behind the hello", "within the last flight"])
def test_a_close_in_the_handshake(tls: Any, moment: str) -> None:
    joined = Joined(tls).begin()
    hello = joined.peer.feed()
    if moment == "within the hello":
        joined.receive(hello[:30])
    else:
        joined.receive(hello)
        if moment == "within the last flight":
            joined.receive(joined.peer.feed(joined.lower.take())[:-1])
    joined.close()
    assert joined.owner.failed == [CLOSED]
    assert joined.owner.secured == 0
    assert joined.protocol.received == b""


@pytest.mark.parametrize("garbage", [b"EHLO client.example\r\n", HTTP, b"\x16\x03\x01\xff\xff" + b"\0" * 70, b"\0" * 5])
def test_h5_garbage_instead_of_a_handshake(tls: Any, garbage: bytes) -> None:
    joined = Joined(tls).begin()
    joined.receive(garbage)
    (why,) = joined.owner.failed
    assert why.isprintable()
    assert why not in {CLOSED, ""}
    joined.receive(joined.peer.feed())
    assert len(joined.owner.failed) == 1, "and it stays so"
    assert (joined.owner.secured, joined.protocol.received) == (0, b"")


def test_s5_s6_whatever_comes_before_the_handshake_is_done_never_reaches_the_protocol(tls: Any) -> None:
    context = a_client()

    @given(st.lists(st.binary(min_size=1, max_size=60), max_size=4), st.integers(0, 600), st.binary(max_size=30))
    @settings(max_examples=150)
    def check(before: list[bytes], at: int, within: bytes) -> None:
        joined = Joined(tls, context).begin()
        hello = joined.peer.feed()
        for piece in (*before, hello[:at] + within + hello[at:]):
            joined.receive(piece)
        flight = joined.lower.take()
        joined.close()
        assert joined.protocol.received == b""
        assert len(joined.owner.failed) == 1
        assert joined.owner.secured == 0
        assert flight[:1] in {b"", b"\x15", b"\x16"}, "an alert, or a flight for a good hello, never a text"

    check()


def test_the_alert_of_a_failed_handshake_is_sent(tls: Any) -> None:
    joined = Joined(tls, a_client(alpn=[b"h2", b"http/1.1"])).begin()
    joined.receive(joined.peer.feed())
    (why,) = joined.owner.failed
    assert "h2" in why
    joined.heard()
    assert "no application protocol" in joined.peer.ended
    joined.receive(b"\r\n")
    assert joined.protocol.received == b""


def test_the_peers_alert_is_the_reason(tls: Any) -> None:
    """Somebody who does not believe our certificate."""
    context = a_client()
    context.set_verify(SSL.VERIFY_PEER)
    joined = Joined(tls, context).begin()
    joined.receive(joined.peer.feed())
    joined.receive(joined.peer.feed(joined.lower.take()))
    (why,) = joined.owner.failed
    assert "unknown ca" in why


def test_a_server_that_speaks_no_tls(tls: Any) -> None:
    joined = Joined(tls, as_client=True).begin()
    assert joined.lower.take()[:1] == b"\x16", "the first word is ours"
    joined.receive(b"220 mx.example.org ESMTP\r\n")
    assert len(joined.owner.failed) == 1
    assert joined.protocol.received == b""


def test_words_for_what_has_none() -> None:
    assert words_for(SSL.Error([])) == "no reason given"
    assert words_for(SSL.Error([("a", "b", "why"), ("", "", "why"), ("", "", "")])) == "why"
    assert words_for(RuntimeError()) == "RuntimeError"
    assert words_for(SSL.SysCallError(-1, "Unexpected EOF")) == CLOSED


# --- broken records -------------------------------------------------------------------------------------------------


@BOTH
@LOWERS
def test_a_record_that_was_tampered_with_ends_the_connection(tls: Any, version: int, *, lean: bool) -> None:
    """Whichever octet it is; nothing of the record is read, nor of what follows."""
    context = only(version)
    size = len(Joined(tls, context).secure().peer.say(b"text\r\n"))
    for at in range(size):
        joined = Joined(tls, context, lean=lean).secure()
        good, bad, more = (joined.peer.say(text) for text in (b"good\r\n", b"text\r\n", b"more\r\n"))
        joined.receive(good + bad[:at] + bytes([bad[at] ^ 1]) + bad[at + 1 :])
        joined.receive(more * 30)  # where it is longer than it was, its end has to come first
        assert joined.protocol.received == b"good\r\n", at
        assert joined.protocol.events == ["lost"], at
        assert str(joined.protocol.reason).count("TLS: ") == 1
        assert joined.lower.ended == "closed"
        joined.peer.feed(joined.lower.take())
        assert joined.peer.ended not in {"", CLOSE_NOTIFY}, "the peer is told by an alert"


def test_h7_clear_text_amid_records_is_not_read(tls: Any) -> None:
    joined = Joined(tls).secure()
    joined.receive(joined.peer.say(b"NOOP\r\n") + b"MAIL FROM:<a@b.example>\r\n")
    joined.receive(joined.peer.say(b"QUIT\r\n") * 1000)
    assert joined.protocol.received == b"NOOP\r\n"
    assert joined.protocol.events == ["lost"]


def test_junk_behind_the_handshake(tls: Any) -> None:
    context = only(SSL.TLS1_3_VERSION)

    @given(st.binary(min_size=1, max_size=100), st.integers(1, 30))
    @settings(max_examples=100)
    def check(junk: bytes, times: int) -> None:
        joined = Joined(tls, context).secure()
        joined.receive(joined.peer.say(b"NOOP\r\n") + junk)
        joined.receive(joined.peer.say(b"QUIT\r\n") * times)
        joined.close()
        assert joined.protocol.received == b"NOOP\r\n"
        assert joined.protocol.events in (["lost"], ["read lost"])

    check()


# --- what a peer may not ask ----------------------------------------------------------------------------------------


def test_renegotiation_is_refused(tls: Any) -> None:
    joined = Joined(tls, only(SSL.TLS1_2_VERSION)).secure()
    before = joined.layer.connection.total_renegotiations()
    joined.peer.connection.renegotiate()
    with pytest.raises(SSL.WantReadError):
        joined.peer.connection.do_handshake()
    joined.receive(joined.peer.feed())
    assert joined.protocol.received == b""
    assert joined.layer.connection.total_renegotiations() == before
    joined.heard()
    assert "no renegotiation" in joined.peer.ended


class PlainServer:
    """A server that may do whatever OpenSSL does, a renegotiation in TLS 1.2 for example."""

    def __init__(self, pair: Any, version: int = SSL.TLS1_2_VERSION) -> None:
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self.context.set_max_proto_version(version)
        self.context.use_certificate_chain_file(str(pair.cert))
        self.context.use_privatekey(pair.private)

    def connection(self) -> SSL.Connection:
        connection = SSL.Connection(self.context)
        connection.set_accept_state()
        return connection


def test_a_server_cannot_make_us_renegotiate(pki: Any) -> None:
    joined = Joined(PlainServer(pki.pair()), as_client=True).secure()
    joined.peer.connection.renegotiate()
    joined.peer.connection.do_handshake()
    before = joined.layer.connection.total_renegotiations()
    joined.receive(joined.peer.feed())
    assert joined.layer.connection.total_renegotiations() == before
    assert joined.protocol.received == b""
    joined.heard()
    assert "no renegotiation" in joined.peer.ended


# --- TLS 1.3: new keys ----------------------------------------------------------------------------------------------


class Direction:
    """The records of one direction of TLS_AES_128_GCM_SHA256, made by hand (RFC 8446, 5.2 and 7.3)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._renew()

    def update(self) -> None:
        """Go on with the next keys (7.2)."""
        self._secret = self._expand(b"traffic upd", 32)
        self._renew()

    def seal(self, kind: int, content: bytes) -> bytes:
        """Make a record."""
        header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2)
        return header + self._key.encrypt(self._nonce(), content + bytes([kind]), header)

    def unseal(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take records apart: the kind and the content of each."""
        records = []
        while data:
            size = 5 + int.from_bytes(data[3:5])
            inner = self._key.decrypt(self._nonce(), data[5:size], data[:5])
            records.append((inner[-1], inner[:-1]))
            data = data[size:]
        return records

    def _renew(self) -> None:
        self._key = AESGCM(self._expand(b"key", 16))
        self._iv = int.from_bytes(self._expand(b"iv", 12))
        self._number = 0

    def _nonce(self) -> bytes:
        nonce = (self._iv ^ self._number).to_bytes(12)
        self._number += 1
        return nonce

    def _expand(self, label: bytes, size: int) -> bytes:
        info = size.to_bytes(2) + bytes([len(label) + 6]) + b"tls13 " + label + b"\0"
        return HKDFExpand(SHA256(), size, info).derive(self._secret)


def secrets_of(context: SSL.Context) -> dict[bytes, bytes]:
    """The secrets of the connection that is made of it, by their names in key logs, once they are there."""
    secrets: dict[bytes, bytes] = {}

    def keep(_connection: SSL.Connection, line: bytes) -> None:
        label, _, secret = line.split()
        secrets[label] = bytes.fromhex(secret.decode())

    context.set_keylog_callback(keep)
    return secrets


def directions(secrets: dict[bytes, bytes]) -> tuple[Direction, Direction]:
    """What the client says, and what the server says."""
    return Direction(secrets[b"CLIENT_TRAFFIC_SECRET_0"]), Direction(secrets[b"SERVER_TRAFFIC_SECRET_0"])


def by_hand(pki: Any, *, lean: bool = False) -> tuple[Joined, Direction, Direction]:
    """A layer whose peer has done the handshake and leaves the rest to us: what the client says, what it hears."""
    context = only(SSL.TLS1_3_VERSION)
    secrets = secrets_of(context)
    joined = Joined(server_tls(pki.pair(), ciphersuites=SUITE), context, lean=lean).begin()
    joined.receive(joined.peer.feed())
    joined.receive(joined.peer.feed(joined.lower.take()))
    client, server = directions(secrets)
    joined.layer.write(b"220 hello\r\n")
    *tickets, greeting = server.unseal(joined.lower.take())
    assert {kind for kind, _ in tickets} == {HANDSHAKE}
    assert greeting == (TEXT, b"220 hello\r\n")
    return joined, client, server


def by_hand_as_client(pki: Any, *, lean: bool = False) -> tuple[Joined, Direction, Direction]:
    """The same where the peer is the server: what it hears, and what it says."""
    plain = PlainServer(pki.pair(), SSL.TLS1_3_VERSION)
    plain.context.set_tls13_ciphersuites(SUITE.encode())
    secrets = secrets_of(plain.context)
    joined = Joined(plain, as_client=True, lean=lean).begin()
    joined.receive(joined.peer.feed(joined.lower.take()))
    tickets = joined.peer.feed(joined.lower.take())
    client, server = directions(secrets)
    assert {kind for kind, _ in server.unseal(tickets)} == {HANDSHAKE}
    joined.receive(tickets)
    assert joined.owner.secured == 1
    return joined, client, server


@pytest.mark.parametrize("together", [False, True])
def test_new_keys_are_taken_and_answered(pki: Any, *, together: bool) -> None:
    """Alone in a packet, or between two texts; before our next text is soon enough (RFC 8446, 4.6.3)."""
    joined, client, server = by_hand(pki)
    packets = [client.seal(TEXT, b"EHLO x\r\n"), client.seal(HANDSHAKE, KEY_UPDATE + REQUESTED)]
    client.update()
    packets.append(client.seal(TEXT, b"NOOP\r\n"))
    for packet in [b"".join(packets)] if together else packets:
        joined.receive(packet)
    assert joined.protocol.received == b"EHLO x\r\nNOOP\r\n"
    joined.layer.write(b"250 ok\r\n")
    sent = joined.lower.take()
    (answer,) = server.unseal(sent[: 5 + int.from_bytes(sent[3:5])])
    assert answer == (HANDSHAKE, KEY_UPDATE + NOT_REQUESTED)
    server.update()
    assert server.unseal(sent[5 + int.from_bytes(sent[3:5]) :]) == [(TEXT, b"250 ok\r\n")]


def test_records_without_text_are_no_text(pki: Any) -> None:
    joined, client, _ = by_hand(pki)
    joined.receive(client.seal(TEXT, b"") + client.seal(TEXT, b"") + client.seal(TEXT, b"NOOP\r\n"))
    joined.receive(client.seal(TEXT, b""))
    assert joined.protocol.received == b"NOOP\r\n"
    assert joined.protocol.events == []


def test_a_record_of_any_size_and_padding_is_read_at_once(pki: Any) -> None:
    joined, client, _ = by_hand(pki)
    joined.receive(client.seal(TEXT, b"x" * 16384) + client.seal(TEXT, b"NOOP\r\n"))
    assert joined.protocol.received == b"x" * 16384 + b"NOOP\r\n"
    joined.receive(client.seal(0, b"QUIT\r\n" + bytes([TEXT]) + bytes(300)))
    assert joined.protocol.received.endswith(b"NOOP\r\nQUIT\r\n")
