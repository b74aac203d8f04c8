"""Who the client is, found out for a server: its name, the login that its certificate stands for (S14, S18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.net.succession import common_name
from smtpproxy.smtp.xclient import TEMPUNAVAIL, UNAVAILABLE

from .stage import CLIENT, CLIENT_PORT, Client, Stage
from .tlspeers import a_client
from .tlsstage import EHLO, GREETING, SecureClient, TlsScene

TAKES_XCLIENT = b"250-mx\r\n250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n250 PIPELINING\r\n"
TRUSTED: dict[str, Any] = {"trusted": {"xclient": ["192.0.2.0/24"]}}
NO_LOOKUP = {"client_name": "unavailable"}
Make = Callable[..., Stage]


class FakeNames:
    """Looks names up when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable[[bytes], None]]] = []

    def find(self, address: str, found: Callable[[bytes], None]) -> None:
        self.asked.append((address, found))


def introduced(play: Stage, client: Client) -> bytes:
    """Let the client say EHLO to a server that takes XCLIENT; give the XCLIENT line."""
    client.send(EHLO)
    play.answer(TAKES_XCLIENT)
    return play.leg.transport.take()


def test_s14_the_server_is_told_all_that_is_known(stage: Make) -> None:
    play = stage(backend=NO_LOOKUP)
    assert introduced(play, play.greeted()) == (
        b"XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.9 PORT=%d PROTO=ESMTP HELO=client.example LOGIN=[UNAVAILABLE] "
        b"DESTADDR=192.0.2.1 DESTPORT=25\r\n" % CLIENT_PORT
    )


def test_a_name_is_waited_for_and_asked_once(stage: Make) -> None:
    names = FakeNames()
    play = stage(names=names)
    client = play.greeted()
    assert introduced(play, client) == b""
    ((address, found),) = names.asked
    assert address == CLIENT
    client.send(b"NOOP\r\n")
    found(b"mail.client.example")
    assert play.leg.transport.take().startswith(b"XCLIENT NAME=mail.client.example ADDR=192.0.2.9 ")
    assert len(names.asked) == 1
    client.vanish()


@pytest.mark.parametrize("end", ["client", "server"])
def test_an_answer_that_comes_too_late_does_no_harm(stage: Make, end: str) -> None:
    names = FakeNames()
    play = stage(names=names)
    client = play.greeted()
    introduced(play, client)
    if end == "client":
        client.vanish()
    else:
        play.server_closes()
        client.take()
    ((_, found),) = names.asked
    found(b"mail.client.example")
    assert play.context.sessions == 0


def test_what_a_trusted_proxy_knows_is_not_looked_up(stage: Make) -> None:
    names = FakeNames()
    play = stage(listener=TRUSTED, names=names)
    client = play.greeted()
    client.send(b"XCLIENT ADDR=203.0.113.5 NAME=mail.client.example LOGIN=joe PORT=51000\r\n")
    line = introduced(play, client)
    for part in (b" NAME=mail.client.example ", b" ADDR=203.0.113.5 ", b" LOGIN=joe ", b" PORT=51000 "):
        assert part in line
    assert names.asked == []


@pytest.mark.parametrize("word", [UNAVAILABLE, TEMPUNAVAIL])
def test_that_a_proxy_knows_no_name_is_known(stage: Make, word: bytes) -> None:
    names = FakeNames()
    play = stage(listener=TRUSTED, names=names)
    client = play.greeted()
    client.send(b"XCLIENT ADDR=203.0.113.5 NAME=%s LOGIN=[UNAVAILABLE]\r\n" % word)
    line = introduced(play, client)
    assert b" NAME=%s " % word in line
    assert b" LOGIN=[UNAVAILABLE] " in line
    assert names.asked == []


def test_a_client_of_a_unix_socket_has_no_name(stage: Make) -> None:
    names = FakeNames()
    play = stage(names=names)
    line = introduced(play, play.greeted(""))
    assert b" ADDR=[UNAVAILABLE] " in line
    assert b"NAME=[UNAVAILABLE] " in line
    assert names.asked == []


def test_an_address_mapped_into_ipv6_is_told_as_it_is(stage: Make) -> None:
    play = stage(backend=NO_LOOKUP)
    client = play.greeted()
    host = client.transport.getHost()
    client.transport.getHost = lambda: type(host)("TCP", "::ffff:192.0.2.1", 25)  # type: ignore[method-assign]  # so it is on [::]
    assert b" DESTADDR=192.0.2.1 " in introduced(play, client)


