"""The gate where a load balancer says for whom it connects (H6), and what a server is told in that way (S14)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from smtpproxy.net.gate import ProxyGate
from smtpproxy.net.inbound import InboundSession
from smtpproxy.smtp.proxyheader import Ends, v1_header, v2_header

from .stage import CLIENT, Client, Stage
from .tlsstage import SecureClient, TlsScene, cut_up

BALANCER = CLIENT
FOUR = Ends(("203.0.113.5", 51000), ("198.51.100.1", 25))
SIX = Ends(("2001:db8::5", 51000), ("2001:db8::1", 25))
HEADERS = {
    "v1": v1_header(FOUR),
    "v1, IPv6": v1_header(SIX),
    "v2": v2_header(FOUR),
    "v2, IPv6": v2_header(SIX),
}
_NAMELESS = v2_header(None)[:12] + b"\x21"
NOBODY = {"v1 UNKNOWN": v1_header(None), "v2 LOCAL": v2_header(None)}
GREETING = b"220 mx.example.org ESMTP\r\n"
EHLO = b"EHLO client.example\r\n"
TRUSTED = {"trusted": {"proxy_protocol": ["192.0.2.0/24"]}}
WAIT = 5.0


def settings_for(choice: str, **more: Any) -> dict[str, Any]:
    return {"proxy_protocol": choice, **TRUSTED, **more}


def at_the_gate(stage: Callable[..., Stage], choice: str = "required", **more: Any) -> tuple[Stage, Client]:
    """A connection of the load balancer, which has said nothing."""
    play = stage(listener=settings_for(choice, **more))
    return play, play.client()


def receive(client: Client, *pieces: bytes) -> bytes:
    """Let the proxy receive these pieces; give what is answered at once."""
    for piece in pieces:
        client.transport.protocol.dataReceived(piece)
    return client.transport.take()


def session_of(client: Client) -> InboundSession:
    """The session that has begun behind the gate."""
    session = client.transport.protocol
    assert isinstance(session, InboundSession)
    return session


def test_it_is_a_protocol(stage: Callable[..., Stage]) -> None:
    _, client = at_the_gate(stage)
    assert isinstance(client.session, ProxyGate)
    gate: Any = client.session
    assert verifyObject(IHalfCloseableProtocol, gate)


# --- the header -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["required", "optional"])
@pytest.mark.parametrize("header", HEADERS)
def test_every_split_of_the_header_and_what_is_behind_it(stage: Callable[..., Stage], choice: str, header: str) -> None:
    ends = SIX if "IPv6" in header else FOUR
    stream = HEADERS[header] + EHLO
    for at in range(1, len(stream)):
        play, client = at_the_gate(stage, choice)
        assert play.dialler.legs == []
        assert receive(client, stream[:at], stream[at:]) == b""
        session = session_of(client)
        assert session.address == ends.source[0]
        assert session.vouched is not None
        assert (session.vouched.via, session.vouched.port) == (BALANCER, ends.source[1])
        assert session.vouched.destination == ends.destination
        play.answer(GREETING)
        assert play.asked() == EHLO
        client.vanish()
        session.connectionLost(Failure(ConnectionDone()))
        assert play.context.sessions == 0


def test_one_octet_at_a_time(stage: Callable[..., Stage]) -> None:
    for header in HEADERS.values():
        play, client = at_the_gate(stage, "optional")
        receive(client, *[bytes([octet]) for octet in header + EHLO])
        play.answer(GREETING)
        assert play.asked() == EHLO


@pytest.mark.parametrize("header", HEADERS)
def test_a_hello_behind_the_header(stage: Callable[..., Stage], pki: Any, header: str) -> None:
    """In any pieces: TLS begins with the first octet behind the header."""
    scene = TlsScene(stage, pki)
    ends = SIX if "IPv6" in header else FOUR

    @given(st.lists(st.integers(1, 120), max_size=6))
    @settings(max_examples=25)
    def check(cuts: list[int]) -> None:
        play = scene.stage("implicit", listener=settings_for("required"))
        client = SecureClient(play)
        stream = HEADERS[header] + client.hello()
        for piece in cut_up(stream, cuts):
            client.receive(piece)
        client.handshake()
        play.answer(GREETING)
        assert client.take() == GREETING
        assert session_of_layer(client).address == ends.source[0]

    check()


def session_of_layer(client: SecureClient) -> InboundSession:
    session = client.transport.protocol.protocol
    assert isinstance(session, InboundSession)
    return session


@pytest.mark.parametrize("header", NOBODY)
def test_a_session_of_the_load_balancer_itself(stage: Callable[..., Stage], header: str) -> None:
    """Or of somebody that it cannot name: limits for one client do not count it."""
    play = stage(listener=settings_for("required", limits={"sessions_per_client": 1}))
    for _ in range(3):
        client = play.client()
        receive(client, NOBODY[header])
        session = session_of(client)
        assert (session.address, session.counted, session.vouched) == (BALANCER, "", None)
        play.answer(GREETING)
        assert client.take() == GREETING
    assert play.context.sessions == 3


NOT_NAMED = {**NOBODY, "v2 AF_UNSPEC": _NAMELESS + b"\0\0\0", "v2 AF_UNIX": _NAMELESS + b"\x31\0\xd8" + bytes(216)}


@pytest.mark.parametrize("choice", ["required", "optional"])
@pytest.mark.parametrize("header", NOT_NAMED)
def test_whom_the_load_balancer_does_not_name_may_not_do_what_itself_may(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch, header: str, choice: str
) -> None:
    """As where only those may connect who may relay: the load balancer's address is for those without a header."""
    play, client = at_the_gate(stage, choice)
    monkeypatch.setattr(play.context, "may_connect", lambda address: "" if address == BALANCER else "may not relay")
    assert receive(client, NOT_NAMED[header] + EHLO) == b"554 5.7.1 proxy.example.org May not relay\r\n"
    assert play.journal.refused == [("mx", BALANCER, "may not relay")]
    assert (play.dialler.legs, play.context.sessions) == ([], 0)
    if choice == "optional":
        itself = play.client()
        receive(itself, EHLO)
        assert session_of(itself).address == BALANCER


