"""The legacy MTA's answers to single commands."""

import pytest

from smtpproxy.ops.demo.legacy_commands import SIZE_LIMIT, LegacyCommands


def codes(*lines: bytes) -> list[int]:
    """Return the reply codes to `lines`, sent one after the other in one session."""
    commands = LegacyCommands()
    return [commands.answer(line).code for line in lines]


def test_ehlo_offers_size_and_8bitmime_and_nothing_that_is_newer() -> None:
    wire = LegacyCommands().answer(b"EHLO client.example").wire
    assert wire == b"250-legacy.demo.example\r\n250-SIZE 52428800\r\n250 8BITMIME\r\n"


def test_a_mail_transaction_with_verbs_in_any_case_and_parameters() -> None:
    assert codes(
        b"helo client.example",
        b"mail FROM:<a@client.example> SIZE=12 BODY=8BITMIME",
        b"Rcpt to:<USER@Demo.Example>",
        b"RCPT TO:<b@demo.example>",
        b"DATA",
    ) == [250, 250, 250, 250, 354]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"EHLO", 501),
        (b"MAIL FROM:a@b", 501),
        (b"MAIL FROM:<a@b> SIZE=%d" % (SIZE_LIMIT + 1), 552),
        (b"RCPT TO:<user@demo.example>", 503),
        (b"DATA", 503),
        (b"NOOP", 250),
        (b"VRFY user", 252),
        (b"RSET", 250),
        (b"BDAT 5 LAST", 500),
        (b"STARTTLS", 500),
        (b"\xff", 500),
        (b"QUIT", 221),
    ],
)
def test_single_commands_behind_ehlo(line: bytes, code: int) -> None:
    assert codes(b"EHLO client.example", line) == [250, code]


def test_order_of_commands() -> None:
    hello, mail = b"EHLO client.example", b"MAIL FROM:<>"
    assert codes(mail) == [503]
    assert codes(hello, mail, mail) == [250, 250, 503]
    assert codes(hello, mail, b"DATA") == [250, 250, 503]
    assert codes(hello, mail, b"RSET", mail) == [250, 250, 250, 250]


def test_recipients_of_other_domains_are_refused() -> None:
    lines = b"RCPT TO:<user@other.example>", b"RCPT TO:<user@notdemo.example>", b"RCPT TO:user@demo.example"
    assert codes(b"EHLO c", b"MAIL FROM:<>", *lines)[2:] == [550, 550, 501]


def test_finish_ends_the_transaction() -> None:
    commands = LegacyCommands()
    for line in (b"EHLO c", b"MAIL FROM:<a@b>", b"RCPT TO:<user@demo.example>"):
        commands.answer(line)
    envelope = commands.finish()
    assert (envelope.sender, envelope.recipients) == ("a@b", ["user@demo.example"])
    assert commands.envelope is None
    with pytest.raises(RuntimeError):
        commands.finish()
