"""Every wait has its end (RFC 5321, 4.5.3.2; H9), and none ends early."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .stage import AGES, CLIENT, EHLO_REPLY, Client, Stage

Make = Callable[..., Stage]
LIMIT = 40.0
NEARLY = LIMIT - 1.0
CLIENT_WAITS = {
    "command": AGES,
    "data_block": AGES,
    "minimum_progress": AGES,
    "write": AGES,
    "session": AGES,
    "close": 6.0,
}
BACKEND_KINDS = ("connect", "greeting", "ehlo", "mail", "rcpt", "data", "data_block", "end_of_data", "other")
TRANSACTION = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\n"


def for_client(make: Make, **limits: float) -> Stage:
    """A stage where the client's time-outs given are the only ones that matter."""
    return make(listener={"timeouts": CLIENT_WAITS | limits}, backend={"timeouts": dict.fromkeys(BACKEND_KINDS, AGES)})


def for_backend(make: Make, servers: int = 1, **limits: float) -> Stage:
    """A stage where the backend's time-outs given are the only ones that matter."""
    return make(
        listener={"timeouts": CLIENT_WAITS},
        backend={
            "timeouts": dict.fromkeys(BACKEND_KINDS, AGES) | limits,
            "servers": [f"192.0.2.{number}:25" for number in range(1, servers + 1)],
        },
    )


def late(stage: Stage) -> None:
    """Let the rest of the limit pass, and the round by which the sweep may be late."""
    stage.pass_time(1.0 + 2 * stage.sweep.round)


def assert_told_and_closed(stage: Stage, client: Client, code: bytes = b"421 4.4.2 proxy.example.org ") -> None:
    """The client was told, is given time to read it, and then the connection ends."""
    assert client.take().startswith(code)
    assert client.transport.half_closed
    assert not client.transport.ended
    assert len(stage.journal.sessions) == 1
    stage.pass_time(6.0 + 2 * stage.sweep.round)
    assert client.transport.ended == "reset"
    assert stage.context.sessions == 0


def begin_data(stage: Stage, client: Client) -> None:
    """Let the client come to where its mail data begins."""
    client.send(b"DATA\r\n")
    stage.answer(b"354 go\r\n")
    assert client.take() == b"354 go\r\n"


# --- the client -----------------------------------------------------------------------------------------------------


def test_a_client_that_gives_no_command(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, command=LIMIT)
    client = play.ready()
    play.pass_time(NEARLY)
    assert client.take() == b""
    late(play)
    assert_told_and_closed(play, client)
    assert play.leg.transport.take() == b"QUIT\r\n"


def test_every_command_begins_the_time_anew(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, command=LIMIT)
    client = play.ready()
    for _ in range(5):
        play.pass_time(NEARLY)
        client.send(b"NOOP\r\n")
        play.answer(b"250 ok\r\n")
        assert client.take() == b"250 ok\r\n"
    late(play)
    assert client.take() == b""
    play.pass_time(NEARLY)
    assert_told_and_closed(play, client)


def test_a_piece_of_a_command_does_not(stage: Callable[..., Stage]) -> None:
    """The wait is for a complete command: one octet now and then holds nobody's session open."""
    play = for_client(stage, command=LIMIT)
    client = play.ready()
    while not client.transport.written:
        assert play.reactor.seconds() <= LIMIT + 2 * play.sweep.round
        play.pass_time(4.0)
        client.transport.protocol.dataReceived(b"N")
    assert_told_and_closed(play, client)


def test_the_backends_time_is_not_the_clients(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, command=LIMIT)
    client = play.ready()
    client.send(b"VRFY somebody\r\n")
    play.pass_time(5 * LIMIT)
    assert client.take() == b""
    play.answer(b"252 perhaps\r\n")
    assert client.take() == b"252 perhaps\r\n"
    play.pass_time(NEARLY - 2 * play.sweep.round)
    assert client.take() == b""


def test_mail_data_that_stops(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, data_block=LIMIT)
    client = play.ready(lines=TRANSACTION)
    begin_data(play, client)
    client.send(b"some text\r\n")
    play.pass_time(NEARLY)
    client.send(b"more\r\n")
    play.pass_time(NEARLY)
    assert client.take() == b""
    late(play)
    assert play.leg.transport.ended == "reset", "S10: no end of data, and no close that could be taken for one"
    assert b"\r\n.\r\n" not in play.asked()
    assert_told_and_closed(play, client)
    assert [transaction.reply[:3] for transaction in play.journal.transactions] == [b"421"]


def test_a_chunk_that_stops(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, data_block=LIMIT)
    client = play.ready(lines=TRANSACTION)
    client.send(b"BDAT 1000 LAST\r\nsome text\r\n")
    play.answer(b"354 go\r\n")
    play.pass_time(NEARLY)
    assert client.take() == b""
    late(play)
    assert play.leg.transport.ended == "reset"
    assert_told_and_closed(play, client)


