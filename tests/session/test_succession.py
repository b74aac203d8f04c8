"""One relay after another: what goes on, what is forgotten (rules S5, S6), and what is waited for meanwhile (H9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from smtpproxy.session.frontend import Frontend, State
from smtpproxy.session.pipeline import ReplyPipeline
from smtpproxy.session.policy import BackendTls
from smtpproxy.session.relay import Relay
from smtpproxy.smtp.commands import Wait

from .listener import Setup
from .owner import Owner
from .server import by_content
from .test_paces import bdat
from .world import World

EHLO = b"EHLO client.example\r\n"
QUIT = b"QUIT\r\n"
XCLIENT = b"XCLIENT NAME=far.example ADDR=198.51.100.9\r\n"
MAIL = [b"MAIL FROM:<a@client.example>\r\n", b"RCPT TO:<b@example.org>\r\n"]

GOES_ON = {
    "command_count",
    "draining",
    "early",
    "ended",
    "errors",
    "octets",
    "once_only",
    "origin",
    "recipients_accepted",
    "recipients_refused",
    "relay_refused",
    "reply_count",
    "stamp",
    "trace",
    "turns",
    "violations",
}
"""What the session has counted, and what is not the client's word."""
ANOTHER_TEST = {"actions", "backend", "backend_out", "frontend", "now", "pipeline", "released"}


def facts(thing: Any) -> dict[str, Any]:
    """Give all that an object knows."""
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return {name: getattr(thing, name) for name in slots}


def talkative(**changes: Any) -> World:
    """A client that has left traces in everything, and is at rest."""
    setup = Setup(tls="starttls", trusted=True, domains=("example.org",), trace_header=True, **changes)
    made = World(setup, ("SIZE 1000", "AUTH LOGIN", "PIPELINING"), plan=by_content)
    made.connect()
    made.owner.relay.trace = lambda _direction, _line: None
    made.send(EHLO)
    made.run()
    for packet in (
        b"XFROB\r\nNOOP \0\r\n",
        b"AUTH LOGIN never\r\n",
        b"c2VjcmV0\r\n",
        b"*\r\n",
        b"".join([*MAIL, b"RCPT TO:<c@foreign.example>\r\n", b"RCPT TO:<never@example.org>\r\n", *bdat(b"Hi", 1)]),
        MAIL[0] + b"BDAT 3\r\nabcRSET\r\n",
        b"MAIL FROM:<later@client.example> BODY=8BITMIME\r\n",
    ):
        made.send(packet)
        made.run()
    return made


def successors() -> Iterator[tuple[str, World]]:
    """Let a talkative client go on, inside TLS and under another name."""
    for name, packet in (("inside TLS", b"STARTTLS\r\n"), ("another client", XCLIENT)):
        for kept in (False, True):
            made = talkative()
            assert made.owner.relay.errors == 9
            if kept:
                # The server session that has seen AUTH is of no use to anybody.
                assert made.owner.relay.backend is not None
                made.owner.relay.backend.secret = False
            before = made.owner.relay
            made.send(packet)
            if name == "inside TLS":
                made.handshake()
            made.run()
            assert made.owner.relay is not before
            assert before.backend is None
            assert (len(made.servers) == 1) == kept
            yield f"{name}, {kept}", made


def test_s06_nothing_that_the_client_said_is_left() -> None:
    """A relay that takes the place of another is as a new one, but for what it has counted."""
    for name, made in successors():
        relay = made.owner.relay
        fresh = Relay(relay.policy, relay.client, relay.learned)
        new, old = facts(fresh), facts(relay)
        different = {key for key in new if key not in ANOTHER_TEST and new[key] != old[key]}
        assert different <= GOES_ON, name
        assert facts(relay.frontend) == facts(Frontend(relay.policy.limits.line, relay.policy.limits.auth_line)), name
        unsaid = facts(relay.pipeline) | {"replies": 0, "groups": 0}
        assert unsaid == facts(ReplyPipeline()), name
        assert (relay.ehlo, relay.heard, relay.envelope, relay.authenticated) == (b"", b"", False, False), name
        assert made.owner.relay.backend_out == []


