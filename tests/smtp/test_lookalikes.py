"""Messages whose text a server could take for commands (C8): they do not go into the first flight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.smtp.commands import VERBS
from smtpproxy.smtp.lookalikes import holds_commands

from .pieces import streams_of

VERBS_ANYWHERE = (
    b"DATA", b"MAIL", b"RCPT", b"BDAT", b"RSET", b"EHLO", b"HELO", b"LHLO", b"QUIT", b"NOOP", b"VRFY", b"EXPN", b"HELP",
    b"STARTTLS", b"AUTH", b"ETRN", b"TURN", b"SEND", b"SOML", b"SAML", b"XCLIENT", b"XFORWARD", b"BURL", b"ATRN",
)  # fmt: skip
SPARED = (b"authentication-results:", b"mailing-list:", b"mail-followup-to:", b"mail-reply-to:", b"sender:")
HEADER = b"Received: from a.example\r\n\tby b.example; Sun, 1 Nov 2026 10:00:00 +0000\r\nFrom: a@b.example\r\n"

each_verb = pytest.mark.parametrize("verb", VERBS_ANYWHERE)


def model(message: bytes) -> bool:
    """Slow, and in the words of rule C8."""
    lines = message.lower().replace(b"\r", b"\n").split(b"\n")
    starts = [line.lstrip(b" \t\v\f") for line in lines]
    verbs = tuple(verb.lower() for verb in VERBS_ANYWHERE)
    return any(start.startswith(verbs) and not start.startswith(SPARED) for start in starts)


def test_c8_every_verb_that_we_know_is_looked_for() -> None:
    assert set(VERBS) <= set(VERBS_ANYWHERE)


@each_verb
@pytest.mark.parametrize("before", [b"", HEADER + b"\r\n", b"a\n", b"a\r", b"a\r\r\n\r\n", b"a\n\r"])
@pytest.mark.parametrize("blanks", [b"", b" ", b"\t", b"\v\f \t"])
def test_c8_a_verb_at_the_start_of_a_line(verb: bytes, before: bytes, blanks: bytes) -> None:
    for written in (verb, verb.lower(), verb.title(), verb.swapcase()):
        assert holds_commands(before + blanks + written)
        assert holds_commands(before + blanks + written + b" FROM:<a@b.example>\r\nmore\r\n")
        assert holds_commands(before + blanks + written + b"x\r\n")  # some servers look at four letters


@each_verb
def test_c8_a_verb_anywhere_else(verb: bytes) -> None:
    for before in (b"x", b"> ", b"a b ", b".", b"\0", b"\xc2\xa0"):
        assert not holds_commands(before + verb + b"\r\n")
        assert not holds_commands(b"Subject: a\r\n" + before + verb + b"\r\n")
    assert not holds_commands(verb[:-1] + b"\r\n" + verb[-1:])


@pytest.mark.parametrize("field", SPARED)
def test_c8_header_fields_that_nearly_every_message_has(field: bytes) -> None:
    for written in (field, field.title(), field.upper()):
        assert not holds_commands(HEADER + written + b" x@y.example\r\n\r\ntext\r\n")
        assert not holds_commands(written)
        assert holds_commands(HEADER + written[:-1] + b" x\r\n")
    assert holds_commands(field + b" a\r\nDATA\r\n")


def test_c8_plain_messages() -> None:
    assert not holds_commands(b"")
    assert not holds_commands(HEADER + b"Subject: DATA and MAIL\r\n\r\nDear all,\r\n\r\nno command here.\r\n")


@given(
    streams_of(
        (
            b"\r",
            b"\n",
            b"\r\n",
            b" ",
            b"\t",
            b"\f",
            b"x",
            b"DATA",
            b"da",
            b"ta",
            b"Send",
            b"Sender:",
            b"er:",
            b"AUTH",
            b"q",
        ),
        14,
    )
)
def test_c8_random_lines(message: bytes) -> None:
    assert holds_commands(message) == model(message)


@given(st.binary(max_size=200), st.sampled_from(VERBS_ANYWHERE), st.sampled_from((b"\r", b"\n", b"\r\n")))
def test_c8_any_octets_at_all(text: bytes, verb: bytes, ending: bytes) -> None:
    assert holds_commands(text) == model(text)
    assert holds_commands(text + ending + verb + text) == model(text + ending + verb + text)
