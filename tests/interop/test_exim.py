"""Exim 4.96, the deployed client that pipelines early, through smtpproxy to servers that have never heard
of it.
"""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Backend, MakeExim, Serve
from .exim import Delivery, Exim
from .lab import wait_for
from .messages import assert_intact, sample
from .opensmtpd import OpenSmtpd
from .postfix import Postfix
from .proxy import proxy
from .relay import Conversation, recording_relay
from .wire import assert_lockstep

pytestmark = pytest.mark.interop

by_chunking = pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])


def assert_delivered(delivery: Delivery, exim: Exim) -> None:
    """Everything accepted at the first try, nothing left in the queue."""
    assert delivery.accepted, delivery.log
    assert not delivery.deferred, delivery.log
    assert not delivery.refused, delivery.log
    assert exim.queue() == []


def assert_envelope_before_greeting(seen: Conversation, *, chunking: bool) -> None:
    """The whole envelope, and the command that asks for the message, left before the server had said
    anything.
    """
    verbs = [line.split(b" ")[0] for line in seen.before_greeting.split(b"\r\n")]
    assert verbs[:4] == [b"EHLO", b"MAIL", b"RCPT", b"BDAT" if chunking else b"DATA"], seen.before_greeting[:500]


@by_chunking
def test_the_second_message_leaves_before_the_greeting(
    backend: Backend, connect_mode: dict[str, Any], make_exim: MakeExim, serve: Serve, *, chunking: bool
) -> None:
    """S1 to S4, S8, S9: learned on the first delivery, used on the second and third; each message arrives
    once, unharmed.
    """
    front = serve(backend.port, backend=connect_mode)
    with recording_relay(front.port) as relay:
        exim = make_exim(relay.port, chunking=chunking)
        messages = [sample() for _ in range(3)]

        first = exim.send(messages[0])
        assert_delivered(first, exim)
        assert not first.early
        assert "PIPECONNECT usable in future for this IP" in first.debug
        assert relay.conversations[-1].before_greeting == b""

        relay.hold = 5.0
        for message in messages[1:]:
            delivery = exim.send(message)
            assert_delivered(delivery, exim)
            assert delivery.early, delivery.log
            assert "Using cached cleartext PIPECONNECT" in delivery.debug
            assert_envelope_before_greeting(relay.conversations[-1], chunking=chunking)
            assert (" K " in delivery.accepted[0]) is chunking

    stored = backend.delivered()
    for message in messages:
        assert_intact(stored, message)

    def sessions() -> list[dict[str, Any]]:
        return [event for event in front.events("session") if event.get("ehlo") == exim.name]

    wait_for(lambda: len(sessions()) >= len(messages), "a log line for each session")
    assert [event["accepted"] for event in sessions()] == [1, 1, 1]
    assert sessions()[0]["early"] is False


@by_chunking
def test_quit_and_half_close_get_their_replies(
    backend: Backend, make_exim: MakeExim, serve: Serve, *, chunking: bool
) -> None:
    """S13: on a line long enough for the half-close to overtake the replies, polite and early."""
    front = serve(backend.port)
    with recording_relay(front.port, delay=0.05) as relay:
        exim = make_exim(relay.port, chunking=chunking)
        for _ in range(2):
            message = sample()
            assert_delivered(exim.send(message), exim)
            seen = relay.conversations[-1]
            assert seen.half_closed_by_client
            assert b"221 " in seen.after_client_end()
            assert_intact(backend.delivered(), message)


@by_chunking
def test_a_large_message(backend: Backend, make_exim: MakeExim, serve: Serve, *, chunking: bool) -> None:
    """5 MiB, in many chunks or much to dot-stuff, polite and early."""
    front = serve(backend.port)
    exim = make_exim(front.port, chunking=chunking)
    for early in (False, True):
        message = sample(size=5 << 20)
        delivery = exim.send(message)
        assert_delivered(delivery, exim)
        assert delivery.early is early
        assert_intact(backend.delivered(60.0), message)


@by_chunking
def test_a_refused_recipient_among_others(
    backend: Backend, make_exim: MakeExim, serve: Serve, *, chunking: bool
) -> None:
    """S3: the backend's refusal reaches the client as it is, and only the others get the message."""
    front = serve(backend.port)
    exim = make_exim(front.port, chunking=chunking)
    for early in (False, True):
        message = sample()
        delivery = exim.send(message, "one@lab.test", "refused@lab.test", "two@lab.test")
        assert delivery.early is early
        assert len(delivery.accepted) == 2
        assert not delivery.deferred
        (line,) = delivery.refused
        assert "refused@lab.test" in line
        assert (
            "after RCPT TO:<refused@lab.test>: 55" in line or "after pipelined RCPT TO:<refused@lab.test>: 55" in line
        )
        assert_intact(backend.delivered(), message, ("one@lab.test", "two@lab.test"))