# --- certificates of clients ----------------------------------------------------------------------------------------


@pytest.fixture
def certified(stage: Make, pki: Any) -> Callable[..., tuple[Stage, SecureClient]]:
    """A client inside TLS, after its EHLO; ``mapped``: whether its certificate stands for a login."""
    authority = pki.ca("Clients")
    scene = TlsScene(stage, pki)

    def make(*, mapped: bool, known: bool = True, mode: str = "ask", **more: Any) -> tuple[Stage, SecureClient]:
        pair = pki.pair(["joe"], ca=authority if known else pki.ca("Others"), client=True)
        logins = {pair.fingerprint: "joe@example.org"} if mapped else {}
        asked = {"mode": mode, "ca": str(authority.path), "logins": logins}
        play = scene.stage("starttls", tls={"client_certificates": asked}, backend=NO_LOOKUP, **more)
        client = SecureClient(play, tls=a_client(certificate=pair))
        play.answer(GREETING)
        client.take()
        client.ask_for_tls()
        client.handshake()
        return play, client

    return make


def test_a_certificate_is_a_login_only_where_the_configuration_says_so(
    certified: Callable[..., tuple[Stage, SecureClient]],
) -> None:
    for mapped, known, login in (
        (True, True, b"joe@example.org"),
        (False, True, b"[UNAVAILABLE]"),
        (True, False, b"[UNAVAILABLE]"),
    ):
        play, client = certified(mapped=mapped, known=known)
        assert b" LOGIN=%s " % login in introduced(play, client)
        assert client.session.facts.verified is known
        client.vanish()


def test_a_login_by_certificate_counts_more_than_what_a_proxy_says(
    certified: Callable[..., tuple[Stage, SecureClient]],
) -> None:
    play, client = certified(mapped=True, listener=TRUSTED)
    assert client.send(b"XCLIENT ADDR=203.0.113.5 LOGIN=eve\r\n") == GREETING
    assert b" LOGIN=joe@example.org " in introduced(play, client)


def test_s18_a_server_that_was_told_before_is_told_anew(stage: Make, pki: Any) -> None:
    """Where TLS has shown more of who the client is; else once is enough."""
    authority = pki.ca("Clients")
    pair = pki.pair(["joe"], ca=authority, client=True)
    scene = TlsScene(stage, pki)
    for logins, again in (({pair.fingerprint: "joe"}, True), ({}, False)):
        asked = {"mode": "ask", "ca": str(authority.path), "logins": logins}
        play = scene.stage("starttls", tls={"client_certificates": asked}, backend=NO_LOOKUP)
        client = SecureClient(play, tls=a_client(certificate=pair))
        play.answer(GREETING)
        client.take()
        introduced(play, client)
        play.answer(GREETING)
        play.answer(TAKES_XCLIENT)
        client.take()
        client.ask_for_tls()
        client.handshake()
        client.send(EHLO)
        if again:
            assert play.asked().startswith(b"XCLIENT ")
        else:
            assert play.asked() == EHLO
        client.vanish()


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("", ""),
        ("O=Example,C=DE", ""),
        ("CN=Joe", "Joe"),
        ("CN=Joe Bloggs+OU=Mail,O=Example\\, Inc.,C=DE", "Joe Bloggs"),
        ("1.2.840.113549.1.9.1=joe@example.org,CN=a\\,b", "a,b"),
        ("CN=Jörg", "Jörg"),
    ],
)
def test_the_common_name_in_a_subject(subject: str, name: str) -> None:
    assert common_name(subject) == name


@pytest.mark.parametrize("subject", ["CN=Joe,C=Germany", "CN=", "CN=" + "x" * 65, "CN=#0", "nonsense"])
def test_h10_a_subject_that_makes_no_sense_has_none_or_one(subject: str) -> None:
    """An authority may have signed anything."""
    assert common_name(subject) in {"", "Joe", "x" * 65}


@given(st.text())
def test_h10_the_common_name_of_any_text(text: str) -> None:
    assert isinstance(common_name(text), str)
    assert isinstance(common_name(f"CN={text}"), str)
