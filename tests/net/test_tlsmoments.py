"""What can go wrong round a TLS handshake with a client: time, failures, going down, faults of our own (H9, H10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smtpproxy.net import clientsession
from smtpproxy.session.relay import Relay

from .stage import AGES, Stage
from .tlspeers import a_client
from .tlsstage import CLOSE_NOTIFY, ENVELOPE, GREETING, OK, SecureClient, TlsScene, in_mail_data, inside

LOWERS = pytest.mark.parametrize("lean", [True, False], ids=["lean", "stock"])
MODES = pytest.mark.parametrize("mode", ["implicit", "starttls"])
LIMIT = 40.0
WAITS = {"command": AGES, "data_block": AGES, "minimum_progress": AGES, "write": AGES, "session": AGES, "close": 6.0}


@pytest.fixture
def scene(stage: Callable[..., Stage], pki: Any) -> TlsScene:
    return TlsScene(stage, pki)


def about_to_begin(play: Stage, mode: str, *, lean: bool = False, tls: Any = None) -> SecureClient:
    """A client whose handshake is the next thing."""
    client = SecureClient(play, lean=lean, tls=tls)
    if mode == "starttls":
        play.answer(GREETING)
        client.take()
        client.ask_for_tls()
    return client


def late(play: Stage, seconds: float = LIMIT) -> None:
    """Let that time pass, and the round by which the sweep may be late."""
    play.pass_time(seconds + 2 * play.sweep.round)


# --- time -----------------------------------------------------------------------------------------------------------


@LOWERS
@MODES
@pytest.mark.parametrize("moment", ["nothing said", "half a hello", "no last flight"])
def test_h9_a_handshake_that_never_ends(scene: TlsScene, mode: str, moment: str, *, lean: bool) -> None:
    play = scene.stage(mode, listener={"timeouts": {**WAITS, "tls_handshake": LIMIT}})
    client = about_to_begin(play, mode, lean=lean)
    flight = b""
    if moment == "half a hello":
        client.receive(client.hello()[:40])
    elif moment == "no last flight":
        client.receive(client.hello())
        flight = client.peer.feed(client.transport.take())
    play.pass_time(LIMIT - 1)
    assert play.journal.sessions == []
    late(play, 1)
    assert client.transport.take() == b"", "there is no way to say why"
    assert client.transport.half_closed
    assert [each.relay.reason for each in play.journal.sessions] == ["TLS handshake timed out"]
    if flight:
        client.receive(flight)
    assert play.journal.secured == [], "too late"
    late(play, 6.0)
    assert client.transport.ended == "reset"
    assert play.context.sessions == 0
    assert len(play.journal.sessions) == 1
    assert play.journal.tls_failures == []
    assert len(play.dialler.legs) == (mode == "starttls")
    assert list(play.sweep) == [play.pool]


def test_h9_a_handshake_that_trickles(scene: TlsScene) -> None:
    """The time is for the whole of it, however the octets come."""
    play = scene.stage("implicit", listener={"timeouts": {**WAITS, "tls_handshake": LIMIT}})
    client = SecureClient(play)
    for octet in client.hello():
        client.receive(bytes([octet]))
        play.pass_time(1.0)
        if play.journal.sessions:
            break
    assert play.reactor.seconds() <= LIMIT + 2 * play.sweep.round
    assert client.session.relay.reason == "TLS handshake timed out"


@MODES
def test_the_time_for_the_handshake_is_no_other_time(scene: TlsScene, mode: str) -> None:
    play = scene.stage(mode, listener={"timeouts": {**WAITS, "tls_handshake": LIMIT, "command": LIMIT * 2}})
    client = about_to_begin(play, mode)
    play.pass_time(LIMIT - 1)
    client.handshake()
    if mode == "implicit":
        play.answer(GREETING)
        assert client.take() == GREETING
    play.pass_time(LIMIT)
    assert client.take() == b"", "the time for a command begins anew"
    late(play)
    assert client.take().startswith(b"421 4.4.2 ")
    assert client.peer.ended == CLOSE_NOTIFY


def test_a_client_that_closes_in_time_lingers_no_longer(scene: TlsScene) -> None:
    play = scene.stage("implicit", listener={"timeouts": {**WAITS, "tls_handshake": LIMIT}})
    client = SecureClient(play)
    client.receive(client.hello())
    late(play)
    client.transport.protocol.readConnectionLost()
    assert client.transport.ended == "closed"
    assert play.journal.tls_failures == []


# --- failures -------------------------------------------------------------------------------------------------------


@LOWERS
@MODES
def test_h5_a_foreign_protocol_gets_an_alert_that_arrives(scene: TlsScene, mode: str, *, lean: bool) -> None:
    """The connection is closed when the client has had time to read it."""
    play = scene.stage(mode)
    client = about_to_begin(play, mode, lean=lean, tls=a_client(alpn=[b"h2"]))
    client.receive(client.hello())
    client.peer.feed(client.transport.take())
    assert "no application protocol" in client.peer.ended
    assert (client.transport.half_closed, client.transport.ended) == (True, "")
    client.receive(b"GET / HTTP/1.1\r\n")
    client.transport.protocol.readConnectionLost()
    assert client.transport.ended == "closed"
    (why,) = play.journal.tls_failures
    assert "h2" in why
    assert [each.relay.reason for each in play.journal.sessions] == [f"TLS handshake failed: {why}"]
    assert play.context.sessions == 0


@MODES
def test_a_handshake_that_the_client_breaks_off(scene: TlsScene, mode: str) -> None:
    play = scene.stage(mode)
    client = about_to_begin(play, mode)
    client.receive(client.hello())
    client.transport.protocol.readConnectionLost()
    assert play.journal.tls_failures == ["connection closed in the handshake"]
    assert client.transport.ended == "closed"
    assert play.context.sessions == 0
    other = about_to_begin(play, mode)
    other.receive(other.hello())
    other.vanish()
    assert play.context.sessions == 0
    assert len(play.journal.sessions) == 2


def test_a_look_whether_the_port_is_open_is_no_failure(scene: TlsScene) -> None:
    play = scene.stage("implicit")
    client = SecureClient(play)
    client.transport.protocol.readConnectionLost()
    assert play.journal.tls_failures == []
    assert client.transport.ended == "closed"
    assert play.context.sessions == 0


# --- a client that does not read ------------------------------------------------------------------------------------


@LOWERS
def test_h9_a_client_that_does_not_read_is_not_read(scene: TlsScene, *, lean: bool) -> None:
    play = scene.stage("implicit")
    client = inside(play, lean=lean)
    client.transport.full = True
    client.receive(client.peer.say(b"HELP\r\n"))
    play.answer(b"214 %s\r\n" % (b"x" * 400))
    assert client.transport.paused
    wire = play.dialler.wires[-1]
    assert wire.paused
    client.transport.drain()
    assert (client.transport.paused, wire.paused) == (False, False)
    assert client.take().startswith(b"214 ")
    client.vanish()


def test_h9_a_server_that_does_not_read_stops_the_client(scene: TlsScene) -> None:
    play = scene.stage("implicit")
    client = in_mail_data(play)
    wire = play.dialler.wires[-1]
    wire.full = True
    client.receive(client.peer.say(b"x" * 20_000))
    assert client.transport.paused
    wire.drain()
    assert not client.transport.paused
    client.vanish()


# --- going down -----------------------------------------------------------------------------------------------------


@LOWERS
@MODES
def test_going_down_in_the_handshake_is_said_inside(scene: TlsScene, mode: str, *, lean: bool) -> None:
    play = scene.stage(mode)
    client = about_to_begin(play, mode, lean=lean)
    client.receive(client.hello())
    client.session.shut_down()
    client.receive(client.peer.feed(client.transport.take()))
    assert client.take().startswith(b"421 4.3.2 proxy.example.org ")
    assert client.peer.ended == CLOSE_NOTIFY
    assert play.context.sessions == 0


@LOWERS
@MODES
def test_going_down_at_once_in_the_handshake_says_nothing(scene: TlsScene, mode: str, *, lean: bool) -> None:
    play = scene.stage(mode)
    client = about_to_begin(play, mode, lean=lean)
    client.receive(client.hello())
    client.session.cut_off()
    client.receive(client.peer.feed(client.transport.take()))
    assert client.take() == b""
    assert play.journal.secured == []
    assert len(play.journal.sessions) == 1
    assert play.context.sessions == 0


@LOWERS
@pytest.mark.parametrize("mode", ["implicit", "starttls"])
def test_going_down_inside(scene: TlsScene, mode: str, *, lean: bool) -> None:
    """At rest at once; a transaction is finished first."""
    play = scene.stage(mode)
    idle = inside(play, mode, lean=lean)
    idle.session.shut_down()
    assert idle.take().startswith(b"421 4.3.2 ")
    assert idle.peer.ended == CLOSE_NOTIFY
    busy = inside(play, mode, lean=lean)
    busy.send(ENVELOPE + b"BDAT 6 LAST\r\n")
    play.answer(OK + OK)
    busy.session.shut_down()
    read = busy.send(b"text\r\n")
    play.answer(b"354 go\r\n")
    play.answer(OK)
    read += busy.take()
    assert [line[:3] for line in read.splitlines()] == [b"250", b"250", b"250", b"421"]
    assert busy.peer.ended == CLOSE_NOTIFY
    assert play.context.sessions == 0


# --- faults of our own ----------------------------------------------------------------------------------------------


def boom(*_arguments: Any, **_options: Any) -> Any:
    raise RuntimeError("sabotage")


@LOWERS
def test_h10_a_fault_inside_tls_is_said_inside(scene: TlsScene, monkeypatch: pytest.MonkeyPatch, *, lean: bool) -> None:
    play = scene.stage("implicit")
    client, other = inside(play, lean=lean), inside(play, lean=lean)
    with monkeypatch.context() as sabotage:
        sabotage.setattr(Relay, "client_received", boom)
        assert client.send(b"NOOP\r\n").startswith(b"421 4.3.0 proxy.example.org ")
    assert client.peer.ended == CLOSE_NOTIFY
    assert len(play.journal.internal) == 1
    play.journal.internal.clear()
    other.send(b"NOOP\r\n")
    play.answer(OK)
    assert other.take() == OK
    other.vanish()
    assert play.context.sessions == 0


@MODES
def test_h10_a_fault_behind_the_handshake_is_said_inside(
    scene: TlsScene, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    play = scene.stage(mode)
    client = about_to_begin(play, mode)
    monkeypatch.setattr(clientsession, "facts_of", boom)
    client.receive(client.hello())
    client.receive(client.peer.feed(client.transport.take()))
    said = client.transport.take()
    assert b"421" not in said
    client.peer.feed(said)
    assert client.peer.take().startswith(b"421 4.3.0 ")
    assert client.peer.ended == CLOSE_NOTIFY
    assert len(play.journal.internal) == 1
    play.journal.internal.clear()
    assert play.context.sessions == 0
    assert [each.relay.reason for each in play.journal.sessions] == ["internal error"]
