"""Many sessions at once: nothing lost, nothing doubled."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .conftest import Backend, Serve
from .conversation import codes, conversation
from .messages import Sample, assert_intact, sample
from .opensmtpd import OpenSmtpd
from .postfix import Postfix
from .proxy import Proxy, proxy
from .sink import numbered, smtp_sink, smtp_source

pytestmark = pytest.mark.interop

MESSAGES = 1000
SESSIONS = 50
BURSTS = 150


def send_and_count(server: Postfix, front: Proxy) -> None:
    """A thousand messages through smtpproxy; every one must be in the Maildir once, with the octets of all
    the others.
    """
    user = f"proxy{front.port}@lab.test"
    done = smtp_source(front.port, messages=MESSAGES, sessions=SESSIONS, to=user)
    assert (done.returncode, done.stderr) == (0, "")
    stored = [message for message in server.delivered(60.0) if message.recipient.endswith(user)]
    assert Counter(message.recipient for message in stored) == numbered(MESSAGES, user)
    assert len({message.header(b"Message-Id") for message in stored}) == MESSAGES
    assert len({len(message.body) for message in stored}) == 1


def test_a_thousand_messages_to_postfix(postfix_plain: Postfix, serve: Serve, connect_mode: dict[str, Any]) -> None:
    """Fifty at a time, each in a session of its own (HELO, lock-step)."""
    send_and_count(postfix_plain, serve(postfix_plain.port, backend=connect_mode))


def test_a_thousand_messages_to_a_lockstep_postfix(postfix_lockstep: Postfix, serve: Serve) -> None:
    """The same with PIPELINING hidden."""
    send_and_count(postfix_lockstep, serve(postfix_lockstep.port))


@pytest.mark.parametrize("connect_mode", ["eager", "reuse"], indirect=True)
def test_whole_sessions_in_one_flight(backend: Backend, serve: Serve, connect_mode: dict[str, Any]) -> None:
    """Early bursts from many clients at a time, half-closed behind QUIT, to pipelining and lock-step servers."""
    front = serve(backend.port, backend=connect_mode)
    # OpenSMTPD stops accepting long before fifty sessions.
    parallel = 10 if isinstance(backend, OpenSmtpd) else SESSIONS
    messages = [sample() for _ in range(BURSTS)]

    def send(message: Sample) -> list[int]:
        envelope = b"EHLO client.lab.test\r\nMAIL FROM:<sender@lab.test>\r\nRCPT TO:<recipient@lab.test>\r\n"
        with conversation(front.port) as client:
            client.send_octets(envelope + b"BDAT %d LAST\r\n" % len(message.wire) + message.wire + b"QUIT\r\n")
            client.half_close()
            return codes(client.replies())

    with ThreadPoolExecutor(parallel) as pool:
        answers = list(pool.map(send, messages))
    assert [answer for answer in answers if answer != [220, 250, 250, 250, 250, 221]] == []
    stored = backend.delivered(60.0)
    tokens = Counter(message.header(b"X-Token").decode() for message in stored)
    assert {tokens[message.token] for message in messages} == {1}
    assert_intact(stored, messages[0])


@pytest.mark.parametrize("options", [(), ("-d", "-r", "5")], ids=["one message", "many messages"])
def test_a_fast_backend(connect_mode: dict[str, Any], options: tuple[str, ...]) -> None:
    """smtp-sink answers at once: the proxy is the slow part.  One message per session with one recipient, or
    many messages with five each.
    """
    with smtp_sink() as sink:
        with proxy(sink.port, backend=connect_mode) as front:
            done = smtp_source(front.port, messages=MESSAGES, sessions=SESSIONS, options=options)
            assert (done.returncode, done.stderr) == (0, "")
        recipients = 5 if "-r" in options else 1
        found = sink.recipients()
        assert sum(found.values()) == MESSAGES * recipients
        assert set(found.values()) == {1}