def test_h9_mail_data_that_trickles(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, minimum_progress=LIMIT)
    client = play.ready(lines=TRANSACTION)
    begin_data(play, client)
    for _ in range(200):
        play.pass_time(1.0)
        client.transport.protocol.dataReceived(b"x")
        if client.transport.written:
            break
    assert play.reactor.seconds() >= LIMIT
    assert play.leg.transport.ended == "reset"
    assert_told_and_closed(play, client)


def test_h9_slow_but_legal(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, minimum_progress=LIMIT)
    client = play.ready(lines=TRANSACTION)
    begin_data(play, client)
    for _ in range(300):
        play.pass_time(1.0)
        client.transport.protocol.dataReceived(b"x" * 200)
    assert client.take() == b""
    client.send(b"\r\n.\r\n")
    play.answer(b"250 taken\r\n")
    assert client.take() == b"250 taken\r\n"


def test_h9_time_before_the_mail_data_does_not_count_against_it(stage: Callable[..., Stage]) -> None:
    """Somebody who types by hand: a long pause, then DATA, then a line a few seconds later."""
    play = for_client(stage, minimum_progress=LIMIT)
    client = play.ready(lines=TRANSACTION)
    play.pass_time(3 * LIMIT)
    begin_data(play, client)
    client.send(b"Subject: by hand\r\n")
    play.pass_time(LIMIT / 2)
    assert client.take() == b"", "the line came a moment ago"
    client.send(b"\r\n.\r\n")
    play.answer(b"250 taken\r\n")
    assert client.take() == b"250 taken\r\n"


def test_h9_the_backends_slowness_does_not_count_against_mail_data(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, minimum_progress=LIMIT, data_block=LIMIT)
    client = play.ready(lines=TRANSACTION)
    begin_data(play, client)
    play.leg.transport.full = True
    client.send(b"text\r\n")
    assert client.transport.paused
    play.pass_time(3 * LIMIT)
    play.leg.transport.drain()
    assert not client.transport.paused
    play.pass_time(LIMIT / 2)
    client.send(b".\r\n")
    play.answer(b"250 taken\r\n")
    assert client.take() == b"250 taken\r\n"


def test_h9_a_minimum_of_nothing_turns_it_off(stage: Callable[..., Stage]) -> None:
    play = stage(
        listener={"timeouts": CLIENT_WAITS | {"minimum_progress": LIMIT}, "limits": {"minimum_progress": 0}},
        backend={"timeouts": dict.fromkeys(BACKEND_KINDS, AGES)},
    )
    client = play.ready(lines=TRANSACTION)
    begin_data(play, client)
    play.pass_time(5 * LIMIT)
    assert client.take() == b""


def test_h9_a_client_that_does_not_read(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, write=LIMIT)
    client = play.ready()
    client.transport.full = True
    client.send(b"HELP\r\n")
    play.answer(b"214 much\r\n")
    assert client.take() == b"214 much\r\n"
    assert client.transport.paused, "no more commands of one who does not take the replies"
    assert play.leg.transport.paused, "and no more replies of the backend"
    play.pass_time(NEARLY)
    assert client.take() == b""
    late(play)
    assert client.take().startswith(b"421 4.4.2 ")
    play.pass_time(6.0 + 2 * play.sweep.round)
    assert client.transport.ended == "reset"
    assert len(play.journal.sessions) == 1


def test_h9_a_client_that_reads_again_in_time(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, write=LIMIT)
    client = play.ready()
    for _ in range(3):
        client.transport.full = True
        client.send(b"HELP\r\n")
        play.answer(b"214 much\r\n")
        play.pass_time(NEARLY)
        client.transport.drain()
        assert not client.transport.paused
        assert not play.leg.transport.paused
        assert client.take() == b"214 much\r\n"


def test_a_whole_session(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, session=LIMIT)
    client = play.ready()
    while play.reactor.seconds() < NEARLY:
        client.send(b"NOOP\r\n")
        play.answer(b"250 ok\r\n")
        assert client.take() == b"250 ok\r\n"
        play.pass_time(2.0)
    late(play)
    assert_told_and_closed(play, client)


def test_a_session_may_be_unlimited(stage: Callable[..., Stage]) -> None:
    play = stage(
        listener={"timeouts": CLIENT_WAITS | {"session": None}},
        backend={"timeouts": dict.fromkeys(BACKEND_KINDS, AGES)},
    )
    client = play.ready()
    play.reactor.advance(AGES * 0.9)
    play.pass_time(20.0)
    assert client.take() == b""


# --- the backend ----------------------------------------------------------------------------------------------------

