"""TLS with a Postfix behind: by STARTTLS and from the first octet on, who it must be, and who we are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from .clients import RECIPIENT, burst, hello, post, send_at_once
from .doors import FRIEND, STRANGER
from .fronts import Front, Way, fronts
from .messages import Sample, assert_intact, sample
from .postfix import Postfix

pytestmark = pytest.mark.interop

EARLY_REPLIES = [220, 250, 250, 250, 250, 221]
MODES = {"starttls": "starttls", "starttls-required": "starttls", "implicit": "smtps"}
KEEPING = {"eager": {}, "lazy": {"connect": "lazy"}, "reuse": {"reuse": True}, "lockstep": {"pace": "lockstep"}}
WRONG = {
    "wrong name": "the certificate is not for mail.example.org",
    "wrong CA": "certificate verify failed",
    "system CA": "certificate verify failed",
    "wrong pin": "is none of the pins",
}


@pytest.fixture(scope="module")
def way(postfix_doors: Postfix, lasting_pki: Any, server_pair: Any) -> Iterator[dict[str, Front]]:
    """A listener for each way of TLS with the Postfix behind, and for each mistake that can be met."""
    ports = postfix_doors.ports
    anchor, name = {"ca": str(lasting_pki.root.path)}, {"name": "mx.lab.test"}
    ours = lasting_pki.pair(["proxy.lab.test"], client=True)
    judged: dict[str, dict[str, Any]] = {
        "none": {"verify": "none"},
        "ca": {"verify": "ca", **anchor},
        "name": {"verify": "name", **anchor, **name},
        "address": {"verify": "name", **anchor},
        "pins": {"verify": "pins", "pins": [lasting_pki.pair().spki_pin, server_pair.spki_pin]},
        "itself": {"verify": "name", "ca": str(server_pair.cert), **name},
    }
    wrong: dict[str, dict[str, Any]] = {
        "wrong name": {"verify": "name", **anchor, "name": "mail.example.org"},
        "wrong CA": {"verify": "ca", "ca": str(lasting_pki.ca("Somebody else").path)},
        "system CA": {"verify": "ca", "ca": "system"},
        "wrong pin": {"verify": "pins", "pins": [lasting_pki.pair().spki_pin]},
    }
    ways = {
        f"{mode}-{kept}": Way(ports[door], {"tls": {"mode": mode, **judged["name"]}, **settings})
        for mode, door in MODES.items()
        for kept, settings in KEEPING.items()
    }
    for kind, door in (("starttls-required", "starttls"), ("implicit", "smtps")):
        for check, settings in (judged | wrong).items():
            ways[f"{kind}-{check.replace(' ', '-')}"] = Way(ports[door], {"tls": {"mode": kind, **settings}})
    ways["offered"] = Way(postfix_doors.port, {"tls": {"mode": "starttls", **judged["name"]}})
    ways["required"] = Way(postfix_doors.port, {"tls": {"mode": "starttls-required", **judged["name"]}})
    certificate = {"cert": str(ours.cert), "key": str(ours.key)}
    shows = {"mode": "starttls-required", **judged["name"], "certificate": certificate}
    ways["shows"] = Way(ports["certificates"], {"tls": shows})
    introduced = {"tls": {"mode": "starttls-required", **judged["name"]}, "client_name": "unavailable"}
    ways["introduced"] = Way(ports["starttls-xclient"], introduced, {"recipient_domains": None})
    ways["modern"] = Way(ports["starttls"], {"tls": {"mode": "starttls", **judged["name"], "profile": "modern"}})
    ways["old"] = Way(ports["starttls"], {"tls": {"mode": "starttls", **judged["name"], "versions": ["TLSv1.2"]}})
    with fronts(ways) as made:
        yield made


def received(postfix: Postfix, message: Sample) -> bytes:
    """The Received header that Postfix put on top of a message."""
    (copy,) = [copy for copy in postfix.delivered() if copy.header(b"X-Token") == message.token.encode()]
    return copy.content.split(b"\nReceived:", 1)[1].split(b"\nFrom:")[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kept", KEEPING)
def test_mail_by_tls(postfix_doors: Postfix, way: dict[str, Front], mode: str, kept: str) -> None:
    """Polite and in one flight, twice each: Postfix's own header says that it came by TLS 1.3."""
    for _ in range(2):
        messages = [sample(), sample(size=200_000)]
        post(way[f"{mode}-{kept}"].port, messages[0])
        assert send_at_once(way[f"{mode}-{kept}"].port, burst(messages[1]))[1] == EARLY_REPLIES
        for message in messages:
            assert_intact(postfix_doors.delivered(), message)
            assert b"(using TLSv1.3 with cipher" in received(postfix_doors, message)


