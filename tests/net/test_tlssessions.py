"""Clients' sessions inside TLS: bursts, the wall between clear and TLS, ends in the middle (S1, S5, S6, S13, H7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .stage import CLIENT, EHLO_REPLY, Stage
from .tlspeers import a_client
from .tlsstage import (
    CLOSE_NOTIFY,
    EHLO,
    ENVELOPE,
    GREETING,
    OK,
    STARTTLS_REPLY,
    SecureClient,
    TlsScene,
    in_mail_data,
    inside,
    ready_for_tls,
)

LOWERS = pytest.mark.parametrize("lean", [True, False], ids=["lean", "stock"])
CONNECTS = pytest.mark.parametrize("connect", ["eager", "lazy"])
MESSAGE = b"Subject: hello\r\n\r\ntext\r\n"
CHUNK = b"BDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE
SYNCHRONISATION = b"554 5.5.0 Input behind a command that must end a group\r\n"


@pytest.fixture
def scene(stage: Callable[..., Stage], pki: Any) -> TlsScene:
    return TlsScene(stage, pki)


def codes(read: bytes) -> list[bytes]:
    """The code of each reply."""
    return [line[:3] for line in read.splitlines() if line[3:4] == b" "]


def with_finished(client: SecureClient, text: bytes) -> None:
    """Do the handshake; the text is in the packet of its last message."""
    client.receive(client.hello())
    client.receive(client.peer.feed(client.transport.take()) + client.peer.say(text))


# --- early pipelining -----------------------------------------------------------------------------------------------


@LOWERS
def test_s1_s6_a_whole_session_in_the_flight_behind_the_handshake(scene: TlsScene, *, lean: bool) -> None:
    play = scene.stage("implicit")
    client = SecureClient(play, lean=lean)
    with_finished(client, EHLO + ENVELOPE + CHUNK + b"QUIT\r\n")
    assert play.asked() == b"", "S8: nothing before the server's greeting"
    assert client.take() == b""
    for reply in (GREETING, EHLO_REPLY, OK + OK, b"354 go\r\n"):
        play.answer(reply)
    assert play.leg.transport.take() == MESSAGE + b".\r\nQUIT\r\n"
    play.answer(b"250 taken\r\n")
    assert codes(client.take()) == [b"220", b"250", b"250", b"250", b"250", b"221"]
    assert client.peer.ended == CLOSE_NOTIFY
    assert client.transport.ended == "closed"
    assert client.session.relay.early
    assert play.context.sessions == 0


@LOWERS
@CONNECTS
def test_s5_s6_ehlo_and_starttls_in_the_first_flight(scene: TlsScene, connect: str, *, lean: bool) -> None:
    play = scene.stage(backend={"connect": connect})
    client = SecureClient(play, lean=lean)
    assert client.send(EHLO + b"STARTTLS\r\n") == b""
    play.answer(GREETING)
    assert client.take() == b""
    play.answer(EHLO_REPLY)
    read = client.take()
    assert codes(read) == [b"220", b"250", b"220"]
    assert read.endswith(STARTTLS_REPLY)
    with_finished(client, EHLO + ENVELOPE + CHUNK + b"QUIT\r\n")
    assert play.asked() == EHLO, "on the session that is there"
    for reply in (EHLO_REPLY, OK + OK, b"354 go\r\n", b"250 taken\r\n"):
        play.answer(reply)
    read = client.take()
    assert codes(read) == [b"250", b"250", b"250", b"250", b"221"], "there is no second greeting"
    assert b"STARTTLS" not in read
    assert b"250 PIPE_CONNECT" in read
    assert len(play.dialler.legs) == 1
    (transaction,) = play.journal.transactions
    assert transaction.reply == b"250 taken\r\n"


def test_s2_early_talk_inside_tls_that_is_not_licensed(scene: TlsScene) -> None:
    settings = {"early_pipelining": {"advertise_to": [], "unlicensed": "reject"}}
    for connect in ("eager", "lazy"):
        play = scene.stage("implicit", listener=settings, backend={"connect": connect})
        client = SecureClient(play)
        with_finished(client, EHLO)
        assert client.take().startswith(b"554 5.5.0 proxy.example.org ")
        assert client.peer.ended == CLOSE_NOTIFY


@pytest.mark.parametrize(("clear", "tls"), [(["192.0.2.0/24"], []), ([], ["192.0.2.0/24"])])
def test_s1_it_is_offered_separately_in_clear_and_inside(scene: TlsScene, clear: list[str], tls: list[str]) -> None:
    play = scene.stage(listener={"early_pipelining": {"advertise_to": clear, "advertise_to_tls": tls}})
    client = SecureClient(play)
    play.answer(GREETING)
    client.take()
    client.send(EHLO)
    play.answer(EHLO_REPLY)
    assert (b"PIPE_CONNECT" in client.take()) == bool(clear)
    client.ask_for_tls()
    client.handshake()
    client.send(EHLO)
    play.answer(EHLO_REPLY)
    assert (b"PIPE_CONNECT" in client.take()) == bool(tls)


# --- the wall -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "stock"])
@pytest.mark.parametrize("injected", [b"RSET\r\n", b"MAIL FROM:<x@evil.example>\r\n", b"\r\n", b"x"])
def test_s5_what_stands_behind_starttls_in_its_packet_is_not_run(
    scene: TlsScene, injected: bytes, *, lean: bool
) -> None:
    play = scene.stage()
    client = SecureClient(play, lean=lean)
    play.answer(GREETING)
    client.take()
    client.send(EHLO)
    play.answer(EHLO_REPLY)
    client.take()
    assert client.send(b"STARTTLS\r\n" + injected) == SYNCHRONISATION
    assert client.transport.half_closed
    client.receive(client.hello())
    assert client.transport.take() == b"", "no handshake any more"
    assert play.asked() == b"QUIT\r\n"
    assert play.journal.secured == []
    assert client.session.relay.violations == 1


def test_s5_what_comes_behind_starttls_before_its_220_has_left_is_not_run(scene: TlsScene) -> None:
    """The greeting has still to come, and with it the 220."""
    for injected in (b"NOOP\r\n", SecureClient(scene.stage()).hello()):
        play = scene.stage()
        client = SecureClient(play)
        client.send(EHLO + b"STARTTLS\r\n")
        client.send(injected)
        play.answer(GREETING)
        play.answer(EHLO_REPLY)
        read = client.take()
        assert read.endswith(SYNCHRONISATION)
        assert STARTTLS_REPLY not in read
        assert client.transport.half_closed
        assert play.asked() == b"QUIT\r\n"


@LOWERS
def test_s5_clear_text_in_the_segment_of_the_hello_is_no_command(scene: TlsScene, *, lean: bool) -> None:
    play = scene.stage()
    client = ready_for_tls(play, lean=lean)
    client.receive(b"MAIL FROM:<x@evil.example>\r\n" + client.hello())
    assert client.transport.take()[:1] in {b"", b"\x15"}, "an alert at most"
    (why,) = play.journal.tls_failures
    assert why
    assert play.asked() == b"QUIT\r\n"
    assert client.session.relay.reason.startswith("TLS handshake failed: ")
    assert play.context.sessions == 0


@LOWERS
def test_s6_nothing_from_before_the_handshake_counts_inside(scene: TlsScene, *, lean: bool) -> None:
    play = scene.stage()
    client = ready_for_tls(play, lean=lean).handshake()
    assert client.send(b"MAIL FROM:<a@b.example>\r\n") == b"503 5.5.1 Send EHLO first\r\n"
    client.send(b"EHLO other.example\r\n")
    assert play.asked() == b"EHLO other.example\r\n"
    play.answer(EHLO_REPLY)
    client.take()
    assert client.send(b"STARTTLS\r\n") == b"503 5.5.1 TLS is active already\r\n"
    client.send(b"QUIT\r\n")
    assert play.journal.sessions == [client.session], "and yet it is one session"
    assert client.session.relay.command_count == 6


def test_s6_a_server_that_takes_no_second_ehlo_is_left_for_a_fresh_one(scene: TlsScene) -> None:
    play = scene.stage()
    client = ready_for_tls(play).handshake()
    client.send(EHLO)
    play.answer(b"503 Already identified\r\n")
    assert len(play.dialler.legs) == 2
    play.answer(GREETING)
    play.answer(EHLO_REPLY)
    assert codes(client.take()) == [b"250"]
    again = ready_for_tls(play).handshake()
    assert len(play.dialler.legs) == 4, "it is remembered"
    again.vanish()
    client.vanish()


def test_the_server_may_vanish_in_the_handshake(scene: TlsScene) -> None:
    play = scene.stage()
    client = ready_for_tls(play)
    client.receive(client.hello())
    play.server_closes()
    client.receive(client.peer.feed(client.transport.take()))
    client.send(EHLO)
    assert len(play.dialler.legs) == 2
    play.answer(GREETING)
    play.answer(EHLO_REPLY)
    assert codes(client.take()) == [b"250"]
    client.vanish()


def test_auth_is_offered_and_taken_only_inside(scene: TlsScene) -> None:
    play = scene.stage()
    client = SecureClient(play)
    reply = b"250-mx.example.org\r\n250-AUTH=PLAIN\r\n250 AUTH PLAIN LOGIN\r\n"
    play.answer(GREETING)
    client.take()
    client.send(EHLO)
    play.answer(reply)
    assert b"AUTH" not in client.take()
    assert client.send(b"AUTH PLAIN AGEAYg==\r\n").startswith(b"538 5.7.11 ")
    client.ask_for_tls()
    client.handshake()
    client.send(EHLO + b"AUTH PLAIN AGEAYg==\r\n")
    play.answer(reply)
    assert play.leg.transport.take() == b"AUTH PLAIN AGEAYg==\r\n"
    play.answer(b"235 welcome\r\n")
    read = client.take()
    assert b"AUTH PLAIN LOGIN\r\n" in read
    assert b"AUTH=" not in read
    assert read.endswith(b"235 welcome\r\n")
    client.vanish()


# --- ends in the middle ---------------------------------------------------------------------------------------------


@LOWERS
@pytest.mark.parametrize("end", ["farewell", "close", "reset", "broken record"])
@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
def test_h7_s10_an_end_in_the_middle_of_a_message_leaves_none(
    scene: TlsScene, end: str, verb: str, *, lean: bool
) -> None:
    """Nor does the rest of it in clear behind that."""
    play = scene.stage("implicit")
    if verb == "DATA":
        client = in_mail_data(play, lean=lean)
    else:
        client = inside(play, lean=lean)
        client.send(ENVELOPE)
        play.answer(OK + OK)
        client.take()
        client.send(b"BDAT 1000 LAST\r\n")
        play.answer(b"354 go\r\n")
    client.send(b"Subject: half of it\r\n")
    if end == "farewell":
        client.receive(client.peer.bye())
    elif end == "close":
        client.transport.protocol.readConnectionLost()
    elif end == "reset":
        client.vanish()
    else:
        client.receive(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    client.receive(b"\r\n.\r\n")
    client.receive(b"x" * 1000 + b"\r\nQUIT\r\n")
    wire = play.dialler.wires[-1]
    assert wire.ended == "reset"
    assert b"\r\n.\r\n" not in wire.take()
    assert [transaction.reply[:1] for transaction in play.journal.transactions] in ([b""], [b"4"])
    assert play.context.sessions == 0


@LOWERS
def test_s13_h7_a_farewell_behind_the_last_command_costs_no_reply(scene: TlsScene, *, lean: bool) -> None:
    play = scene.stage("implicit")
    client = in_mail_data(play, lean=lean)
    client.receive(client.peer.say(MESSAGE + b".\r\nQUIT\r\n") + client.peer.bye())
    client.receive(b"MAIL FROM:<x@evil.example>\r\n")
    client.transport.protocol.readConnectionLost()
    play.answer(b"250 taken\r\n")
    assert codes(client.take()) == [b"250", b"221"]
    assert client.peer.ended == CLOSE_NOTIFY
    assert client.transport.ended == "closed"
    assert b"evil" not in play.asked()


def test_h4_h7_a_farewell_that_comes_with_a_refused_data_ends_the_session(scene: TlsScene) -> None:
    """It is met by the last look before the refusal is written; nothing more may come of the client for ever."""
    play = scene.stage("implicit")
    client = inside(play, lean=True)
    client.send(ENVELOPE)
    play.answer(OK + OK)
    client.take()
    client.send(b"DATA\r\n")
    client.leave_unread(client.peer.bye())
    play.answer(b"554 no\r\n")
    assert client.take() == b"554 no\r\n"
    play.reactor.advance(0)
    assert play.context.sessions == 0
    assert client.transport.ended == "closed"


def test_h4_what_waits_in_the_kernel_behind_a_refused_data_is_not_run(scene: TlsScene) -> None:
    play = scene.stage("implicit")
    client = inside(play, lean=True)
    client.send(ENVELOPE)
    play.answer(OK + OK)
    client.take()
    client.send(b"DATA\r\n")
    client.leave_unread(client.peer.say(b"RCPT TO:<victim@example.org>\r\n"))
    play.answer(b"554 no\r\n")
    assert client.take().startswith(b"554 5.5.0 ")
    assert b"victim" not in play.asked()


# --- who has been here before -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["implicit", "starttls"])
def test_a_session_is_resumed(scene: TlsScene, mode: str) -> None:
    play = scene.stage(mode)
    context = a_client()
    first = SecureClient(play, tls=context)
    assert_resumed(play, first, mode, resumed=False)
    second = SecureClient(play, tls=context)
    session = first.peer.connection.get_session()
    assert session is not None
    second.peer.connection.set_session(session)
    assert_resumed(play, second, mode, resumed=True)
    assert len(play.journal.secured) == 2


def assert_resumed(play: Stage, client: SecureClient, mode: str, *, resumed: bool) -> None:
    """Let a client come and go."""
    if mode == "starttls":
        play.answer(GREETING)
        client.take()
        client.ask_for_tls()
    client.handshake()
    if mode == "implicit":
        play.answer(GREETING)
    client.send(b"NOOP\r\n")
    play.answer(OK)
    client.take()
    assert client.session.facts.resumed is resumed
    assert client.session.facts.servername == "mx.example.org"
    client.send(b"QUIT\r\n")
    client.take()
    client.receive(client.peer.bye())


def test_limits_count_the_same_inside(scene: TlsScene) -> None:
    """Who expects TLS and is one too many could not read a reply in clear."""
    play = scene.stage("implicit", listener={"limits": {"sessions_per_client": 1}})
    client = SecureClient(play).handshake()
    refused = SecureClient(play)
    assert (refused.transport.take(), refused.transport.half_closed) == (b"", True)
    refused.receive(refused.hello())
    assert refused.transport.take() == b""
    assert play.journal.refused == [("mx", CLIENT, "too many sessions from this client")]
    client.vanish()
    assert play.context.sessions == 0
