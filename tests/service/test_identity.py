"""Who the client is, as the process tells it: to the server behind, and to its log (S14, S18, H6)."""

from __future__ import annotations

from typing import Any

import pytest
from freeports import free_port

from .client import Client
from .conftest import TRANSPORTS, MakeMta, MakeProxy
from .mta import Mta
from .process import Process, listener
from .tlstools import client_context, with_tls

MESSAGE = b"Subject: x\r\n\r\ntext\r\n"
TAKES_XCLIENT = ("PIPELINING", "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT")
V1 = b"PROXY TCP4 203.0.113.5 198.51.100.1 51000 25\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"
    + bytes([203, 0, 113, 5, 198, 51, 100, 1])
    + (51000).to_bytes(2)
    + (25).to_bytes(2)
)
LOCAL = V2[:12] + b"\x20\x00\x00\x00"


def xclient_line(server: Mta, connection: int = -1) -> dict[str, str]:
    """What a server was told by XCLIENT."""
    (line,) = [line for line in server.commands[connection] if line.startswith("XCLIENT ")]
    return dict(part.split("=", 1) for part in line.split()[1:])


def deliver(client: Client, recipient: bytes = b"c@example.org") -> None:
    """Bring a message through, after EHLO."""
    assert client.code(b"MAIL FROM:<a@b.example>") == 250
    assert client.code(b"RCPT TO:<%s>" % recipient) == 250
    assert client.code(b"DATA") == 354
    client.send(MESSAGE + b".\r\n")
    assert client.codes(1) == [250]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h6_a_load_balancer_in_front_and_a_server_that_takes_xclient(
    proxy: MakeProxy, mta: MakeMta, transport: str
) -> None:
    """Both versions, a health check, and one message for a domain that no list names: the server knows who asks."""
    server, process = mta(extensions=TAKES_XCLIENT), proxy()
    process.simple(
        [server.endpoint],
        backend={"client_name": "unavailable"},
        service={"transport": transport},
        proxy_protocol="required",
        trusted={"proxy_protocol": ["127.0.0.1"]},
        recipient_domains=["example.org"],
        limits={"sessions_per_client": 1},
    )
    process.start()
    Client(process.address()).sock.close()
    with Client(process.address()) as check:
        check.send(LOCAL)
        assert check.reply()[:3] == b"220"
    for header in (V1, V2):
        with Client(process.address()) as client:
            client.send(header)
            client.begin()
            deliver(client, b"c@else.example")
            told = xclient_line(server)
            assert (told["ADDR"], told["PORT"], told["HELO"]) == ("203.0.113.5", "51000", "client.example")
            assert (told["DESTADDR"], told["DESTPORT"]) == ("198.51.100.1", "25")
            assert client.code(b"QUIT") == 221
            assert client.to_the_end() == []
        process.wait_for("transaction", len(server.messages))
    with Client(process.address()) as client:
        client.send(b"EHLO client.example\r\n")
        assert client.reply().startswith(b"421 4.3.2 proxy.example.org Bad PROXY header")
    process.wait_for("session", 3)
    process.stop()
    sessions = process.events("session")
    assert [event["client"] for event in sessions] == ["127.0.0.1", "203.0.113.5", "203.0.113.5"]
    assert [event.get("via") for event in sessions] == [None, "127.0.0.1", "127.0.0.1"]
    assert {event["client"] for event in process.events("transaction")} == {"203.0.113.5"}
    (refused,) = process.events("session_refused")
    assert refused["client"] == "127.0.0.1"
    noise = [event for event in process.events() if event["level"] != "info"]
    assert [event["event"] for event in noise] == ["session_refused"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_h6_a_proxy_in_front_that_says_xclient_and_a_server_that_is_told_by_a_header(
    proxy: MakeProxy, mta: MakeMta, transport: str
) -> None:
    server, process = mta(headed=True), proxy()
    process.simple(
        [server.endpoint],
        backend={"identity": "proxy-v1"},
        service={"transport": transport},
        trusted={"xclient": ["127.0.0.1"]},
        trace_header=True,
    )
    process.start()
    with Client(process.address()) as client:
        client.begin()
        assert client.code(b"XCLIENT ADDR=IPV6:2001:db8::5 PORT=51000 NAME=mail.client.example LOGIN=joe") == 220
        assert client.code(b"EHLO real.example") == 250
        deliver(client)
        assert client.code(b"QUIT") == 221
    header = server.commands[-1][0].split()
    assert header[:3] == ["PROXY", "TCP6", "2001:db8::5"]
    assert header[4] == "51000"
    message = server.message().data
    assert message.startswith(b"Received: from real.example ([IPv6:2001:db8::5])\r\n\tby proxy.example.org ")
    assert message.endswith(MESSAGE)
    process.wait_for("session")
    process.stop()
    (session,) = process.events("session")
    assert (session["client"], session["via"], session["login"]) == ("2001:db8::5", "127.0.0.1", "joe")
    assert session["ehlo"] == "real.example"
    assert process.events("internal_error") == []


def test_s14_a_server_that_does_not_take_xclient(proxy: MakeProxy, mta: MakeMta) -> None:
    """Where no domains are listed the client is turned away; where some are, those pass."""
    server, process = mta(), proxy()
    listed, other = listener("listed", [f"127.0.0.1:{process.port}"]), ("127.0.0.1", free_port())
    unlisted = listener("unlisted", [f"127.0.0.1:{other[1]}"])
    del unlisted["recipient_domains"]
    process.configure([listed, unlisted], {"mta": {"servers": [server.endpoint]}})
    process.start()
    with Client(other) as client:
        assert client.reply()[:3] == b"220"
        assert client.ask(b"EHLO client.example").startswith(b"421 4.3.5 ")
    (session,) = process.wait_for("session")
    assert session["end"] == "backend does not take XCLIENT"
    with Client(process.address()) as client:
        client.begin()
        assert client.code(b"MAIL FROM:<a@b.example>") == 250
        assert client.ask(b"RCPT TO:<c@else.example>").startswith(b"550 5.7.1 ")
        assert client.code(b"RCPT TO:<c@example.org>") == 250
        assert client.code(b"QUIT") == 221
    process.stop()


def certified(process: Process, pki: Any, pair: Any) -> None:
    """A session of a client that shows its certificate."""
    with Client(process.address()) as client:
        client.start_tls(client_context(pki, pair))
        assert client.code(b"EHLO client.example") == 250
        assert client.code(b"QUIT") == 221


def test_a_client_certificate_is_a_login_by_the_map_only(proxy: MakeProxy, mta: MakeMta, pki: Any) -> None:
    authority = pki.ca("Clients")
    joe, eve, stranger = (
        pki.pair([name], ca=signer, client=True, common_name=name)
        for name, signer in (("joe", authority), ("eve", authority), ("stranger", pki.ca("Others")))
    )
    server, process = mta(extensions=TAKES_XCLIENT), proxy()
    asked = {"mode": "ask", "ca": str(authority.path), "logins": {joe.fingerprint: "joe@example.org"}}
    process.simple(
        [server.endpoint],
        backend={"client_name": "unavailable"},
        tls=with_tls(pki.pair(), "starttls", client_certificates=asked),
    )
    process.start()
    for number, pair in enumerate((joe, eve, stranger, None), 1):
        certified(process, pki, pair)
        process.wait_for("session", number)
    process.stop()
    logins = [
        [part for part in line.split() if part.startswith("LOGIN=")]
        for connection in server.commands
        for line in connection
        if line.startswith("XCLIENT ")
    ]
    assert logins.count(["LOGIN=joe@example.org"]) == 1
    assert {each[0] for each in logins} == {"LOGIN=joe@example.org", "LOGIN=[UNAVAILABLE]"}
    fields = ("certificate", "fingerprint", "login")
    first, second, third, fourth = (tuple(event.get(field) for field in fields) for event in process.events("session"))
    assert first == ("CN=joe", joe.fingerprint, "joe@example.org")
    assert second == ("CN=eve", eve.fingerprint, None)
    assert third == (None, stranger.fingerprint, None)
    assert fourth == (None, None, None)
    errors = [event.get("certificate_error") for event in process.events("session")]
    assert [bool(error) for error in errors] == [False, False, True, False]


def test_s18_a_kept_session_is_told_of_each_client_or_is_not_lent(proxy: MakeProxy, mta: MakeMta) -> None:
    server, process = mta(extensions=TAKES_XCLIENT), proxy()
    process.simple(
        [server.endpoint],
        backend={"client_name": "unavailable", "reuse": True},
        proxy_protocol="required",
        trusted={"proxy_protocol": ["127.0.0.1"]},
    )
    process.start()
    addresses = ["203.0.113.5", "203.0.113.6", "203.0.113.6", "203.0.113.7"]
    for number, address in enumerate(addresses, 1):
        with Client(process.address()) as client:
            client.send(V1.replace(b"203.0.113.5", address.encode()))
            client.begin()
            deliver(client)
            assert client.code(b"QUIT") == 221
        process.wait_for("session", number)
    lines = [line for connection in server.commands for line in connection]
    told = [line.split("ADDR=")[1].split()[0] for line in lines if line.startswith("XCLIENT ")]
    assert told == addresses
    process.stop()