STEPS: list[tuple[str, bytes, bytes]] = [
    ("greeting", b"", b"220 mx.example.org ESMTP\r\n"),
    ("ehlo", b"EHLO client.example\r\n", EHLO_REPLY),
    ("other", b"NOOP\r\n", b"250 ok\r\n"),
    ("mail", b"MAIL FROM:<a@b.example>\r\n", b"250 ok\r\n"),
    ("rcpt", b"RCPT TO:<c@example.org>\r\n", b"250 ok\r\n"),
    ("data", b"DATA\r\n", b"354 go\r\n"),
    ("end_of_data", b"text\r\n.\r\n", b"250 taken\r\n"),
]


@pytest.mark.parametrize("kind", [kind for kind, _, _ in STEPS])
def test_a_backend_that_does_not_answer(stage: Callable[..., Stage], kind: str) -> None:
    play = for_backend(stage, **{kind: LIMIT})
    client = play.client()
    for step, line, reply in STEPS:
        if line:
            client.send(line)
        if step == kind:
            break
        play.pass_time(NEARLY)
        play.answer(reply)
        client.take()
    play.asked()
    play.pass_time(NEARLY)
    assert client.take() == b""
    assert not play.leg.transport.ended
    late(play)
    assert play.leg.transport.ended
    assert play.asked() == b"", "S8, S10: it is told nothing more"
    assert_told_and_closed(play, client, b"421 4.")
    if kind == "greeting":
        assert [failure[:2] for failure in play.journal.failures] == [("legacy", "192.0.2.1:25"), ("legacy", "")]


def test_a_backend_that_does_not_answer_bdat_as_data(stage: Callable[..., Stage]) -> None:
    play = for_backend(stage, end_of_data=LIMIT)
    client = play.ready(lines=TRANSACTION)
    client.send(b"BDAT 6 LAST\r\ntext\r\n")
    play.answer(b"354 go\r\n")
    assert play.asked() == b"text\r\n.\r\n"
    play.pass_time(NEARLY)
    assert client.take() == b""
    late(play)
    assert play.leg.transport.ended
    assert client.take()[:1] == b"4"


def test_a_backend_that_does_not_read(stage: Callable[..., Stage]) -> None:
    play = for_backend(stage, data_block=LIMIT)
    client = play.ready(lines=TRANSACTION)
    begin_data(play, client)
    play.leg.transport.full = True
    client.send(b"text\r\n")
    assert client.transport.paused
    play.pass_time(NEARLY)
    assert not play.leg.transport.ended
    late(play)
    assert play.leg.transport.ended == "reset", "or what is queued would keep the connection for ever"
    assert not client.transport.paused, "the rest of the message is read and thrown away"
    assert client.send(b"the rest\r\n") == b""
    assert client.send(b".\r\n").startswith(b"451 4.4.2 ")


def test_s19_a_backend_that_does_not_greet_is_left_for_the_next(stage: Callable[..., Stage]) -> None:
    play = for_backend(stage, servers=2, greeting=LIMIT)
    client = play.client()
    first = play.leg
    play.pass_time(NEARLY)
    assert play.leg is first
    late(play)
    assert play.leg is not first
    assert first.transport.ended
    assert play.leg.server.name == "192.0.2.2:25"
    play.answer(b"220 second\r\n")
    assert client.take() == b"220 second\r\n"
    assert [failure[:2] for failure in play.journal.failures] == [("legacy", "192.0.2.1:25")]


def test_s19_a_connection_that_does_not_come_about_is_left_for_the_next(stage: Callable[..., Stage]) -> None:
    play = for_backend(stage, servers=2, connect=LIMIT)
    play.dialler.slow = True
    client = play.client()
    first = play.leg
    play.pass_time(NEARLY)
    assert play.leg is first
    late(play)
    assert play.leg is not first
    play.dialler.connect(play.leg)
    play.answer(b"220 second\r\n")
    assert client.take() == b"220 second\r\n"


def test_s19_the_time_to_connect_is_not_the_time_to_greet(stage: Callable[..., Stage]) -> None:
    play = for_backend(stage, connect=LIMIT)
    client = play.client()
    play.pass_time(5 * LIMIT)
    assert client.take() == b""
    play.answer(b"220 at last\r\n")
    assert client.take() == b"220 at last\r\n"


def test_two_clients_wait_each_for_itself(stage: Callable[..., Stage]) -> None:
    play = for_client(stage, command=LIMIT)
    early = play.ready()
    play.pass_time(LIMIT / 2)
    other = play.ready(CLIENT)
    play.pass_time(LIMIT / 2 + 2 * play.sweep.round)
    assert early.take().startswith(b"421 ")
    assert other.take() == b""
    assert play.context.sessions == 1
