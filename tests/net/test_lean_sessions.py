"""Sessions over real sockets with lean transports on both legs; the test is client, server, reactor and clock."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from .fakes import reset
from .street import EHLO_REPLY, ENVELOPE, GREETING, SMALL, End, Street, big_message

Make = Callable[..., Street]


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_big_message_arrives_bit_for_bit_at_a_slow_server(street: Make) -> None:
    message = big_message(3 << 20)
    client, server = street().in_mail_data()
    sent = 0
    while sent < len(message):
        with contextlib.suppress(BlockingIOError):
            sent += client.sock.send(message[sent : sent + 100_000])
        server.look()
        server._reactor.turn()
    client.send_all(b".\r\nQUIT\r\n")
    assert server.message() == message + b".\r\n"
    server.send_all(b"250 taken\r\n")
    assert client.to_the_end().startswith(b"250 taken\r\n221 ")


def test_h9_what_waits_for_a_server_that_does_not_read_is_bounded(street: Make) -> None:
    message = big_message(1 << 20) * 32
    client, server = street().in_mail_data()
    sent = client.send_what_fits(message)
    assert sent < 16 << 20, "the client should long have been stopped"
    assert sent > SMALL
    client.sock.settimeout(0)
    total = 0
    while total < sent:
        total += server.look()
        server._reactor.turn()
    more = client.send_what_fits(message[sent:])
    assert more > 0, "and goes on when the server reads"
    reset(client.sock)


def test_h9_what_waits_for_a_client_that_does_not_read_is_bounded(street: Make) -> None:
    client, server = street().greeted()
    page = b"214-%s\r\n" % (b"x" * 1000) * 60 + b"214 end\r\n"
    answered = 0
    for _ in range(1000):
        client.send_what_fits(b"HELP\r\n")
        if not server.hears(b"HELP", answered + 1):
            break
        answered += 1
        if server.send_what_fits(page) < len(page):
            break
    else:
        raise AssertionError("1000 pages are somewhere in the proxy")
    sent = answered * len(page)
    street_reads = client.read_until(lambda received: len(received) > sent // 2)
    assert street_reads.startswith(b"214-")


# --- S2: early or not -----------------------------------------------------------------------------------------------


def test_s2_talk_before_a_learned_greeting_is_seen(street: Make) -> None:
    """Lazy: the greeting could go at once; one look before it tells."""
    here = street(
        backend={"connect": "lazy"}, listener={"early_pipelining": {"advertise_to": [], "unlicensed": "reject"}}
    )
    first = here.connect()
    server = here.server()
    server.send_all(GREETING)
    first.expect(GREETING)
    first.send_all(b"EHLO client.example\r\n")
    server.expect(b"EHLO client.example\r\n")
    server.send_all(EHLO_REPLY)
    first.expect(b"250 8BITMIME\r\n")
    first.send_all(b"QUIT\r\n")
    first.to_the_end()
    polite = here.connect()
    assert polite.expect(b"\r\n").startswith(b"220 mx.example.org")
    rude = here.connect()
    rude.sock.sendall(b"EHLO spammer\r\n")
    told = rude.to_the_end()
    assert told.startswith(b"554 5.5.0 proxy.example.org ")
    assert told.count(b"\r\n") == 1


# --- H4: behind a refused DATA --------------------------------------------------------------------------------------


def refused_data(here: Street, behind: bytes) -> tuple[End, End]:
    """DATA that the server refuses; ``behind`` comes after the command was passed on, before the refusal is read."""
    client, server = here.greeted()
    client.send_all(ENVELOPE + b"DATA\r\n")
    server.expect(b"DATA\r\n")
    server.sock.sendall(b"250 ok\r\n550 nobody\r\n554 no recipients\r\n")
    if behind:
        client.sock.sendall(behind)
    return client, server


def test_h4_what_was_sent_behind_a_refused_data_is_not_run(street: Make) -> None:
    client, server = refused_data(street(), b"RCPT TO:<victim@example.org>\r\nDATA\r\n")
    read = client.to_the_end()
    assert read.startswith(b"250 ok\r\n550 nobody\r\n")
    assert b"554 5.5.0" in read
    assert b"victim" not in server.expect(b"QUIT\r\n")


def test_h4_what_waits_in_the_kernel_when_the_refusal_comes_is_not_run(street: Make) -> None:
    here = street()
    client, server = here.greeted()
    client.send_all(ENVELOPE + b"DATA\r\n")
    server.expect(b"DATA\r\n")
    (unread,) = [each for each in here.reactor.readers if is_with(each, client)]
    here.reactor.removeReader(unread)
    client.sock.sendall(b"RCPT TO:<victim@example.org>\r\n")
    server.send_all(b"250 ok\r\n550 nobody\r\n554 no recipients\r\n")
    read = client.read_until(lambda received: b"554" in received)
    assert read.startswith(b"250 ok\r\n550 nobody\r\n554 5.5.0 ")
    here.reactor.addReader(unread)
    assert client.to_the_end() == b""
    assert b"victim" not in server.expect(b"QUIT\r\n")


def is_with(descriptor: Any, end: End) -> bool:
    """Whether a descriptor is a connection with that end."""
    return hasattr(descriptor, "getPeer") and descriptor.getPeer().port == end.sock.getsockname()[1]


def test_h4_commands_after_the_refusal_are_commands(street: Make) -> None:
    client, server = refused_data(street(), b"")
    client.expect(b"250 ok\r\n550 nobody\r\n554 no recipients\r\n")
    client.send_all(b"RSET\r\n")
    server.expect(b"RSET\r\n")
    server.send_all(b"250 reset\r\n")
    client.expect(b"250 reset\r\n")


def test_s5_what_is_sent_behind_data_before_the_354_is_not_run(street: Make) -> None:
    client, server = street().greeted()
    client.send_all(ENVELOPE + b"DATA\r\nRCPT TO:<victim@example.org>\r\n")
    server.expect(ENVELOPE)
    server.send_all(b"250 ok\r\n250 ok\r\n")
    read = client.to_the_end()
    assert read.startswith(b"250 ok\r\n250 ok\r\n554 5.5.0 ")
    assert b"victim" not in server.expect(b"QUIT\r\n")


# --- last words -----------------------------------------------------------------------------------------------------


def test_a_last_word_is_not_lost_to_a_reset(street: Make) -> None:
    """The client goes on sending while it is told that it is over."""
    client, server = street(listener={"limits": {"errors": 3}}).greeted()
    client.send_all(b"NONSENSE\r\n" * 2000)
    read = client.to_the_end()
    assert read.splitlines()[-1].startswith(b"421 4.7.0 ")
    assert server.expect(b"QUIT\r\n") == b"QUIT\r\n"


def test_a_refused_client_reads_why_although_it_has_spoken(street: Make) -> None:
    here = street(listener={"limits": {"sessions": 1}})
    here.greeted()
    refused = here.connect()
    refused.sock.sendall(b"EHLO client.example\r\n" * 10)
    assert refused.to_the_end().startswith(b"421 4.3.2 ")


def test_s13_a_client_that_half_closes_behind_quit_reads_everything(street: Make) -> None:
    here = street()
    client = here.connect()
    message = b"Subject: x\r\n\r\ntext\r\n"
    client.sock.sendall(
        b"EHLO client.example\r\n" + ENVELOPE + b"BDAT %d LAST\r\n" % len(message) + message + b"QUIT\r\n"
    )
    client.sock.shutdown(socket.SHUT_WR)
    server = here.server()
    server.send_all(GREETING)
    server.expect(b"EHLO client.example\r\n")
    server.send_all(EHLO_REPLY)
    server.expect(ENVELOPE + b"DATA\r\n")
    server.send_all(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert server.message() == message + b".\r\n"
    server.send_all(b"250 taken\r\n")
    read = client.to_the_end().splitlines()
    assert [line[:3] for line in read if line[3:4] == b" "] == [b"220", b"250", b"250", b"250", b"250", b"221"]


def test_what_a_client_sends_behind_quit_does_not_cost_it_the_last_replies(street: Make) -> None:
    """Closing with unread input would reset the connection: a lost 250 is a message sent twice."""
    here = street()
    client, server = here.in_mail_data()
    client.send_all(b"text\r\n.\r\nQUIT\r\n")
    assert server.message() == b"text\r\n.\r\n"
    (unread,) = [each for each in here.reactor.readers if is_with(each, client)]
    here.reactor.removeReader(unread)
    client.sock.sendall(b"\r\n" * 10)
    server.sock.sendall(b"250 taken\r\n221 bye\r\n")
    here.reactor.until(lambda: here.journal.sessions)
    client.sock.sendall(b"\r\n" * 10)
    here.reactor.addReader(unread)
    here.reactor.settle()
    assert client.to_the_end().startswith(b"250 taken\r\n221 ")


def test_s10_a_client_that_resets_in_mail_data_resets_the_backend(street: Make) -> None:
    here = street()
    client, server = here.in_mail_data()
    client.send_all(b"text\r\n.")
    server.expect(b"text")
    reset(client.sock)
    with pytest.raises(ConnectionResetError):
        server.to_the_end()
    assert server.received == b""


def test_s18_a_421_that_came_in_the_meantime_is_seen_before_a_session_is_lent(street: Make) -> None:
    here = street(backend={"reuse": True})
    first, server = here.greeted()
    first.send_all(b"QUIT\r\n")
    first.to_the_end()
    server.sock.sendall(b"421 4.3.2 bye\r\n")
    second = here.connect()
    other = here.server()
    other.send_all(GREETING)
    second.expect(GREETING)
