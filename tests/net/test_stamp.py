"""The trace header on top of a message (RFC 5321, 4.4; RFC 5322, 3.6.7)."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.net.stamp import received
from smtpproxy.session.relay import Relay

from .stage import CLIENT, EHLO_REPLY, Stage
from .tlsstage import SecureClient, TlsScene

GREETING = b"220 mx.example.org ESMTP\r\n"
NOW = 1_763_800_000.0
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\n"
MESSAGE = b"Subject: x\r\n\r\ntext\r\n"
ON: dict[str, Any] = {"trace_header": True}

# The grammar of RFC 5322, without its obsolete forms.
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_DOT_ATOM = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
_FWS = r"(?:(?:[ \t]*\r\n)?[ \t]+)"
_COMMENT = rf"\((?:{_FWS}?[!-'*-\[\]-~])*{_FWS}?\)"
_CFWS = rf"(?:(?:{_FWS}?{_COMMENT})+{_FWS}?|{_FWS})"
_LITERAL = rf"\[(?:{_FWS}?[!-Z^-~])*{_FWS}?\]"
_QUOTED = rf'"(?:{_FWS}?(?:[!#-\[\]-~]|\\[ -~]))*{_FWS}?"'
_DOMAIN = rf"(?:{_DOT_ATOM}|{_LITERAL})"
_ADDRESS = rf"(?:{_DOT_ATOM}|{_QUOTED})@{_DOMAIN}"
_TOKEN = rf"(?:<{_ADDRESS}>|{_ADDRESS}|{_DOMAIN}|{_QUOTED})"
_DATE = r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}"
RECEIVED = re.compile(rf"Received:{_CFWS}?{_TOKEN}(?:{_CFWS}{_TOKEN})*{_CFWS}?;{_CFWS}{_DATE}\r\n")


def assert_legal(header: bytes) -> str:
    """Check the whole of it against the grammar; give it in one line."""
    text = header.decode("ascii")
    assert RECEIVED.fullmatch(text), text
    assert all(len(line) <= 998 for line in text.split("\r\n"))
    parsed = email.message_from_bytes(header + b"Subject: x\r\n\r\n", policy=email.policy.SMTP)
    assert (parsed.keys(), parsed.defects) == (["Received", "Subject"], [])
    assert parsedate_to_datetime(text.rpartition(";")[2].strip()).timestamp() == NOW
    return text.replace("\r\n\t", " ").rstrip("\r\n")


def stamped(play: Stage, address: str, heard: bytes = b"EHLO client.example\r\n") -> str:
    """The header of a client at that address that has said so, found to be legal."""
    session = play.client(address).session
    session.relay.heard = heard
    return assert_legal(received(session, NOW))


def test_what_it_says(stage: Callable[..., Stage]) -> None:
    play = stage()
    text = stamped(play, CLIENT)
    number = next(iter(each.number for each in play.sweep if hasattr(each, "number")))
    assert text.startswith(
        "Received: from client.example ([192.0.2.9]) by proxy.example.org (smtpproxy, listener mx) with ESMTP "
        f"id {number}; "
    )


@pytest.mark.parametrize(
    ("address", "literal"),
    [
        ("2001:db8::9", "([IPv6:2001:db8::9])"),
        ("fe80::1%eth0", "([IPv6:fe80::1])"),
        ("", "(local socket)"),
    ],
)
def test_where_the_client_is(stage: Callable[..., Stage], address: str, literal: str) -> None:
    assert f" from client.example {literal} by " in stamped(stage(), address)


@pytest.mark.parametrize(
    ("heard", "name", "protocol"),
    [
        (b"HELO client.example\r\n", "client.example", "SMTP"),
        (b"ehlo [192.0.2.9]\r\n", "[192.0.2.9]", "ESMTP"),
        (b"EHLO [IPv6:2001:db8::9] \r\n", "[IPv6:2001:db8::9]", "ESMTP"),
        (b"EHLO x_y\r\n", "x_y", "ESMTP"),
        (b"EHLO x (y)\r\n", "unknown", "ESMTP"),
        (b'EHLO "x\r\n', "unknown", "ESMTP"),
        (b"EHLO [x\r\n", "unknown", "ESMTP"),
        (b"EHLO <x\r\n", "unknown", "ESMTP"),
        (b"EHLO x;y\r\n", "unknown", "ESMTP"),
        (b"EHLO \r\n", "unknown", "ESMTP"),
        (b"EHLO caf\xc3\xa9\r\n", "unknown", "ESMTP"),
        (b"", "unknown", "SMTP"),
    ],
)
def test_what_the_client_said(stage: Callable[..., Stage], heard: bytes, name: str, protocol: str) -> None:
    text = stamped(stage(), CLIENT, heard)
    assert text.startswith(f"Received: from {name} ([192.0.2.9]) by proxy.example.org ")
    assert f" with {protocol} id " in text


def test_it_is_legal_whatever_the_client_calls_itself(stage: Callable[..., Stage]) -> None:
    session = stage().client().session
    printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=300).map(str.encode)

    @given(st.one_of(printable, st.binary(max_size=40), st.from_regex(rb'[a.@"<>\[\]():;,\\-]{0,6}', fullmatch=True)))
    def check(name: bytes) -> None:
        session.relay.heard = b"EHLO " + name.replace(b"\r\n", b"") + b"\r\n"
        text = assert_legal(received(session, NOW))
        assert text.count("; ") == 1
        assert text.index(" by proxy.example.org (smtpproxy, listener mx) ") > 0

    check()


@pytest.mark.parametrize("authenticated", [True, False])
@pytest.mark.parametrize("mode", ["implicit", "starttls"])
def test_inside_tls_it_says_so(stage: Callable[..., Stage], pki: Any, mode: str, *, authenticated: bool) -> None:
    play = TlsScene(stage, pki).stage(mode)
    client = SecureClient(play)
    if mode == "starttls":
        play.answer(GREETING)
        client.take()
        client.ask_for_tls()
    client.handshake()
    relay: Relay = client.session.relay
    relay.heard, relay.authenticated = b"EHLO client.example\r\n", authenticated
    text = assert_legal(received(client.session, NOW))
    assert f" with ESMTPS{'A' if authenticated else ''} id {client.session.number} (TLSv1.3 TLS_" in text


# --- on a message ---------------------------------------------------------------------------------------------------


def sent_on(play: Stage, client: Any, verb: str, reply: bytes = EHLO_REPLY) -> bytes:
    """Bring a message to the server; give what that got."""
    client.send(b"EHLO client.example\r\n")
    play.answer(reply)
    client.send(ENVELOPE)
    play.answer(b"250 ok\r\n250 ok\r\n")
    if verb == "DATA":
        client.send(b"DATA\r\n")
        play.answer(b"354 go\r\n")
        client.send(MESSAGE + b".\r\n")
    else:
        half = len(MESSAGE) // 2
        client.send(b"BDAT %d\r\n" % half + MESSAGE[:half])
        if b"CHUNKING" not in reply:
            play.answer(b"354 go\r\n")
        first = play.dialler.wires[-1].take()
        if b"CHUNKING" in reply:
            play.answer(b"250 ok\r\n")
        client.send(b"BDAT %d LAST\r\n" % (len(MESSAGE) - half) + MESSAGE[half:])
        return first + play.asked()
    return play.asked()


@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
def test_it_stands_on_top_and_the_message_is_as_it_was(stage: Callable[..., Stage], verb: str) -> None:
    play = stage(listener=ON)
    client = play.greeted()
    got = sent_on(play, client, verb)
    header, subject, rest = got.partition(b"Subject: ")
    assert header.startswith(b"Received: from client.example ([192.0.2.9])\r\n\t")
    assert header.endswith(b"\r\n")
    assert header.count(b"Received: ") == 1
    assert subject + rest == MESSAGE + b".\r\n"
    client.vanish()


def test_a_chunk_counts_it(stage: Callable[..., Stage]) -> None:
    play = stage(listener=ON)
    client = play.greeted()
    got = sent_on(play, client, "BDAT", b"250-mx.example.org\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
    command, _, rest = got.partition(b"\r\n")
    size = int(command.split()[1])
    assert rest[:10] == b"Received: "
    assert rest[size:].startswith(b"BDAT %d LAST\r\n" % (len(MESSAGE) - len(MESSAGE) // 2))
    assert rest[:size].endswith(MESSAGE[: len(MESSAGE) // 2])
    client.vanish()


@pytest.mark.parametrize("verb", ["DATA", "BDAT"])
def test_without_it_not_one_octet_is_changed(stage: Callable[..., Stage], verb: str) -> None:
    play = stage()
    client = play.greeted()
    assert sent_on(play, client, verb) == MESSAGE + b".\r\n"
    client.vanish()
