"""Backends that are away, go away, or misbehave: the client gets 4xx, keeps its message, and it arrives
exactly once in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from freeports import free_port

from .conftest import MakeExim, Serve
from .conversation import Conversation, codes, conversation, dot_stuffed
from .messages import assert_intact, sample
from .postfix import Postfix, postfix
from .proxy import proxy
from .relay import RecordingRelay
from .sink import smtp_sink

pytestmark = pytest.mark.interop

ENVELOPE = (b"EHLO client.lab.test", b"MAIL FROM:<sender@lab.test>", b"RCPT TO:<recipient@lab.test>")


@pytest.fixture(scope="module")
def mortal_postfix() -> Iterator[Postfix]:
    """A Postfix that the tests stop and start."""
    with postfix() as server:
        yield server


@pytest.fixture
def running_postfix(mortal_postfix: Postfix) -> Postfix:
    """The same, running."""
    if mortal_postfix.process is None:
        mortal_postfix.start()
    return mortal_postfix


def send_whole(port: int, wire: bytes) -> list[int]:
    """Send a message in one burst; all reply codes."""
    with conversation(port) as client:
        client.send(*ENVELOPE)
        client.send_octets(b"BDAT %d LAST\r\n" % len(wire) + wire + b"QUIT\r\n")
        return codes(client.replies())


def finish(client: Conversation, wire: bytes) -> None:
    """Go on in lock-step behind the greeting until something is refused, which must happen, for now."""
    for line in (*ENVELOPE, b"DATA"):
        code = client.ask(line).code
        if code >= 400:
            break
    else:
        client.send_octets(dot_stuffed(wire))
        code = client.reply().code
    assert 400 <= code < 500


@pytest.mark.parametrize("stage", [1, 2, 3], ids=["after EHLO", "after MAIL", "after RCPT"])
def test_the_backend_stops_between_commands(
    running_postfix: Postfix, connect_mode: dict[str, Any], serve: Serve, stage: int
) -> None:
    """The next reply that depends on it is a 4xx; the client that comes again is served, and there is one
    message.
    """
    message = sample()
    front = serve(running_postfix.port, backend=connect_mode)
    with conversation(front.port) as client:
        assert client.reply().code == 220
        assert [client.ask(line).code for line in ENVELOPE[:stage]] == [250] * stage
        running_postfix.stop()
        reply = client.ask(ENVELOPE[stage] if stage < len(ENVELOPE) else b"DATA")
        assert 400 <= reply.code < 500, reply
    running_postfix.start()
    assert send_whole(front.port, message.wire) == [220, 250, 250, 250, 250, 221]
    assert_intact(running_postfix.delivered(), message)


@pytest.mark.parametrize("form", ["DATA", "BDAT"])
def test_the_backend_stops_in_the_middle_of_the_message(
    running_postfix: Postfix, connect_mode: dict[str, Any], serve: Serve, form: str
) -> None:
    """S10: half of the message was on its way; the end of data is answered 4xx, and nobody has half a
    message.
    """
    message = sample(size=400_000)
    front = serve(running_postfix.port, backend=connect_mode)
    with conversation(front.port) as client:
        client.send(*ENVELOPE)
        assert [client.reply().code for _ in range(4)] == [220, 250, 250, 250]
        octets = dot_stuffed(message.wire) if form == "DATA" else message.wire
        if form == "DATA":
            assert client.ask(b"DATA").code == 354
        else:
            client.send(b"BDAT %d LAST" % len(octets))
        client.send_octets(octets[:200_000])
        running_postfix.stop()
        client.send_octets(octets[200_000:])
        reply = client.reply()
        assert 400 <= reply.code < 500, reply
    running_postfix.start()
    assert_intact(running_postfix.delivered(), message, ())


def test_exim_keeps_the_message_until_the_backend_is_back(
    running_postfix: Postfix, connect_mode: dict[str, Any], serve: Serve, make_exim: MakeExim
) -> None:
    """Deferred, not bounced, polite and early; delivered once when the backend runs again."""
    messages = [sample() for _ in range(3)]
    front = serve(running_postfix.port, backend=connect_mode)
    exim = make_exim(front.port)
    assert exim.send(messages[0]).accepted
    assert_intact(running_postfix.delivered(), messages[0])
    running_postfix.stop()
    for message in messages[1:]:
        delivery = exim.send(message)
        assert not delivery.accepted
        assert not delivery.refused
    assert len(exim.queue()) == 2
    running_postfix.start()
    exim.retry()
    assert exim.queue() == []
    stored = running_postfix.delivered()
    for message in messages:
        assert_intact(stored, message)


@pytest.mark.parametrize("verb", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("manner", ["-q", "-Q"], ids=["without a word", "with 421"])
def test_a_backend_that_closes(
    connect_mode: dict[str, Any], serve: Serve, switch: RecordingRelay, manner: str, verb: str
) -> None:
    """H8: smtp-sink hangs up at a given command; whatever the client had sent by then, no 2xx for the
    message.
    """
    message = sample()
    with smtp_sink(manner, verb) as sink:
        switch.target = sink.port
        front = serve(switch.port, backend=connect_mode)
        burst = send_whole(front.port, message.wire)
        assert any(400 <= code < 500 for code in burst), burst
        assert not any(code >= 500 for code in burst), burst
        assert len(burst) < 5 or burst[4] >= 400, burst
        with conversation(front.port) as client:
            greeting = client.reply().code
            if greeting == 220:
                finish(client, message.wire)
            else:
                assert greeting == 421
        assert not sink.recipients() or verb == "."


@pytest.mark.parametrize("bad", ["refuses connections", "greets with 421", "closes at once"])
def test_the_next_backend_serves(running_postfix: Postfix, connect_mode: dict[str, Any], bad: str) -> None:
    """S19: failover to the second server, for every client, at once."""
    options = {
        "refuses connections": None,
        "greets with 421": ("-Q", "CONNECT"),
        "closes at once": ("-q", "CONNECT"),
    }[bad]
    messages = [sample() for _ in range(3)]

    def through(first: int) -> None:
        with proxy(first, running_postfix.port, backend=connect_mode) as front:
            for message in messages:
                assert send_whole(front.port, message.wire) == [220, 250, 250, 250, 250, 221]

    if options is None:
        through(free_port())
    else:
        with smtp_sink(*options) as sink:
            through(sink.port)
    stored = running_postfix.delivered()
    for message in messages:
        assert_intact(stored, message)


def test_a_backend_that_dies_is_replaced_by_the_next(
    postfix_lockstep: Postfix, running_postfix: Postfix, connect_mode: dict[str, Any]
) -> None:
    """The first serves until it stops; then the second does; nothing is lost and nothing arrives at both."""
    before, after = sample(), sample()
    with proxy(running_postfix.port, postfix_lockstep.port, backend=connect_mode) as front:
        assert send_whole(front.port, before.wire) == [220, 250, 250, 250, 250, 221]
        assert_intact(running_postfix.delivered(), before)
        running_postfix.stop()
        for _ in range(2):  # a kept session that has died may cost the first client its try
            answers = send_whole(front.port, after.wire)
            if answers == [220, 250, 250, 250, 250, 221]:
                break
            assert "reuse" in connect_mode
            assert all(code < 500 for code in answers)
        else:
            pytest.fail(f"not served: {answers}")
    assert_intact(postfix_lockstep.delivered(), after)
    running_postfix.start()
    assert_intact(running_postfix.delivered(), after, ())


def test_a_5xx_greeting_is_about_the_client(running_postfix: Postfix) -> None:
    """S19: it goes to the client, and the next server is not asked."""
    with (
        smtp_sink("-f", "CONNECT") as sink,
        proxy(sink.port, running_postfix.port) as front,
        conversation(front.port) as client,
    ):
        assert client.reply().code in (500, 554)
