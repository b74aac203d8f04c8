"""Polite visits: what is found, in which order it is asked for, and what becomes of servers that misbehave."""

from __future__ import annotations

import errno
import ssl
from typing import Any

import pytest
from freeports import free_port
from probeserver import MailServer
from twisted.internet.error import ConnectError, NoRouteError

from smtpproxy.ops.probe.facts import Found, Hello, Server
from smtpproxy.ops.probe.line import Line
from smtpproxy.ops.probe.verdicts import is_fine, problems

SHORT = 1.0  # seconds; what does come is there sooner on a busy machine too
POLITE = ["EHLO me.example.net", "QUIT"]
POLITE_TLS = ["EHLO me.example.net", "STARTTLS", "*EHLO me.example.net", "*QUIT"]


def only(found: Found) -> Server:
    ((server,),) = (host.servers for host in found.hosts)
    return server


def wrong(found: Found) -> tuple[str, ...]:
    (host,) = found.hosts
    return problems(found.sts, host, only(found))


def test_a_server_in_clear(do: Any) -> None:
    with MailServer(clear=[b"PIPELINING", b"SIZE 1000", b"PIPECONNECT"]) as mx:
        found = do(f"127.0.0.1:{mx.port}")
    server = only(found)
    assert (found.kind, found.ehlo, found.sts.status) == ("host", "me.example.net", "not asked")
    assert (server.address, server.port, server.trouble) == ("127.0.0.1", mx.port, "")
    assert server.greeting == "220 mx.example.org ESMTP"
    assert server.clear == Hello(
        ("PIPELINING", "SIZE 1000", "PIPECONNECT"),
        ("PIPECONNECT",),
        usable=True,
        pipelining=True,
        chunking=False,
        starttls=False,
    )
    assert (server.tls, server.inside) == (None, None)
    assert [phase.name for phase in server.phases] == ["DNS", "TCP connect", "greeting", "EHLO"]
    assert all(phase.seconds >= 0 for phase in server.phases)
    assert server.round_trip == server.phases[1].seconds
    assert [(session.before_greeting, session.commands) for session in mx.sessions] == [(b"", POLITE)]
    assert is_fine(found)


def test_a_server_with_starttls(do: Any, pki: Any) -> None:
    pair = pki.pair(["mx.example.org", "127.0.0.1"])
    with MailServer(pair=pair, inside=[b"X_PIPE_CONNECT", b"PIPELINING"]) as mx:
        found = do(f"127.0.0.1:{mx.port}")
    server = only(found)
    names = [phase.name for phase in server.phases]
    assert names == ["DNS", "TCP connect", "greeting", "EHLO", "STARTTLS", "TLS handshake", "EHLO inside"]
    assert server.clear is not None
    assert server.clear.starttls
    assert server.inside is not None
    assert server.inside.keywords == ("X_PIPE_CONNECT",)
    tls = server.tls
    assert tls is not None
    assert (tls.version, tls.chain_error, tls.name_error) == ("TLSv1.3", "", "")
    certificate = tls.certificate
    assert certificate is not None
    assert (certificate.subject, certificate.issuer) == ("CN=mx.example.org", "CN=Test CA")
    assert certificate.names == ("mx.example.org", "127.0.0.1")
    assert (certificate.days_left, certificate.sha256) == (90, pair.fingerprint)
    assert [session.commands for session in mx.sessions] == [POLITE_TLS]
    assert is_fine(found)


def test_without_tls_starttls_is_left_alone(do: Any, pki: Any) -> None:
    with MailServer(pair=pki.pair()) as mx:
        server = only(do(f"127.0.0.1:{mx.port}", tls=False))
    assert (server.trouble, server.tls, server.inside) == ("", None, None)
    assert [session.commands for session in mx.sessions] == [POLITE]


@pytest.mark.parametrize(
    ("offered", "keywords", "usable"),
    [
        ([b"PIPELINING", b"PIPE_CONNECT"], ("PIPE_CONNECT",), True),
        ([b"PIPELINING", b"X_PIPE_CONNECT", b"PIPECONNECT"], ("PIPECONNECT", "X_PIPE_CONNECT"), True),
        ([b"PIPECONNECT"], ("PIPECONNECT",), False),  # C1: only beside PIPELINING
        ([b"PIPELINING"], (), False),
    ],
)
def test_which_keyword_and_whether_it_is_usable(
    do: Any, offered: list[bytes], keywords: tuple[str, ...], *, usable: bool
) -> None:
    with MailServer(clear=offered) as mx:
        server = only(do(f"127.0.0.1:{mx.port}"))
    assert server.clear is not None
    assert (server.clear.keywords, server.clear.usable, server.usable) == (keywords, usable, usable)


def test_whom_not_to_believe(do: Any, pki: Any) -> None:
    """It is told, and nothing more: there is no policy that demands anything."""
    with MailServer(pair=pki.pair(["other.example.net"], ca=pki.ca("Somebody"), days=-2)) as mx:
        found = do(f"127.0.0.1:{mx.port}")
    tls = only(found).tls
    assert tls is not None
    assert tls.certificate is not None
    assert tls.chain_error == "unable to get issuer cert locally"
    assert "127.0.0.1" in tls.name_error
    assert tls.certificate.days_left < 0
    assert is_fine(found)


