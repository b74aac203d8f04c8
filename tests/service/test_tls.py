"""The process with TLS on both sides (S1, S5, S6, H5, H7, H9, H11)."""

from __future__ import annotations

import base64
import hashlib
import signal
import ssl
from typing import Any

import pytest
from freeports import free_port

from .client import Client
from .conftest import TRANSPORTS, MakeMta, MakeProxy
from .process import Process, listener
from .tlstools import client_context, server_context, with_tls
from .waiting import eventually

ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\n"
MESSAGE = b"Subject: x\r\n\r\ntext\r\n"
BURST = b"EHLO client.example\r\n" + ENVELOPE + b"BDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE + b"QUIT\r\n"
MIB = 1 << 20


def counters(process: Process) -> dict[str, int]:
    """What was counted, as the last event says it."""
    (stopped,) = process.events("stopped")
    return {name: int(value) for name, value in (each.split("=") for each in stopped["counters"])}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bursts_inside_tls_and_sessions_that_are_resumed(
    proxy: MakeProxy, mta: MakeMta, pki: Any, transport: str
) -> None:
    """By STARTTLS, and with TLS from the first octet on; each once in full, and once resumed."""
    pair, context = pki.pair(), client_context(pki)
    server, process = mta(), proxy()
    ports = {"starttls": process.port, "implicit": free_port()}
    listeners = [listener(mode, [f"127.0.0.1:{port}"], tls=with_tls(pair, mode)) for mode, port in ports.items()]
    process.configure(listeners, {"mta": {"servers": [server.endpoint]}}, service={"transport": transport})
    process.start()
    for mode, port in ports.items():
        session = None
        for _ in range(2):
            with Client(("127.0.0.1", port)) as client:
                if mode == "starttls":
                    client.send(b"EHLO client.example\r\nSTARTTLS\r\n")
                    assert client.codes(3) == [220, 250, 220]
                client.secure(context, session=session)
                client.send(BURST)
                read = client.to_the_end()
                if mode == "implicit":
                    assert read.pop(0)[:3] == b"220"
                assert [reply[:3] for reply in read] == [b"250"] * 4 + [b"221"]
                assert b"STARTTLS" not in read[0]
                assert b"PIPE_CONNECT" in read[0]
                assert client.tls.session_reused == (session is not None)
                session = client.tls.session
            assert server.message().data == MESSAGE
    process.wait_for("session", 4)
    process.stop()
    events = process.events("session")
    assert [(each["listener"], each.get("resumed")) for each in events] == [
        ("starttls", None),
        ("starttls", True),
        ("implicit", None),
        ("implicit", True),
    ]
    for event in events:
        assert (event["tls"], event["sni"], event["end"]) == ("TLSv1.3", "mx.example.org", "quit")
        assert event["cipher"].startswith("TLS_")
        assert "fingerprint" not in event
    assert process.events("internal_error") == []
    counted = counters(process)
    assert [counted[f"tls_{what}"] for what in ("handshakes", "resumed", "failures")] == [4, 2, 0]
    loaded = process.events("certificate_loaded")
    assert [each["owner"] for each in loaded] == ["listener starttls", "listener implicit"]
    assert {(each["file"], *each["names"]) for each in loaded} == {(str(pair.cert), "mx.example.org")}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h5_h7_failed_handshakes_and_a_farewell_in_the_middle_of_a_message(
    proxy: MakeProxy, mta: MakeMta, pki: Any, transport: str
) -> None:
    """Each failure is said in a line, but not a look whether the port is open; the time for a handshake is limited."""
    server, process = mta(), proxy()
    pair, hasty = pki.pair(), ("127.0.0.1", free_port())
    wait = {"tls_handshake": "300 ms"}
    listeners = [
        listener("mx", [f"127.0.0.1:{process.port}"], tls=with_tls(pair, "implicit")),
        listener("hasty", [f"127.0.0.1:{hasty[1]}"], tls=with_tls(pair, "implicit"), timeouts=wait),
    ]
    process.configure(listeners, {"mta": {"servers": [server.endpoint]}}, service={"transport": transport})
    process.start()
    with Client(hasty) as slow:
        assert slow.sock.recv(100) == b"", "it has said nothing for too long"
    with Client(process.address()) as http:
        http.send(b"GET / HTTP/1.1\r\nHost: mx.example.org\r\n\r\n")
        assert not http.sock.recv(100).startswith(b"421")
    foreign = client_context(pki)
    foreign.set_alpn_protocols(["h2"])
    with Client(process.address()) as client, pytest.raises(ssl.SSLError, match="no application protocol"):
        client.secure(foreign)
    stranger = ssl.create_default_context(cafile=str(pki.ca("Another").path))
    with Client(process.address()) as client, pytest.raises(ssl.SSLCertVerificationError):
        client.secure(stranger)
    Client(process.address()).sock.close()
    with Client(process.address()) as client:
        client.secure(client_context(pki)).begin().begin_data()
        client.send(b"Subject: half of it\r\n")
        with client.tls.unwrap() as clear:
            clear.sendall(b"\r\n.\r\nQUIT\r\n")
            assert clear.recv(100) == b""
    process.wait_for("session", 6)
    process.stop()
    assert server.messages == []
    (transaction,) = process.events("transaction")
    assert not (transaction.get("reply") or "").startswith("2")
    reasons = {event["why"] for event in process.events("tls_failed")}
    assert len(process.events("tls_failed")) == 3
    assert any("h2" in why for why in reasons)
    assert any("unknown ca" in why for why in reasons)
    assert "TLS handshake timed out" in {event["end"] for event in process.events("session")}
    assert counters(process)["tls_failures"] == 3
    assert counters(process)["timeouts"] == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sigterm_inside_tls_and_in_the_handshake(proxy: MakeProxy, mta: MakeMta, pki: Any, transport: str) -> None:
    server, process = mta(), proxy()
    process.simple([server.endpoint], service={"transport": transport}, tls=with_tls(pki.pair(), "starttls"))
    process.start()
    context = client_context(pki)
    with Client(process.address()) as idle, Client(process.address()) as busy, Client(process.address()) as shaking:
        idle.start_tls(context).code(b"EHLO client.example")
        busy.start_tls(context).code(b"EHLO client.example")
        busy.begin_data()
        assert shaking.begin().code(b"STARTTLS") == 220
        process.signal(signal.SIGTERM)
        (told,) = idle.to_the_end()
        idle.sock.close()
        assert told.startswith(b"421 4.3.2 proxy.example.org ")
        (told,) = shaking.secure(context).to_the_end()
        shaking.sock.close()
        assert told.startswith(b"421 4.3.2 ")
        busy.send(MESSAGE + b".\r\n")
        assert [reply[:3] for reply in busy.to_the_end()] == [b"250", b"421"]
        busy.sock.close()
        assert process.ended() == 0
    assert server.message().data == MESSAGE
    assert {event["end"] for event in process.events("session")} == {"shutdown"}