@by_chunking
def test_no_recipient_is_accepted(backend: Backend, make_exim: MakeExim, serve: Serve, *, chunking: bool) -> None:
    """RFC 2920, 3.1: the message is on its way already when its only recipient is refused; it must not
    arrive anywhere.
    """
    front = serve(backend.port)
    exim = make_exim(front.port, chunking=chunking)
    assert_delivered(exim.send(sample()), exim)
    message = sample()
    delivery = exim.send(message, "refused@lab.test")
    assert not delivery.accepted
    assert not delivery.deferred
    assert len(delivery.refused) == 1
    assert_intact(backend.delivered(), message, ())


@by_chunking
def test_a_recipient_put_off_is_tried_again(
    postfix_plain: Postfix, make_exim: MakeExim, serve: Serve, *, chunking: bool
) -> None:
    """A 4xx to one recipient stays a 4xx: Exim keeps that one in its queue and no other."""
    front = serve(postfix_plain.port)
    exim = make_exim(front.port, chunking=chunking)
    for _ in range(2):
        message = sample()
        delivery = exim.send(message, "one@lab.test", "later@lab.test")
        assert len(delivery.accepted) == 1
        assert len(delivery.deferred) == 1
        assert "450" in delivery.deferred[0]
        assert_intact(postfix_plain.delivered(), message, ("one@lab.test",))
    assert len(exim.queue()) == 2


@by_chunking
@pytest.mark.parametrize("connect_mode", ["eager", "reuse"], indirect=True)
def test_many_messages_on_one_connection(
    backend: Backend, connect_mode: dict[str, Any], make_exim: MakeExim, serve: Serve, *, chunking: bool
) -> None:
    """Exim sends what waits for the same server over the session that is open."""
    front = serve(backend.port, backend=connect_mode)
    with recording_relay(front.port) as relay:
        exim = make_exim(relay.port, chunking=chunking)
        messages = [sample() for _ in range(5)]
        for message in messages:
            exim.enqueue(message)
        assert len(exim.queue()) == len(messages)
        exim.run_queue_by_host()
        assert exim.queue() == []
        assert len(relay.conversations) < len(messages)
    stored = backend.delivered()
    for message in messages:
        assert_intact(stored, message)


@by_chunking
@pytest.mark.parametrize("settings", [{}, {"connect": "lazy"}, {"pace": "lockstep"}], ids=str)
def test_the_backend_sees_one_command_at_a_time(
    postfix_plain: Postfix,
    postfix_lockstep: Postfix,
    settings: dict[str, Any],
    make_exim: MakeExim,
    *,
    chunking: bool,
) -> None:
    """S8, on the wire between smtpproxy and a server without PIPELINING, or with it and `pace: lockstep`; and
    nothing is sent before a greeting that takes its time.
    """
    server = postfix_plain if "pace" in settings else postfix_lockstep
    with recording_relay(server.port, hold=0.3) as behind, proxy(behind.port, backend=settings) as front:
        exim = make_exim(front.port, chunking=chunking)
        messages = [sample() for _ in range(2)]
        for message in messages:
            assert_delivered(exim.send(message, "one@lab.test", "two@lab.test"), exim)
        sessions = [seen for seen in behind.conversations if b"MAIL FROM" in seen.sent_by("client")]
        assert len(sessions) == len(messages)
        for seen in sessions:
            assert seen.before_greeting == b""
            assert_lockstep(seen)
    stored = server.delivered()
    for message in messages:
        assert_intact(stored, message, ("one@lab.test", "two@lab.test"))


def test_a_client_that_is_not_offered_the_extension_stays_polite(
    postfix_plain: Postfix, make_exim: MakeExim, serve: Serve
) -> None:
    """S1: `advertise_to` with other networks only."""
    settings = {"early_pipelining": {"advertise_to": ["192.0.2.0/24"]}}
    front = serve(postfix_plain.port, listener=settings)
    exim = make_exim(front.port)
    for _ in range(2):
        message = sample()
        delivery = exim.send(message)
        assert_delivered(delivery, exim)
        assert not delivery.early
        assert_intact(postfix_plain.delivered(), message)


def test_chunking_can_be_hidden(opensmtpd_plain: OpenSmtpd, make_exim: MakeExim, serve: Serve) -> None:
    """S9: `chunking: false` makes Exim use DATA, early all the same."""
    front = serve(opensmtpd_plain.port, listener={"chunking": False})
    exim = make_exim(front.port, chunking=True)
    for early in (False, True):
        message = sample()
        delivery = exim.send(message)
        assert_delivered(delivery, exim)
        assert delivery.early is early
        assert " K " not in delivery.accepted[0]
        assert_intact(opensmtpd_plain.delivered(), message)