def test_tls_1_2(do: Any, pki: Any) -> None:
    with MailServer(pair=pki.pair(["127.0.0.1"]), version=ssl.TLSVersion.TLSv1_2) as mx:
        server = only(do(f"127.0.0.1:{mx.port}"))
    assert server.tls is not None
    assert server.tls.version == "TLSv1.2"
    assert [saving.starttls for saving in server.savings] == [9, 6, 5, 4]


def test_an_old_server(do: Any) -> None:
    with MailServer(EHLO=b"502 5.5.1 no\r\n") as mx:
        found = do(f"127.0.0.1:{mx.port}")
    clear = only(found).clear
    assert clear is not None
    assert (clear.helo_only, clear.lines) == (True, ())
    assert mx.sessions[0].commands == ["EHLO me.example.net", "HELO me.example.net", "QUIT"]
    assert is_fine(found)


@pytest.mark.parametrize(
    ("replies", "why", "commands"),
    [
        ({"greeting": b"554 5.7.1 go\r\n"}, "it does not want to talk to us: 554 5.7.1 go", ["QUIT"]),
        ({"greeting": b"hello\r\n"}, "what it said is no reply of SMTP: not a reply", []),
        ({"greeting": b""}, "it closed the connection", []),
        ({"greeting": b"220 one\r\n220 two\r\n"}, "it spoke unasked: 220 two", []),
        ({"EHLO": b"421 4.3.2 later\r\n"}, "EHLO is refused: 421 4.3.2 later", POLITE),
        ({"EHLO": b"250-one\r\n251 two\r\n"}, "what it said is no reply of SMTP: reply lines with different codes", []),
        ({"STARTTLS": b"454 4.7.0 no\r\n"}, "STARTTLS is offered and refused: 454 4.7.0 no", None),
        ({"STARTTLS": b"220 go\r\n250 injected\r\n"}, "it spoke unasked: 250 injected", None),  # C11
        ({"STARTTLS": b"220 go\r\n25"}, "it said more than its reply to STARTTLS", None),  # C11
        ({"STARTTLS": b""}, "it closed the connection", None),
    ],
)
def test_what_ends_a_visit(do: Any, pki: Any, replies: dict[str, bytes], why: str, commands: Any) -> None:
    with MailServer(pair=pki.pair(["127.0.0.1"]), **replies) as mx:
        found = do(f"127.0.0.1:{mx.port}")
    assert only(found).trouble == why
    assert wrong(found) == (why,)
    assert not is_fine(found)
    if commands:
        assert mx.sessions[0].commands == commands


def test_a_handshake_that_fails(do: Any) -> None:
    """What was seen in clear is told all the same."""
    with MailServer(clear=[b"PIPELINING", b"STARTTLS"]) as mx:  # it goes on in clear
        server = only(do(f"127.0.0.1:{mx.port}"))
    assert server.trouble.startswith("the handshake failed: ")
    assert server.clear is not None
    assert server.clear.starttls
    assert server.tls is None


def test_a_silent_server(do: Any) -> None:
    with MailServer(early=[1]) as mx:  # it will not say a word before we do
        server = only(do(f"127.0.0.1:{mx.port}", patience=SHORT))
    assert server.trouble == "nothing came within 1 s"
    assert mx.sessions[0].before_greeting == b""  # not even QUIT


def test_nobody_there(do: Any) -> None:
    found = do(f"127.0.0.1:{free_port()}")
    assert only(found).trouble.startswith("cannot connect: ")
    assert "refused" in only(found).trouble
    assert not is_fine(found)


@pytest.mark.parametrize("problem", [NoRouteError(), ConnectError(errno.EADDRNOTAVAIL, "Cannot assign")])
def test_an_address_that_is_out_of_reach_is_only_told(
    do: Any, monkeypatch: pytest.MonkeyPatch, problem: ConnectError
) -> None:
    """As with IPv6 where there is none: that is not the server's fault."""
    connect = Line.connect

    async def no_way(reactor: Any, address: str, port: int, patience: float) -> Line:
        if ":" in address:
            raise problem
        return await connect(reactor, address, port, patience)

    monkeypatch.setattr(Line, "connect", no_way)
    with MailServer() as mx:
        found = do("mx.example.org", {"mx.example.org": {"A": ["127.0.0.1"], "AAAA": ["2001:db8::1"]}}, port=mx.port)
    away, here = found.hosts[0].servers
    assert (away.address, away.unreachable, here.trouble) == ("2001:db8::1", True, "")
    assert away.trouble.startswith("cannot connect: ")
    assert is_fine(found)
    assert not is_fine(do("[2001:db8::1]:25"))  # but somebody must be reached


def test_a_connection_that_is_reset(do: Any) -> None:
    with MailServer(EHLO=b"", reset=True) as mx:
        server = only(do(f"127.0.0.1:{mx.port}"))
    assert server.trouble.startswith("the connection broke: ")


def test_a_silent_handshake(do: Any) -> None:
    """The server says that it is ready, and then nothing."""
    with MailServer(clear=[b"STARTTLS"], mute=True) as mx:
        server = only(do(f"127.0.0.1:{mx.port}", patience=SHORT))
    assert server.trouble == "nothing came within 1 s"
    assert server.clear is not None