def test_h9_a_server_that_stops_to_read_does_not_fill_the_memory(proxy: MakeProxy, mta: MakeMta, pki: Any) -> None:
    """TLS on both sides, and Twisted's own transports."""
    pair = pki.pair()
    server = mta(receive_buffer=65536, tls=server_context(pair))
    process = proxy()
    process.simple(
        [server.endpoint],
        backend={"identity": "none", "tls": {"mode": "starttls-required", "verify": "none"}},
        service={"transport": "stock"},
        tls=with_tls(pair, "implicit"),
    )
    process.start()
    line = b"".join(b"%032x" % number for number in range(2)) + b"\r\n"
    message = (line * (MIB // len(line))) * 64
    with Client(process.address()) as client:
        client.secure(client_context(pki)).begin().begin_data()
        before = process.memory()
        server.reading.clear()
        sent = client.send_what_fits(message)
        assert sent < len(message), "it was all taken, by whom?"
        assert process.memory() - before < 8 * MIB
        server.reading.set()
        client.send(message[sent:] + b".\r\n")
        assert client.codes(1) == [250]
        assert process.memory() - before < 8 * MIB
    taken = server.message().data
    assert len(taken) == len(message)
    assert hashlib.sha256(taken).digest() == hashlib.sha256(message).digest()
    process.stop()


# --- AUTH -----------------------------------------------------------------------------------------------------------

SECRET = base64.b64encode(b"\0user\0correct horse")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h11_auth_only_inside_tls_and_nothing_of_it_in_a_transcript(
    proxy: MakeProxy, mta: MakeMta, pki: Any, transport: str
) -> None:
    server, process = mta(), proxy(arguments=["-v"])
    process.simple([server.endpoint], service={"transport": transport}, tls=with_tls(pki.pair(), "starttls"))
    process.start()
    with Client(process.address()) as client:
        client.begin()
        assert client.ask(b"AUTH PLAIN " + SECRET).startswith(b"538 5.7.11 ")
        assert client.code(b"STARTTLS") == 220
        client.secure(client_context(pki))
        assert b"AUTH PLAIN LOGIN" in client.ask(b"EHLO client.example")
        assert client.code(b"AUTH PLAIN " + SECRET) == 235
        assert client.code(b"MAIL FROM:<a@b.example>") == 250
        assert client.code(b"RCPT TO:<c@else.example>") == 250, "S14: after AUTH any recipient passes"
        assert client.code(b"QUIT") == 221
    with Client(process.address()) as client:
        client.start_tls(client_context(pki))
        client.code(b"EHLO client.example")
        assert client.code(b"AUTH LOGIN") == 334
        assert client.code(base64.b64encode(b"correct horse")) == 235
        assert client.code(b"QUIT") == 221
    process.wait_for("session", 2)
    process.stop()
    commands = [line for connection in server.commands for line in connection]
    assert commands.count(f"AUTH PLAIN {SECRET.decode()}") == 1, "the server got it, inside TLS only"
    text = process.text()
    for secret in (SECRET, base64.b64encode(b"correct horse"), b"correct horse"):
        assert secret.decode() not in text
    said = [event["line"] for event in process.events("transcript")]
    assert said.count("C: STARTTLS") == 2
    assert "S: 220 2.0.0 Ready to start TLS" in said
    assert "C: AUTH ****" in said
    assert said.count("C: EHLO client.example") == 4
    assert process.events("internal_error") == []


# --- TLS with the server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_tls_with_the_server_and_the_next_one_where_it_is_not_who_it_should_be(
    proxy: MakeProxy, mta: MakeMta, pki: Any, transport: str
) -> None:
    wrong = mta(tls=server_context(pki.pair(["other.example.org"])), greeting=b"220 wrong ESMTP\r\n")
    right = mta(tls=server_context(pki.pair(["mail.example.org"])), greeting=b"220 right ESMTP\r\n")
    process = proxy()
    tls = {"mode": "starttls-required", "ca": str(pki.root.path), "name": "mail.example.org"}
    process.simple(
        [wrong.endpoint, right.endpoint],
        backend={"identity": "none", "tls": tls},
        service={"transport": transport},
    )
    process.start()
    with Client(process.address()) as client:
        client.begin().begin_data()
        client.send(MESSAGE + b".\r\n")
        assert client.codes(1) == [250]
    assert right.message().data == MESSAGE
    assert right.commands[0][:3] == ["EHLO client.example", "STARTTLS", "EHLO client.example"]
    assert wrong.commands[0] == ["EHLO client.example", "STARTTLS"]
    (failure,) = process.wait_for("backend_failed")
    assert failure["server"] == wrong.endpoint
    assert failure["why"] == "TLS: the certificate is not for mail.example.org"
    process.wait_for("session")
    process.stop()
    assert process.events("session")[0]["backend"] == right.endpoint


def test_tls_with_the_server_from_the_first_octet_on_in_a_kept_session(
    proxy: MakeProxy, mta: MakeMta, pki: Any
) -> None:
    server = mta(tls=server_context(pki.pair(["127.0.0.1"])), implicit=True)
    process = proxy()
    tls = {"mode": "implicit", "ca": str(pki.root.path)}
    process.simple([server.endpoint], backend={"identity": "none", "tls": tls, "reuse": True})
    process.start()
    for number in range(3):
        with Client(process.address()) as client:
            client.begin().begin_data()
            client.send(MESSAGE + b".\r\n")
            assert client.codes(1) == [250]
            assert client.code(b"QUIT") == 221
        process.wait_for("session", number + 1)
    assert len(server.commands) == 1
    process.stop()
    eventually(lambda: server.commands[0][-1] == "QUIT", "the kept session says QUIT")
