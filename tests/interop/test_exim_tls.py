"""Exim 4.96 pipelines early with TLS through smtpproxy, by STARTTLS and on a port for TLS alone, to a Postfix that has
neither early pipelining nor TLS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import CONNECT_MODES, MakeExim
from .exim import Delivery, Exim
from .fronts import Front, Way, fronts, tls
from .messages import assert_intact, sample
from .postfix import Postfix
from .relay import recording_relay
from .test_exim import assert_delivered, by_chunking

pytestmark = pytest.mark.interop

# Exim 4.96 itself does not resume with `protocol = smtps` (in its words: not supported on continued-connection).
RESUMES = {"starttls": True, "implicit": False}
by_kind = pytest.mark.parametrize("kind", RESUMES)


Target = tuple[Front, Postfix]
MakeSecureExim = Callable[..., Exim]


@pytest.fixture(scope="module")
def target(postfix_plain: Postfix, postfix_lockstep: Postfix, server_pair: Any) -> Iterator[dict[str, Target]]:
    """A listener for each kind of TLS and each way of keeping backend sessions, and what is behind it."""
    modes = {"starttls": "starttls-required", "implicit": "implicit"}
    behind = {
        **{name: (postfix_plain, mode) for name, mode in CONNECT_MODES.items()},
        "lockstep": (postfix_lockstep, {}),
    }
    ways = {
        f"{kind}-{name}": Way(server.port, settings, tls(mode, server_pair))
        for kind, mode in modes.items()
        for name, (server, settings) in behind.items()
    }
    with fronts(ways) as made:
        yield {name: (front, behind[name.split("-")[1]][0]) for name, front in made.items()}


@pytest.fixture
def secure_exim(make_exim: MakeExim, lasting_pki: Any) -> MakeSecureExim:
    """Makes Exims that insist on TLS and on a certificate of our authority."""
    return lambda port, kind, **options: make_exim(port, tls=kind, **{"anchor": lasting_pki.root.path, **options})


def assert_secure(delivery: Delivery, *, early: bool, resumed: bool) -> None:
    """Exim's log shows TLS 1.3 with the right certificate, and whether it was early and a resumed session."""
    (line,) = delivery.accepted
    seen = re.search(r" X=(TLS1\.3):\(?\S+:256(\*?) CV=yes ", line)
    assert seen, line
    assert (seen[2] == "*") is resumed, line
    assert delivery.early is early, line


def first_flight(delivery: Delivery) -> list[str]:
    """The commands that Exim sent inside TLS before it had read a reply there."""
    inside = delivery.debug.split("Using cached crypted PIPECONNECT", 1)[1].split("SMTP<<", 1)[0]
    return re.findall(r"SMTP[|+>]> ([A-Z]+)", inside)


@by_kind
@by_chunking
@pytest.mark.parametrize("name", [*CONNECT_MODES, "lockstep"])
def test_early_inside_tls(
    target: dict[str, Target], secure_exim: MakeSecureExim, kind: str, name: str, *, chunking: bool
) -> None:
    """S1, S5: learned on the first delivery; the second and third are early, by STARTTLS on resumed sessions."""
    front, server = target[f"{kind}-{name}"]
    with recording_relay(front.port) as relay:
        exim = secure_exim(relay.port, kind, chunking=chunking)
        messages = [sample() for _ in range(3)]
        first = exim.send(messages[0])
        assert_delivered(first, exim)
        assert_secure(first, early=False, resumed=False)
        if kind == "starttls":
            # The relay holds the server back until the client has said all that it says unasked.
            relay.hold = 5.0
        for message in messages[1:]:
            delivery = exim.send(message)
            assert_delivered(delivery, exim)
            assert_secure(delivery, early=True, resumed=RESUMES[kind])
            assert first_flight(delivery)[:4] == ["EHLO", "MAIL", "RCPT", "BDAT" if chunking else "DATA"]
            assert (" K " in delivery.accepted[0]) is chunking
            if kind == "starttls":
                seen = relay.conversations[-1].before_greeting
                assert seen == f"EHLO {exim.name}\r\nSTARTTLS\r\n".encode()
    stored = server.delivered()
    for message in messages:
        assert_intact(stored, message)
    sessions = front.sessions(exim.name, 3)
    assert [session.get("resumed", False) for session in sessions] == [False, *[RESUMES[kind]] * 2]
    for session in sessions:
        assert (session["tls"], session["sni"]) == ("TLSv1.3", "mx.lab.test")
        assert (session["accepted"], session["end"]) == (1, "quit")
        assert session["pace"] == ("lockstep" if name == "lockstep" else "pipelined")
    # EHLO, MAIL, RCPT and the message's command, of which one reply at least has to be waited for.
    assert all(session["round_trips_saved"] >= 3 for session in sessions[1:]), sessions


@by_kind
@by_chunking
def test_a_large_message_inside_tls(
    target: dict[str, Target], secure_exim: MakeSecureExim, kind: str, *, chunking: bool
) -> None:
    """3 MiB, polite and early."""
    front, server = target[f"{kind}-eager"]
    exim = secure_exim(front.port, kind, chunking=chunking)
    for early in (False, True):
        message = sample(size=3 << 20)
        delivery = exim.send(message)
        assert_delivered(delivery, exim)
        assert_secure(delivery, early=early, resumed=early and RESUMES[kind])
        assert_intact(server.delivered(60.0), message)


@by_kind
def test_a_refused_recipient_inside_tls(target: dict[str, Target], secure_exim: MakeSecureExim, kind: str) -> None:
    """S3: the others get the message, polite and early."""
    front, server = target[f"{kind}-reuse"]
    exim = secure_exim(front.port, kind)
    for early in (False, True):
        message = sample()
        delivery = exim.send(message, "one@lab.test", "refused@lab.test", "two@lab.test")
        assert delivery.early is early
        assert (len(delivery.accepted), len(delivery.refused), delivery.deferred) == (2, 1, [])
        assert_intact(server.delivered(), message, ("one@lab.test", "two@lab.test"))


@by_kind
def test_exim_does_not_take_a_server_with_a_foreign_certificate(
    target: dict[str, Target], pki: Any, secure_exim: MakeSecureExim, kind: str
) -> None:
    """Or the tests above would not show that it looked; our log has the alert that it sent."""
    front, _ = target[f"{kind}-eager"]
    exim = secure_exim(front.port, kind, anchor=pki.ca("Somebody else").path)
    delivery = exim.send(sample())
    assert (delivery.accepted, len(delivery.deferred)) == ([], 1)
    assert "certificate verification failed" in delivery.log