def test_what_was_counted_goes_on() -> None:
    for name, made in successors():
        relay = made.owner.relay
        assert (relay.errors, relay.recipients_accepted, relay.recipients_refused) == (9, 1, 1), name
        assert (relay.relay_refused, relay.octets, relay.early) == (1, 5, True), name
        assert relay.command_count == 17, name
        assert relay.pipeline.replies == 18, name
        assert [transaction.octets for transaction in relay.ended] == [2, 0], name
        assert relay.turns == 9, name
        assert relay.trace is not None, name
        assert relay.stamp is not None, name


def test_s18_the_kept_server_session_hears_a_new_ehlo_only() -> None:
    for name, made in successors():
        (server, *others) = made.servers
        said = len(server.commands)
        made.send(b"EHLO inside.example\r\nVRFY b\r\n")
        made.run()
        asked = (others or [server])[-1].commands
        assert asked[-2:] == [b"EHLO inside.example", b"VRFY b"], name
        assert len(server.commands) - said == (0 if others else 2), name


def test_transactions_are_told_once() -> None:
    """A message in clear, one inside TLS: each has its line in the log, by whichever relay the owner asks."""
    made = World(Setup(tls="starttls"), ("CHUNKING",))
    made.connect()
    for octets in (b"".join([EHLO, *MAIL, *bdat(b"one")]), b"STARTTLS\r\n"):
        made.send(octets)
        made.run()
    made.handshake()
    made.send(b"".join([EHLO, *MAIL, *bdat(b"three"), QUIT]))
    made.run()
    assert made.closed
    assert [transaction.octets for transaction in made.owner.relay.ended] == [3, 5]


def test_the_servers_of_a_session_are_counted_by_all_its_relays() -> None:
    """The log says how long a client was made to wait, whatever it became meanwhile."""
    made = World(Setup(tls="starttls"), ())
    made.connect()
    for octets in (EHLO + b"STARTTLS\r\n", EHLO + QUIT):
        made.send(octets)
        made.run()
        if not made.closed:
            made.handshake()
    relay = made.owner.relay
    assert made.closed
    assert (relay.command_count, relay.reply_count) == (4, 3)
    assert (relay.pipeline.replies, relay.pipeline.groups) == (5, 2)
    assert relay.turns == 2


# --- what is waited for (H9) -----------------------------------------------------------------------------------------


def waits(owner: Owner) -> tuple[str, str]:
    return owner.relay.client_wait.name, owner.relay.backend_wait.name


def test_who_is_waited_for_while_a_server_is_prepared() -> None:
    owner = Owner(Setup(identity="xclient", backend_tls=BackendTls.REQUIRED, lookup="later"))
    owner.start()
    seen = [waits(owner)]
    offer = b"250-mail.example\r\n250-STARTTLS\r\n250 XCLIENT ADDR\r\n"
    for step in (
        lambda: owner.client_sends(EHLO),
        lambda: owner.server_sends(b"220 mail.example ESMTP\r\n"),
        lambda: owner.server_sends(offer),
        lambda: owner.server_sends(b"220 ready\r\n"),
        owner.server_handshake_done,
        lambda: owner.settle(hold=False),
        lambda: owner.server_sends(offer),
        owner.name_found,
        lambda: owner.server_sends(b"220 mail.example ESMTP\r\n"),
        lambda: owner.server_sends(b"250 mail.example\r\n"),
    ):
        step()
        seen.append(waits(owner))
    assert [server for _, server in seen] == [
        "GREETING",
        "GREETING",
        "EHLO",
        "OTHER",
        "BACKEND_TLS",
        "EHLO",
        "EHLO",
        "NOTHING",
        "OTHER",
        "EHLO",
        "NOTHING",
    ]
    assert [client for client, _ in seen][6:] == ["NOTHING", "NOTHING", "NOTHING", "NOTHING", "COMMAND"]


