"""A client's session between two connections: failover, back-pressure, ends of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from smtpproxy.session.relay import Relay

from .stage import CLIENT, EHLO_REPLY, Client, Stage

Make = Callable[..., Stage]
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\n"
BURST = b"EHLO client.example\r\n" + ENVELOPE
MESSAGE = b"Subject: hello\r\n\r\ntext\r\n"
CHUNK = b"BDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE
TWO_SERVERS = {"servers": ["192.0.2.1:25", "192.0.2.2:25"]}
GREETING = b"220 mx.example.org ESMTP\r\n"
OK = b"250 ok\r\n"


def assert_over(stage: Stage) -> None:
    """Nothing of any session is left anywhere."""
    assert stage.context.sessions == 0
    stage.pass_time(60.0)
    assert [swept for swept in stage.sweep if swept is not stage.pool] == []


def play_burst(stage: Stage, client: Client) -> bytes:
    """Let the backend answer an early burst of one message by BDAT and QUIT; give all that the client reads."""
    for reply in (GREETING, EHLO_REPLY, OK + OK, b"354 go\r\n", b"250 taken\r\n"):
        stage.answer(reply)
    return client.take()


# --- in order, in few writes ----------------------------------------------------------------------------------------


def test_s3_s4_an_early_burst_is_answered_in_order_and_in_few_writes(stage: Make) -> None:
    play = stage()
    client = play.client()
    assert client.send(BURST + CHUNK + b"QUIT\r\n") == b""
    assert play.asked() == b"", "S8: nothing before the greeting"
    read = play_burst(play, client)
    codes = [line[:3] for line in read.splitlines() if line[3:4] == b" "]
    assert codes == [b"220", b"250", b"250", b"250", b"250", b"221"]
    assert client.transport.writes <= 2
    assert client.transport.ended == "closed"
    assert not client.transport.half_closed
    (transaction,) = play.journal.transactions
    assert (transaction.accepted, transaction.reply) == (1, b"250 taken\r\n")
    assert play.journal.sessions == [client.session]
    assert client.session.relay.early
    assert_over(play)


def test_s4_what_is_answered_does_not_wait_for_ever_for_its_group(stage: Make) -> None:
    play = stage()
    client = play.greeted()
    client.send(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\n")
    play.answer(EHLO_REPLY)
    assert client.take() == b""
    play.pass_time(play.sweep.round)
    assert client.take().startswith(b"250-mx.example.org\r\n")
    play.answer(OK)
    assert client.take() == OK
    client.send(b"QUIT\r\n")


@pytest.mark.parametrize("line", [b"BDAT 6 LAST", b"BDAT 6\tLAST", b"BDAT  6  last", b"bdat 006 LAST", b"BDAT 6 LAST "])
def test_s9_s14_the_backend_gets_a_bdat_that_cannot_be_read_otherwise(stage: Make, line: bytes) -> None:
    """One that refuses the line, or reads another number in it, would run the message as commands."""
    play = stage()
    client = play.greeted()
    client.send(b"EHLO client.example\r\n")
    play.answer(b"250-mx.example.org\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    client.send(ENVELOPE)
    play.answer(OK + OK)
    client.take()
    client.send(line + b"\r\ntext\r\n")
    assert play.asked() == b"BDAT 6 LAST\r\ntext\r\n"
    play.answer(b"250 taken\r\n")
    assert client.take() == b"250 taken\r\n"
    client.send(b"QUIT\r\n")


def test_s7_a_server_without_a_name_gets_ours(stage: Make) -> None:
    play = stage()
    client = play.greeted()
    client.send(b"EHLO client.example\r\n")
    play.answer(b"250-\r\n250 SIZE\r\n")
    assert client.take().startswith(b"250-proxy.example.org\r\n")


# --- failover -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [b"421 4.3.2 busy\r\n", b"SSH-2.0-OpenSSH\r\n", b"354 what?\r\n", b"220-no\r\n250 end\r\n"]
)
def test_s19_a_server_that_cannot_serve_is_left_for_the_next(stage: Make, fault: bytes) -> None:
    play = stage(backend=TWO_SERVERS)
    client = play.client()
    client.send(BURST)
    first = play.leg
    play.answer(fault)
    assert first.transport.ended
    assert play.leg.server.name == "192.0.2.2:25"
    assert client.take() == b""
    play.answer(GREETING)
    play.answer(EHLO_REPLY)
    assert play.asked() == ENVELOPE
    ((name, server, why),) = play.journal.failures
    assert (name, server) == ("legacy", "192.0.2.1:25")
    assert why
    third = play.client(CLIENT)
    assert play.leg.server.name == "192.0.2.2:25", "the first one rests"
    third.vanish()
    client.vanish()


@pytest.mark.parametrize("end", ["closes", "is lost"])
def test_s19_a_server_that_vanishes_before_its_greeting(stage: Make, end: str) -> None:
    play = stage(backend=TWO_SERVERS)
    client = play.client()
    if end == "closes":
        play.leg.readConnectionLost()
    else:
        play.leg.connectionLost(Failure(ConnectionLost("refused")))
    assert play.leg.server.name == "192.0.2.2:25"
    play.answer(GREETING)
    assert client.take() == GREETING
    client.send(b"QUIT\r\n")
    assert client.transport.ended == "closed"


def test_s19_a_refusal_is_about_this_client_and_goes_to_it(stage: Make) -> None:
    play = stage(backend=TWO_SERVERS)
    client = play.client()
    play.answer(b"554 5.7.1 not you\r\n")
    assert client.take() == b"554 5.7.1 not you\r\n"
    assert play.journal.failures == []
    assert len(play.dialler.legs) == 1
    assert play.client(CLIENT).session.server.name == "192.0.2.1:25"


def test_s19_when_no_server_is_left_the_client_gets_421(stage: Make) -> None:
    play = stage(backend=TWO_SERVERS)
    client = play.client()
    client.send(BURST)
    play.answer(b"421 busy\r\n")
    play.answer(b"421 busy too\r\n")
    read = client.take()
    assert read.startswith(b"421 4.3.2 proxy.example.org ")
    assert read.count(b"\r\n") == 1
    assert client.transport.half_closed
    assert [server for _, server, _ in play.journal.failures] == ["192.0.2.1:25", "192.0.2.2:25", ""]
    client.half_close()
    assert client.transport.ended == "closed"
    assert_over(play)


def test_s19_servers_that_refuse_at_once(stage: Make) -> None:
    play = stage(backend=TWO_SERVERS)
    play.dialler.down = {"192.0.2.1:25"}
    client = play.client()
    play.answer(GREETING)
    assert client.take() == GREETING
    assert client.session.server.name == "192.0.2.2:25"
    play.dialler.down.add("192.0.2.2:25")
    other = play.client()
    assert other.take().startswith(b"421 4.3.2 ")


def test_h10_without_descriptors_the_client_gets_421(stage: Make) -> None:
    play = stage()
    play.dialler.exhausted = True
    assert play.client().take().startswith(b"421 4.3.2 ")
    play.dialler.exhausted = False
    assert play.greeted().take() == b""


def test_s19_a_backend_that_fails_later_is_not_replaced(stage: Make) -> None:
    play = stage(backend=TWO_SERVERS)
    client = play.ready(lines=ENVELOPE)
    play.server_closes()
    assert client.take().startswith(b"421 4.4.2 ")
    assert len(play.dialler.legs) == 1
    assert_over(play)


# --- half-close -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before the greeting", "in the middle", "at the end"])
def test_s13_everything_that_a_client_sent_before_it_half_closed_is_answered(stage: Make, moment: str) -> None:
    play = stage()
    client = play.client()
    client.send(BURST + CHUNK + b"QUIT\r\n")
    replies = [GREETING, EHLO_REPLY, OK + OK, b"354 go\r\n", b"250 taken\r\n"]
    before = {"before the greeting": 0, "in the middle": 3, "at the end": 4}[moment]
    for number, reply in enumerate(replies):
        if number == before:
            client.transport.protocol.readConnectionLost()
        play.answer(reply)
    taken, bye = client.take().splitlines()[-2:]
    assert taken == b"250 taken"
    assert bye.startswith(b"221 ")
    assert client.transport.ended == "closed"
    assert_over(play)


def test_s13_a_half_close_without_quit_is_the_end_between_transactions(stage: Make) -> None:
    play = stage()
    client = play.ready()
    client.send(b"NOOP\r\n")
    assert client.half_close() == b""
    play.answer(OK)
    assert client.take() == OK
    assert client.transport.ended == "closed"
    assert play.asked() == b"QUIT\r\n"
    assert_over(play)


def test_s10_a_half_close_in_the_middle_of_mail_data_leaves_no_message(stage: Make) -> None:
    play = stage()
    client = play.ready(lines=ENVELOPE)
    client.send(b"DATA\r\n")
    play.answer(b"354 go\r\n")
    client.send(b"half a mess")
    client.half_close()
    assert play.leg.transport.ended == "reset"
    assert b".\r\n" not in play.asked()
    assert_over(play)


# --- back-pressure --------------------------------------------------------------------------------------------------


def test_h9_a_backend_that_does_not_read_pauses_the_client(stage: Make) -> None:
    play = stage()
    client = play.ready(lines=ENVELOPE)
    client.send(b"DATA\r\n")
    play.answer(b"354 go\r\n")
    play.leg.transport.full = True
    client.send(b"x" * 1000)
    assert client.transport.paused
    play.leg.transport.drain()
    assert not client.transport.paused


def test_h9_the_client_is_read_again_only_when_no_reason_is_left(stage: Make) -> None:
    play = stage()
    client = play.ready(lines=ENVELOPE)
    client.transport.full = True
    client.send(b"DATA\r\n")
    play.answer(b"354 go\r\n")
    assert client.transport.paused
    play.leg.transport.full = True
    client.send(b"x" * 1000)
    client.transport.drain()
    assert client.transport.paused, "the backend is still full"
    play.leg.transport.drain()
    assert not client.transport.paused


def test_h9_a_backend_that_is_dialled_while_the_client_is_full_is_not_read(stage: Make) -> None:
    play = stage(backend={"connect": "lazy"})
    play.ready().send(b"QUIT\r\n")
    client = play.client()
    client.transport.full = True
    client.send(b"EHLO client.example\r\n" * 200 + b"MAIL FROM:<a@b.example>\r\n")
    assert client.transport.paused
    assert len(play.dialler.legs) == 2
    assert play.leg.transport.paused
    client.transport.drain()
    assert not client.transport.paused
    assert not play.leg.transport.paused
    client.vanish()


def test_h9_a_burst_is_bounded_in_octets(stage: Make) -> None:
    play = stage(listener={"limits": {"burst_octets": 16384}})
    client = play.greeted()
    client.send(b"EHLO client.example\r\n" + b"NOOP %s\r\n" % (b"x" * 1000) * 30)
    assert client.transport.paused
    play.answer(EHLO_REPLY)
    for _ in range(30):
        play.answer(OK)
    assert client.take().count(OK) == 30
    assert not client.transport.paused
    client.send(b"QUIT\r\n")


def test_h9_a_burst_is_bounded_in_commands(stage: Make) -> None:
    play = stage(listener={"limits": {"burst_commands": 10}})
    client = play.ready()
    client.send(b"RSET\r\n" * 50)
    assert client.transport.paused
    answered = 0
    while asked := play.asked():
        assert asked.count(b"RSET") <= 10
        play.answer(OK * asked.count(b"RSET"))
        answered += client.take().count(OK)
    assert answered == 50
    assert not client.transport.paused


def test_h9_a_burst_beyond_the_bound_that_ends_in_a_chunk(stage: Make) -> None:
    play = stage(listener={"limits": {"burst_octets": 16384}})
    client = play.client()
    client.send(BURST + b"BDAT 60000 LAST\r\n" + b"x" * 20000)
    assert client.transport.paused
    play.answer(GREETING)
    play.answer(EHLO_REPLY)
    play.answer(OK + OK)
    play.answer(b"354 go\r\n")
    assert not client.transport.paused
    client.send(b"x" * 40000)
    assert play.asked() == b"x" * 60000 + b"\r\n.\r\n"
    play.answer(b"250 taken\r\n")
    assert client.take().endswith(b"250 taken\r\n")


# --- clients that vanish --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["greeting", "ready", "transaction", "data", "chunk", "held", "full"])
def test_s10_a_client_that_vanishes(stage: Make, where: str) -> None:
    play = stage()
    client = play.client() if where == "greeting" else play.ready(lines=b"" if where == "ready" else ENVELOPE)
    if where == "data":
        client.send(b"DATA\r\n")
        play.answer(b"354 go\r\n")
        client.send(b"text\r\n.\r")
    elif where == "chunk":
        client.send(b"BDAT 100 LAST\r\ntext")
        play.answer(b"354 go\r\n")
    elif where == "held":
        client.send(b"RSET\r\nNOOP\r\n")
        play.answer(OK)
    elif where == "full":
        client.transport.full = True
        client.send(b"HELP\r\n")
        play.answer(b"214 help\r\n")
    play.asked()
    client.vanish()
    assert play.leg.transport.ended or play.asked() == b"QUIT\r\n"
    if where in ("data", "chunk"):
        assert play.leg.transport.ended == "reset"
        assert play.asked() == b""
    assert len(play.journal.sessions) == 1
    assert len(play.journal.transactions) == (where not in ("greeting", "ready"))
    assert_over(play)


def test_a_client_that_vanishes_while_the_backend_is_dialled(stage: Make) -> None:
    play = stage()
    play.dialler.slow = True
    client = play.client()
    client.send(BURST)
    client.vanish()
    play.dialler.connect(play.leg)
    play.leg.dataReceived(GREETING)
    assert client.take() == b""
    assert_over(play)


# --- going down -----------------------------------------------------------------------------------------------------


def test_an_idle_session_is_told_at_once(stage: Make) -> None:
    play = stage()
    client = play.ready()
    client.session.shut_down()
    assert client.take().startswith(b"421 4.3.2 proxy.example.org ")
    assert play.asked() == b"QUIT\r\n"
    assert_over(play)


def test_a_transaction_is_finished_before(stage: Make) -> None:
    play = stage()
    client = play.ready(lines=ENVELOPE)
    client.session.shut_down()
    assert client.send(b"DATA\r\n") == b""
    play.answer(b"354 go\r\n")
    assert client.take() == b"354 go\r\n"
    client.send(b"text\r\n.\r\n")
    play.answer(b"250 taken\r\n")
    read = client.take()
    assert read.startswith(b"250 taken\r\n421 4.3.2 ")
    assert client.transport.half_closed
    assert_over(play)


def test_s15_what_cannot_be_waited_for_is_given_up(stage: Make) -> None:
    play = stage()
    client = play.ready(lines=ENVELOPE)
    client.send(b"DATA\r\n")
    play.answer(b"354 go\r\n")
    client.take()
    client.send(b"text\r\n")
    client.session.cut_off()
    assert client.take().startswith(b"421 4.3.2 ")
    assert play.leg.transport.ended == "reset"
    assert_over(play)


# --- H10: our own faults --------------------------------------------------------------------------------------------


def fail(*_arguments: Any) -> None:
    raise RuntimeError("a bug")


FAULTS: dict[str, Callable[[Stage, Client], object]] = {
    "client_received": lambda _, client: client.transport.protocol.dataReceived(b"NOOP\r\n"),
    "backend_received": lambda stage, _: stage.leg.dataReceived(OK),
    "backend_lost": lambda stage, _: stage.leg.readConnectionLost(),
    "client_eof": lambda _, client: client.transport.protocol.readConnectionLost(),
    "client_lost": lambda _, client: client.vanish(),
    "shut_down": lambda _, client: client.session.shut_down(),
    "client_timed_out": lambda stage, _: stage.pass_time(400.0),
}


@pytest.mark.parametrize("event", FAULTS)
def test_h10_an_exception_ends_one_session_with_421(stage: Make, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    play = stage()
    other = play.ready("192.0.2.77")
    client = play.ready(lines=ENVELOPE)
    with monkeypatch.context() as patched:
        patched.setattr(Relay, event, fail)
        if event == "client_timed_out":
            play.sweep.discard(other.session, other.session.number)
        FAULTS[event](play, client)
    assert play.journal.internal
    assert "a bug" in play.journal.internal[0]
    play.journal.internal.clear()
    if event != "client_lost":
        assert client.take().startswith(b"421 4.3.0 proxy.example.org ")
    assert play.context.sessions == 1
    assert play.leg.transport.ended or play.leg.transport.written.endswith(b"QUIT\r\n")
    assert len(play.journal.sessions) == 1
    other.send(b"QUIT\r\n")
    assert_over(play)


def test_h10_an_exception_where_replies_are_held(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    play = stage()
    client = play.ready()
    client.send(b"RSET\r\nNOOP\r\n")
    play.answer(OK)
    take_replies = Relay.take_replies

    def fail_once(relay: Relay, *, hold: bool = True) -> bytes:
        if not hold and not play.journal.internal:
            raise RuntimeError("a bug")
        return take_replies(relay, hold=hold)

    with monkeypatch.context() as patched:
        patched.setattr(Relay, "take_replies", fail_once)
        play.pass_time(play.sweep.round)
    assert len(play.journal.internal) == 1
    play.journal.internal.clear()
    assert client.take().splitlines()[-1].startswith(b"421 4.3.0 ")
    assert_over(play)


def test_h10_an_exception_as_soon_as_a_client_comes(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    play = stage()
    with monkeypatch.context() as patched:
        patched.setattr(Relay, "start", fail)
        client = play.client()
    assert len(play.journal.internal) == 1
    play.journal.internal.clear()
    assert client.take().startswith(b"421 4.3.0 ")
    assert_over(play)


def test_h10_an_exception_upon_an_exception(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    play = stage()
    client = play.ready(lines=ENVELOPE)
    with monkeypatch.context() as patched:
        patched.setattr(Relay, "client_received", fail)
        patched.setattr(Relay, "internal_error", fail)
        client.transport.protocol.dataReceived(b"NOOP\r\n")
    assert len(play.journal.internal) == 2
    play.journal.internal.clear()
    assert client.transport.ended == "reset"
    assert play.leg.transport.ended == "reset"
    assert_over(play)
