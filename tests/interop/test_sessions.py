"""Backend sessions that serve one client after another, and what must not pass from one to the next (S18)."""

from __future__ import annotations

import smtplib
from typing import Any

import pytest

from .conftest import CONNECT_MODES, Serve
from .exim_server import PASSWORD, USER, EximServer
from .lab import wait_for
from .messages import assert_intact, sample
from .postfix import Postfix
from .relay import recording_relay

pytestmark = pytest.mark.interop


def test_the_backend_learns_each_clients_name(
    postfix_plain: Postfix, serve: Serve, connect_mode: dict[str, Any]
) -> None:
    """Every Received line has the EHLO or HELO name of its own client, also over a kept session."""
    front = serve(postfix_plain.port, backend=connect_mode)
    sent = {}
    for number in range(6):
        message = sample()
        sent[message] = name = f"host{number}.lab.test"
        with smtplib.SMTP("127.0.0.1", front.port, timeout=30) as client:
            assert (client.helo if number % 3 == 2 else client.ehlo)(name)[0] == 250
            client.sendmail("sender@lab.test", ["recipient@lab.test"], message.wire)
    stored = postfix_plain.delivered()
    for message, name in sent.items():
        assert_intact(stored, message)
        (copy,) = [found for found in stored if found.header(b"X-Token") == message.token.encode()]
        assert copy.header(b"Received").startswith(f"from {name} ".encode())


def test_kept_sessions_are_lent_again(postfix_plain: Postfix, serve: Serve) -> None:
    """`reuse`: ten clients one after another, one connection to the backend."""
    with recording_relay(postfix_plain.port) as behind:
        front = serve(behind.port, backend=CONNECT_MODES["reuse"])
        for _ in range(10):
            message = sample()
            with smtplib.SMTP("127.0.0.1", front.port, "client.lab.test", timeout=30) as client:
                client.sendmail("sender@lab.test", ["recipient@lab.test"], message.wire)
            assert_intact(postfix_plain.delivered(), message)
        assert len(behind.conversations) == 1


def test_a_session_that_saw_auth_is_not_lent_again(exim_backend: EximServer, serve: Serve) -> None:
    """Or the next client could relay as the last one's user."""
    front = serve(
        exim_backend.port, backend=CONNECT_MODES["reuse"], listener={"recipient_domains": "any", "auth": "always"}
    )
    message = sample()
    with smtplib.SMTP("127.0.0.1", front.port, "client.lab.test", timeout=30) as client:
        client.login(USER, PASSWORD)
        client.sendmail("sender@lab.test", ["friend@foreign.test"], message.wire)
    assert_intact(exim_backend.delivered(), message, ("friend@foreign.test",))
    for _ in range(3):
        with smtplib.SMTP("127.0.0.1", front.port, "client.lab.test", timeout=30) as client:
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refusal:
                client.sendmail("sender@lab.test", ["friend@foreign.test"], message.wire)
            assert b"relaying denied by the backend" in refusal.value.recipients["friend@foreign.test"][1]


@pytest.mark.parametrize("settings", [{"reuse": {"idle": "1 s"}}, {"reuse": {"uses": 2}}], ids=["idle", "uses"])
def test_kept_sessions_have_limits(postfix_plain: Postfix, serve: Serve, settings: dict[str, Any]) -> None:
    """The backend sees QUIT from a session that was kept too long, or used often enough."""
    with recording_relay(postfix_plain.port) as behind:
        front = serve(behind.port, backend={"connect": "lazy", **settings})
        for _ in range(2):
            with smtplib.SMTP("127.0.0.1", front.port, "client.lab.test", timeout=30) as client:
                client.sendmail("sender@lab.test", ["recipient@lab.test"], sample().wire)
        wait_for(lambda: behind.conversations[0].closed, "the end of the first session", 10.0)
        assert behind.conversations[0].sent_by("client").endswith(b"QUIT\r\n")
        assert len(behind.conversations) == 1
