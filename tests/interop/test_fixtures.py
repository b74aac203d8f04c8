"""The lab itself, without smtpproxy: that the real programs do what the other tests take for granted."""

from __future__ import annotations

import smtplib

import pytest

from .conftest import MakeExim
from .conversation import codes, conversation
from .lab import wait_for
from .messages import assert_intact, sample
from .opensmtpd import OpenSmtpd
from .postfix import Postfix
from .relay import recording_relay
from .sink import numbered, smtp_sink, smtp_source
from .wire import assert_lockstep

pytestmark = pytest.mark.interop


def test_exim_does_not_pipeline_early_to_a_postfix(postfix_plain: Postfix, make_exim: MakeExim) -> None:
    """The keyword comes from nowhere but smtpproxy."""
    with recording_relay(postfix_plain.port) as relay:
        exim = make_exim(relay.port)
        for _ in range(2):
            message = sample()
            delivery = exim.send(message)
            assert delivery.accepted
            assert not delivery.early
            assert relay.conversations[-1].before_greeting == b""
            assert_intact(postfix_plain.delivered(), message)


def test_exim_half_closes_behind_quit(postfix_plain: Postfix, make_exim: MakeExim) -> None:
    """What a proxy must cope with, and that the relay shows it."""
    with recording_relay(postfix_plain.port, delay=0.05) as relay:
        assert make_exim(relay.port).send(sample()).accepted
    (seen,) = relay.conversations
    assert seen.sent_by("client").endswith(b"QUIT\r\n")
    assert seen.half_closed_by_client
    assert b"221 " in seen.after_client_end()


def test_the_lockstep_postfix_offers_neither_pipelining_nor_chunking(postfix_lockstep: Postfix) -> None:
    """And it ends the session of a client that sends two commands at once."""
    with conversation(postfix_lockstep.port) as polite:
        assert polite.reply().code == 220
        offered = polite.ask(b"EHLO client.lab.test").text.split("\n")
        assert "8BITMIME" in offered
        assert not {"PIPELINING", "CHUNKING"} & set(offered)
    with conversation(postfix_lockstep.port) as rude:
        assert rude.reply().code == 220
        rude.send(b"EHLO client.lab.test", b"MAIL FROM:<>", b"RCPT TO:<a@lab.test>", b"QUIT")
        assert codes(rude.replies()) == [554]


def test_the_recorder_tells_lockstep_from_pipelining(postfix_plain: Postfix, make_exim: MakeExim) -> None:
    """Postfix itself does not mind a command that is pipelined without the offer: the recorder has to."""
    message = sample()
    with recording_relay(postfix_plain.port) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, "client.lab.test", timeout=30) as polite:
            polite.sendmail("sender@lab.test", ["recipient@lab.test"], message.wire)
        make_exim(relay.port, chunking=False).send(message)
        wait_for(lambda: all(seen.closed for seen in relay.conversations), "the end of both conversations")
    assert_lockstep(relay.conversations[0])
    with pytest.raises(AssertionError, match="sent while"):
        assert_lockstep(relay.conversations[1])


def test_the_recorder_shows_what_comes_before_the_greeting(postfix_plain: Postfix) -> None:
    """All that a client sends at once, and nothing of what it sends later."""
    with recording_relay(postfix_plain.port, hold=5.0) as relay, conversation(relay.port) as early:
        early.send(b"EHLO client.lab.test")
        early.send(b"NOOP")
        assert early.reply().code == 220
        early.send(b"QUIT")
        early.replies()
        assert relay.conversations[0].before_greeting == b"EHLO client.lab.test\r\nNOOP\r\n"


def test_opensmtpd_ends_the_session_on_a_pipelined_command(opensmtpd_plain: OpenSmtpd) -> None:
    """The strictest of all backends."""
    with conversation(opensmtpd_plain.port) as rude:
        assert rude.reply().code == 220
        rude.send(b"EHLO client.lab.test", b"MAIL FROM:<>")
        assert codes(rude.replies()) == [500]


@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
def test_messages_survive_without_the_proxy(
    postfix_plain: Postfix, opensmtpd_plain: OpenSmtpd, make_exim: MakeExim, *, chunking: bool
) -> None:
    """So a difference seen through the proxy is the proxy's."""
    for server in (postfix_plain, opensmtpd_plain):
        message = sample(size=200_000)
        delivery = make_exim(server.port, chunking=chunking).send(message)
        assert delivery.accepted
        assert not delivery.deferred
        assert_intact(server.delivered(), message)


def test_every_message_of_smtp_source_has_a_recipient_of_its_own() -> None:
    """That is how lost and doubled messages are found."""
    with smtp_sink() as sink:
        done = smtp_source(sink.port, messages=20, sessions=5)
        assert (done.returncode, done.stderr) == (0, "")
        assert sink.recipients() == numbered(20)
