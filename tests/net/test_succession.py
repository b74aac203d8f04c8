"""A session goes on for the client that a trusted proxy has named, or that has shown a certificate (H6, S14, S18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.net.succession import common_name
from smtpproxy.smtp.xclient import TEMPUNAVAIL, UNAVAILABLE

from .stage import CLIENT, CLIENT_PORT, EHLO_REPLY, OWN, Client, Stage
from .tlspeers import a_client
from .tlsstage import SecureClient, TlsScene

PROXY = CLIENT
NAMED = "203.0.113.5"
GREETING = b"220 mx.example.org ESMTP\r\n"
EHLO = b"EHLO client.example\r\n"
OK = b"250 ok\r\n"
TAKES_XCLIENT = (
    b"250-mx.example.org\r\n250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n250 PIPELINING\r\n"
)
TRUSTED: dict[str, Any] = {"trusted": {"xclient": ["192.0.2.0/24"]}}
NO_LOOKUP = {"client_name": "unavailable"}
Make = Callable[..., Stage]


def behind_a_proxy(stage: Make, *, listener: Any = None, backend: Any = None) -> Stage:
    """A stage whose clients are a proxy that is trusted."""
    return stage(listener=TRUSTED | (listener or {}), backend={"identity": "none"} | (backend or {}))


def named(client: Client, line: bytes = b"XCLIENT ADDR=203.0.113.5\r\n") -> bytes:
    """Let the proxy name somebody; give what it is told."""
    return client.send(line)


# --- XCLIENT from a proxy in front ----------------------------------------------------------------------------------


def test_h6_the_session_is_the_named_clients_from_then_on(stage: Make) -> None:
    play = behind_a_proxy(stage)
    client = play.greeted()
    line = (
        b"XCLIENT NAME=mail.client.example ADDR=203.0.113.5 PORT=51000 LOGIN=joe DESTADDR=198.51.100.1 DESTPORT=587\r\n"
    )
    assert named(client, line) == GREETING
    session = client.session
    assert session.address == session.counted == NAMED
    vouched = session.vouched
    assert (vouched.via, vouched.port, vouched.name, vouched.login) == (PROXY, 51000, b"mail.client.example", b"joe")
    assert vouched.destination == ("198.51.100.1", 587)
    assert len(play.dialler.legs) == 1, "the session with the server goes on where that may not know the client"
    client.send(EHLO)
    assert play.asked() == EHLO
    play.answer(EHLO_REPLY)
    assert b"XCLIENT NAME ADDR" in client.take()
    client.send(b"QUIT\r\n")
    assert len(play.journal.sessions) == 1


@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2", "source-address"])
def test_s18_where_the_connection_says_who_the_client_is_there_is_a_new_one(stage: Make, identity: str) -> None:
    play = behind_a_proxy(stage, backend={"identity": identity})
    client = play.greeted()
    first = play.dialler.wires[0]
    assert named(client) == b""
    assert first.take().endswith(b"QUIT\r\n")
    assert len(play.dialler.legs) == 2, "one, and no more"
    play.answer(GREETING)
    assert client.take() == GREETING
    client.vanish()


@pytest.mark.parametrize("identity", ["proxy-v1", "proxy-v2"])
@pytest.mark.parametrize("address", [CLIENT, ""])
def test_s14_a_client_named_without_a_destination_is_still_named_to_the_server(
    stage: Make, identity: str, address: str
) -> None:
    """Else the server would take it for the proxy itself, and relay for it."""
    play = stage(
        listener={"trusted": {"xclient": ["192.0.2.0/24"]}, "recipient_domains": "any"}, backend={"identity": identity}
    )
    client = play.client(CLIENT)
    client.session.transport._address = address  # where it came in may be a Unix socket
    play.answer(GREETING)
    client.take()
    named(client)
    header = play.dialler.wires[-1].take()
    if identity == "proxy-v1":
        assert header.startswith(b"PROXY TCP4 203.0.113.5 %s " % (OWN.encode() if address else b"0.0.0.0"))
    else:
        assert header[12] == 0x21
        assert header[16:20] == bytes([203, 0, 113, 5])
    client.vanish()


def test_s6_nothing_that_the_proxy_said_before_counts(stage: Make) -> None:
    play = behind_a_proxy(stage)
    client = play.greeted()
    client.send(EHLO)
    play.answer(EHLO_REPLY)
    client.take()
    assert named(client) == GREETING
    assert client.send(b"MAIL FROM:<a@b.example>\r\n") == b"503 5.5.1 Send EHLO first\r\n"


def test_what_follows_in_the_same_packet_is_the_named_clients(stage: Make) -> None:
    """A proxy that is trusted may send it all at once."""
    play = behind_a_proxy(stage)
    client = play.client()
    client.send(b"XCLIENT ADDR=203.0.113.5\r\nEHLO real.example\r\nMAIL FROM:<a@b.example>\r\n")
    play.answer(GREETING)
    assert client.session.address == NAMED
    assert play.asked() == b"EHLO real.example\r\n"
    play.answer(EHLO_REPLY)
    assert play.asked() == b"MAIL FROM:<a@b.example>\r\n"
    play.answer(OK)
    assert client.take().startswith(GREETING + GREETING + b"250-mx.example.org\r\n")


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8::7", ""])
def test_h6_others_are_not_believed(stage: Make, address: str) -> None:
    play = behind_a_proxy(stage)
    client = play.greeted(address)
    assert named(client) == b"550 5.7.0 XCLIENT not allowed\r\n"
    assert (client.session.address, client.session.vouched) == (address, None)


def test_h6_who_was_named_by_a_header_is_not_the_proxy_any_more(stage: Make) -> None:
    trusted = {"proxy_protocol": ["192.0.2.0/24"], "xclient": ["192.0.2.0/24"]}
    play = stage(listener={"proxy_protocol": "required", "trusted": trusted}, backend={"identity": "none"})
    client = play.client()
    client.transport.protocol.dataReceived(b"PROXY TCP4 203.0.113.5 192.0.2.1 1 25\r\n")
    play.answer(GREETING)
    client.take()
    assert named(client, b"XCLIENT ADDR=127.0.0.1\r\n").startswith(b"550 5.7.0 ")


def test_limits_are_for_the_named_client(stage: Make) -> None:
    play = behind_a_proxy(stage, listener={"limits": {"sessions_per_client": 1}})
    crowd = [play.greeted() for _ in range(3)]
    assert named(crowd[0]) == GREETING, "who speaks for many is not one client"
    refused = named(crowd[1])
    assert refused == b"421 4.3.2 proxy.example.org Too many sessions from this client, try again later\r\n"
    assert crowd[1].transport.half_closed
    assert play.journal.refused == [("mx", NAMED, "too many sessions from this client")]
    assert named(crowd[2], b"XCLIENT ADDR=203.0.113.6\r\n") == GREETING
    assert play.context.sessions == 2
    crowd[0].send(b"QUIT\r\n")
    again = play.greeted()
    assert named(again) == GREETING


def test_a_client_may_be_named_twice(stage: Make) -> None:
    play = behind_a_proxy(stage, listener={"limits": {"sessions_per_client": 1}})
    client = play.greeted()
    assert named(client) == GREETING
    assert named(client, b"XCLIENT LOGIN=joe\r\n") == GREETING
    assert (client.session.address, client.session.vouched.login) == (NAMED, b"joe")
    assert named(client, b"XCLIENT ADDR=203.0.113.6\r\n") == GREETING
    assert (client.session.address, client.session.vouched.via) == ("203.0.113.6", PROXY)
    other = play.greeted()
    assert named(other) == GREETING, "the first address is free again"


def test_a_proxy_that_tells_no_address_is_not_counted_as_a_client(stage: Make) -> None:
    play = behind_a_proxy(stage, listener={"limits": {"sessions_per_client": 1}})
    crowd = [play.greeted() for _ in range(3)]
    assert [named(client, b"XCLIENT LOGIN=joe\r\n") for client in crowd] == [GREETING] * 3


@pytest.mark.parametrize("said", [b"ADDR=[UNAVAILABLE]", b"ADDR=[TEMPUNAVAIL]"])
def test_a_client_whose_address_nobody_knows(stage: Make, said: bytes) -> None:
    play = behind_a_proxy(stage, backend={"identity": "proxy-v1"})
    client = play.greeted()
    named(client, b"XCLIENT " + said + b"\r\n")
    assert client.session.address == ""
    assert play.dialler.wires[-1].take() == b"PROXY UNKNOWN\r\n"
    play.answer(GREETING)
    client.take()
    client.send(EHLO)
    play.answer(EHLO_REPLY)
    client.send(b"MAIL FROM:<a@b.example>\r\n")
    play.answer(OK)
    client.take()
    assert client.send(b"RCPT TO:<c@else.example>\r\n").startswith(b"550 5.7.1 "), "S14"


def test_early_pipelining_is_offered_by_the_named_address(stage: Make) -> None:
    play = behind_a_proxy(stage, listener={"early_pipelining": {"advertise_to": ["203.0.113.0/24"]}})
    for line, offered in ((b"XCLIENT ADDR=203.0.113.5\r\n", True), (b"XCLIENT ADDR=198.51.100.5\r\n", False)):
        client = play.greeted()
        named(client, line)
        client.send(EHLO)
        play.answer(EHLO_REPLY)
        assert (b"PIPE_CONNECT" in client.take()) == offered


# --- who the client is, for a server --------------------------------------------------------------------------------


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
    named(client, b"XCLIENT ADDR=203.0.113.5 NAME=mail.client.example LOGIN=joe PORT=51000\r\n")
    line = introduced(play, client)
    for part in (b" NAME=mail.client.example ", b" ADDR=203.0.113.5 ", b" LOGIN=joe ", b" PORT=51000 "):
        assert part in line
    assert names.asked == []


@pytest.mark.parametrize("word", [UNAVAILABLE, TEMPUNAVAIL])
def test_that_a_proxy_knows_no_name_is_known(stage: Make, word: bytes) -> None:
    names = FakeNames()
    play = stage(listener=TRUSTED, names=names)
    client = play.greeted()
    named(client, b"XCLIENT ADDR=203.0.113.5 NAME=%s LOGIN=[UNAVAILABLE]\r\n" % word)
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