@pytest.mark.parametrize("kind", ["starttls-required", "implicit"])
@pytest.mark.parametrize("check", ["none", "ca", "name", "address", "pins", "itself"])
def test_the_right_server(postfix_doors: Postfix, way: dict[str, Front], kind: str, check: str) -> None:
    """Whatever is looked at: its CA, its name, its address, its key, or its very certificate as the CA."""
    message = sample()
    assert send_at_once(way[f"{kind}-{check}"].port, burst(message))[1] == EARLY_REPLIES
    assert_intact(postfix_doors.delivered(), message)
    assert b"(using TLSv1.3 with cipher" in received(postfix_doors, message)


@pytest.mark.parametrize("kind", ["starttls-required", "implicit"])
@pytest.mark.parametrize("check", WRONG)
def test_the_wrong_server(postfix_doors: Postfix, way: dict[str, Front], kind: str, check: str) -> None:
    """It never gets a command; the client is told to come again, and the log why."""
    front = way[f"{kind}-{check.replace(' ', '-')}"]
    watch = front.watch()
    message = sample()
    answers = send_at_once(front.port, burst(message))[1]
    assert answers[-1] == 421
    assert max(answers[:-1], default=220) == 220
    server, none_left = watch.several("backend_failed", 2)
    assert WRONG[check] in server["why"]
    assert none_left["why"] == "no server is left to try"
    assert_intact(postfix_doors.delivered(), message, ())
    assert message.token not in postfix_doors.log()


def test_a_server_without_tls(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    """`starttls` goes on in clear, `starttls-required` does not."""
    message = sample()
    assert send_at_once(way["offered"].port, burst(message))[1] == EARLY_REPLIES
    assert_intact(postfix_doors.delivered(), message)
    assert b"TLS" not in received(postfix_doors, message)
    watch = way["required"].watch()
    message = sample()
    assert send_at_once(way["required"].port, burst(message))[1][-1] == 421
    assert watch.several("backend_failed", 2)[0]["why"] == "backend does not offer STARTTLS"
    assert_intact(postfix_doors.delivered(), message, ())


@pytest.mark.parametrize("mode", MODES)
def test_sessions_are_resumed(postfix_doors: Postfix, way: dict[str, Front], mode: str) -> None:
    """Each connection after the first; Postfix's log shows it."""
    front = way[f"{mode}-eager"]
    send_at_once(front.port, hello(sample()))
    for _ in range(2):
        before = len(postfix_doors.log())
        message = sample()
        post(front.port, message)
        assert_intact(postfix_doors.delivered(), message)
        postfix_doors.arrival(message)
        assert re.search(
            r"smtpd\[\d+\]: unknown\[127\.0\.0\.1\]:\d+: Reusing old session", postfix_doors.log()[before:]
        )


def test_postfix_sees_our_certificate(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    message = sample()
    assert send_at_once(way["shows"].port, burst(message))[1] == EARLY_REPLIES
    header = received(postfix_doors, message)
    assert b'(Client CN "proxy.lab.test", Issuer "Test CA" (verified OK))' in header
    assert "Trusted TLS connection established from unknown[127.0.0.1]" in postfix_doors.log()


def test_xclient_inside_tls(postfix_doors: Postfix, way: dict[str, Front]) -> None:
    """STARTTLS, then XCLIENT: Postfix judges by the client, and still shows its TLS with us."""
    for source, expected in ((FRIEND, 250), (STRANGER, 554)):
        message = sample()
        octets = burst(message, "somebody@foreign.test", RECIPIENT)
        port, answers = send_at_once(way["introduced"].port, octets, source=source)
        assert answers == [220, 250, 250, expected, 250, 250, 221]
        assert postfix_doors.arrival(message) == f"unknown[{source}]:{port}"


@pytest.mark.parametrize(("name", "version"), [("modern", b"TLSv1.3"), ("old", b"TLSv1.2")])
def test_the_version_is_ours_to_choose(
    postfix_doors: Postfix, way: dict[str, Front], name: str, version: bytes
) -> None:
    message = sample()
    assert send_at_once(way[name].port, burst(message))[1] == EARLY_REPLIES
    assert b"(using %s with cipher" % version in received(postfix_doors, message)