def test_who_is_waited_for_in_the_clients_handshake() -> None:
    owner = Owner(Setup(tls="starttls"))
    owner.start()
    owner.client_sends(EHLO + b"STARTTLS\r\n")
    owner.server_sends(b"220 mail.example ESMTP\r\n")
    assert owner.relay.frontend.state is State.AWAIT_TLS
    assert owner.relay.client_wait is not Wait.CLIENT_TLS
    owner.server_sends(b"250 mail.example\r\n")
    assert waits(owner) == ("CLIENT_TLS", "NOTHING")
    owner.handshake_done()
    assert waits(owner) == ("COMMAND", "NOTHING")


def test_who_is_waited_for_from_the_first_octet_of_implicit_tls() -> None:
    owner = Owner(Setup(tls="implicit"))
    owner.start()
    assert waits(owner) == ("CLIENT_TLS", "NOTHING")
    owner.handshake_done()
    assert waits(owner) == ("NOTHING", "GREETING")


# --- transcripts (H11) -----------------------------------------------------------------------------------------------


def traced(setup: Setup, keywords: tuple[str, ...]) -> tuple[World, list[tuple[str, bytes]]]:
    """Make a client whose every line is noted."""
    made = World(setup, keywords)
    made.connect()
    lines: list[tuple[str, bytes]] = []
    made.owner.relay.trace = lambda direction, line: lines.append((direction, line))
    return made, lines


def test_h11_what_a_server_is_prepared_with_is_in_the_transcript() -> None:
    setup = Setup(identity="auto", backend_tls=BackendTls.REQUIRED)
    made, lines = traced(setup, ("STARTTLS", "XCLIENT ADDR", "PIPELINING"))
    made.send(b"".join([EHLO, *MAIL]))
    made.run()
    assert [line for mark, line in lines if mark == "B>"] == [
        EHLO,
        b"STARTTLS\r\n",
        EHLO,
        b"XCLIENT ADDR=192.0.2.7\r\n",
        EHLO,
        *MAIL,
    ]
    assert [line for mark, line in lines if mark == "C:"] == [EHLO, *MAIL]


def test_h11_xforward_is_in_the_transcript() -> None:
    made, lines = traced(Setup(identity="xforward"), ("XFORWARD ADDR",))
    made.send(EHLO + MAIL[0])
    made.run()
    assert [line for mark, line in lines if mark == "B>"] == [EHLO, b"XFORWARD ADDR=192.0.2.7\r\n", MAIL[0]]


@pytest.mark.parametrize("tls", ["starttls", "starttls-required"])
def test_h11_the_transcript_goes_on_inside_tls_without_secrets(tls: str) -> None:
    """An AUTH that we refuse, with what was meant as its responses; and one that the server takes."""
    made, lines = traced(Setup(tls=tls, auth="tls"), ("AUTH LOGIN",))
    made.send(EHLO)
    made.run()
    made.send(b"AUTH LOGIN c2VjcmV0\r\nc2VjcmV0\r\nSTARTTLS\r\n")
    made.run()
    made.handshake()
    for packet in (EHLO, b"AUTH LOGIN\r\n", b"c2VjcmV0\r\n", b"c2VjcmV0\r\n", b"NOOP\r\n"):
        made.send(packet)
        made.run()
    shown = [line for _, line in lines]
    assert b"c2VjcmV0" not in b"".join(shown)
    assert shown.count(b"AUTH ****\r\n") == 7
    assert shown.count(b"(not shown)\r\n") == 1
    assert [line for mark, line in lines if mark == "C:"][3:5] == [b"STARTTLS\r\n", EHLO]
    assert lines[-1] == ("S:", b"250 noop\r\n")


def test_h11_xclient_of_a_proxy_is_in_the_transcript() -> None:
    made, lines = traced(Setup(trusted=True), ())
    made.send(EHLO + XCLIENT + EHLO)
    made.run()
    assert [line for mark, line in lines if mark == "C:"] == [EHLO, XCLIENT, EHLO]
    assert [line for mark, line in lines if mark == "B>"] == [EHLO, EHLO]