BAD = {
    "a command": EHLO,
    "another family": b"PROXY TCP4 2001:db8::1 192.0.2.1 1 25\r\n",
    "a long line": b"PROXY TCP4 " + b"1" * 200,
    "an unknown command": HEADERS["v2"][:12] + b"\x2f" + HEADERS["v2"][13:],
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_header_is_refused(stage: Callable[..., Stage], what: str) -> None:
    play, client = at_the_gate(stage)
    told = receive(client, BAD[what])
    assert told.startswith(b"421 4.3.2 proxy.example.org Bad PROXY header: ")
    assert told.count(b"\r\n") == 1
    assert client.transport.half_closed
    assert receive(client, EHLO) == b""
    ((_, address, why),) = play.journal.refused
    assert (address, why[:18]) == (BALANCER, "bad PROXY header: ")
    assert play.dialler.legs == []
    assert play.context.sessions == 0


def test_where_tls_is_expected_a_bad_header_is_not_answered_in_clear(stage: Callable[..., Stage], pki: Any) -> None:
    play = TlsScene(stage, pki).stage("implicit", listener=settings_for("required"))
    client = SecureClient(play)
    client.receive(client.hello())
    assert (client.transport.take(), client.transport.half_closed) == (b"", True)
    assert len(play.journal.refused) == 1


# --- without a header -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"P", b"PROXY TCP4 203.0.113.5", HEADERS["v2"][:20], b"\r\n"])
def test_h9_a_header_that_does_not_come_in_time(stage: Callable[..., Stage], sent: bytes) -> None:
    play, client = at_the_gate(stage)
    if sent:
        receive(client, sent)
    play.pass_time(WAIT - 0.5)
    assert client.transport.take() == b""
    play.pass_time(0.5 + 2 * play.sweep.round)
    assert client.transport.take().startswith(b"421 4.3.2 proxy.example.org No PROXY header in time")
    assert play.journal.refused == [("mx", BALANCER, "no PROXY header in time")]
    play.pass_time(5.0 + 2 * play.sweep.round)
    assert client.transport.ended == "reset"
    assert list(play.sweep) == [play.pool]
    assert play.context.sessions == 0


@pytest.mark.parametrize("sent", [b"", b"P", b"PROX"])
def test_an_optional_header_that_does_not_come_is_not_missed(stage: Callable[..., Stage], sent: bytes) -> None:
    play, client = at_the_gate(stage, "optional")
    if sent:
        receive(client, sent)
    play.pass_time(WAIT - 0.5)
    assert play.dialler.legs == []
    play.pass_time(0.5 + 2 * play.sweep.round)
    play.answer(GREETING)
    assert client.take() == GREETING
    told = receive(client, b"XY\r\n")
    assert told.startswith(b"500 5.5.1 ")
    assert (session_of(client).address, session_of(client).vouched) == (BALANCER, None)


def test_an_optional_header_that_began_has_to_come(stage: Callable[..., Stage]) -> None:
    play, client = at_the_gate(stage, "optional")
    receive(client, b"PROXY TCP4 ")
    play.pass_time(WAIT + 2 * play.sweep.round)
    assert client.transport.take().startswith(b"421 4.3.2 ")


def test_who_speaks_at_once_needs_no_optional_header(stage: Callable[..., Stage]) -> None:
    play, client = at_the_gate(stage, "optional")
    receive(client, EHLO[:1], EHLO[1:])
    play.answer(GREETING)
    assert play.asked() == EHLO
    assert session_of(client).relay.early


# --- who is believed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["198.51.100.7", "2001:db8::7", ""])
def test_h6_others_are_not_believed(stage: Callable[..., Stage], address: str) -> None:
    play = stage(listener=settings_for("required"))
    client = play.client(address)
    assert client.take().startswith(b"421 4.3.2 proxy.example.org Not allowed to connect")
    assert play.journal.refused == [("mx", address, "not allowed to connect")]
    for choice in ("optional", "off"):
        play = stage(listener=settings_for(choice))
        client = play.client(address or "198.51.100.7")
        play.answer(GREETING)
        client.take()
        assert client.send(HEADERS["v1"]).startswith(b"500 5.5.1 ")
        assert session_of(client).address == (address or "198.51.100.7")


def test_h6_trusted_or_not_without_the_setting_a_header_is_a_command(stage: Callable[..., Stage]) -> None:
    play = stage(listener=settings_for("off"))
    client = play.greeted()
    assert client.send(HEADERS["v1"]).startswith(b"500 5.5.1 ")


# --- room -----------------------------------------------------------------------------------------------------------


def test_limits_are_for_the_real_client(stage: Callable[..., Stage]) -> None:
    play = stage(listener=settings_for("required", limits={"sessions_per_client": 1}))
    one, two, three = (play.client() for _ in range(3))
    receive(one, v1_header(FOUR))
    receive(two, v1_header(SIX))
    told = receive(three, v1_header(FOUR) + EHLO)
    assert told.startswith(b"421 4.3.2 proxy.example.org Too many sessions from this client")
    assert play.journal.refused == [("mx", FOUR.source[0], "too many sessions from this client")]
    assert play.context.sessions == 2
    session_of(one).cut_off()
    four = play.client()
    receive(four, v1_header(FOUR))
    assert session_of(four).counted == FOUR.source[0]


def test_limits_of_the_listener_hold_at_the_gate(stage: Callable[..., Stage]) -> None:
    play = stage(listener=settings_for("required", limits={"sessions": 1}))
    play.client()
    assert play.client().take().startswith(b"421 4.3.2 proxy.example.org Too many sessions,")


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("sent", [b"", HEADERS["v1"][:20], NOBODY["v2 LOCAL"]])
def test_a_health_check_leaves_no_trace(stage: Callable[..., Stage], sent: bytes, *, lean: bool) -> None:
    """Twice over: the end of input, and the end of the connection, which a stock transport tells too."""
    play = stage(listener=settings_for("required"))
    client = play.client(lean=lean)
    if sent:
        receive(client, sent)
    protocol = client.transport.protocol
    protocol.readConnectionLost()
    if sent == NOBODY["v2 LOCAL"]:
        play.answer(GREETING)
    assert client.transport.ended == "closed"
    client.transport.protocol.connectionLost(Failure(ConnectionDone()))
    protocol.connectionLost(Failure(ConnectionDone()))
    assert play.context.sessions == 0
    assert play.journal.refused == []
    assert play.journal.tls_failures == []
    assert list(play.sweep) == [play.pool]


def test_a_health_check_where_tls_is_expected(stage: Callable[..., Stage], pki: Any) -> None:
    play = TlsScene(stage, pki).stage("implicit", listener=settings_for("required"))
    client = SecureClient(play)
    client.receive(NOBODY["v2 LOCAL"])
    client.transport.protocol.readConnectionLost()
    assert client.transport.ended == "closed"
    assert (play.journal.refused, play.journal.tls_failures) == ([], [])
    assert play.context.sessions == 0


def test_nobody_gets_through_the_gate_while_going_down(stage: Callable[..., Stage]) -> None:
    play, client = at_the_gate(stage)
    play.context.draining = True
    assert receive(client, HEADERS["v1"] + EHLO).startswith(b"421 4.3.2 proxy.example.org Shutting down")
    assert play.dialler.legs == []
    assert play.context.sessions == 0
