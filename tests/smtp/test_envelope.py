"""MAIL and RCPT of a client, judged and made anew for a remote (RFC 5321, 4.1.2, and the extensions' RFCs; C3)."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.smtp.envelope import (
    BAD_RECIPIENT,
    BAD_SENDER,
    MAX_PATH,
    NEEDS_SMTPUTF8,
    NO_BINARYMIME,
    NO_SMTPUTF8,
    REPEATED_PARAMETER,
    TOO_BIG,
    UNKNOWN_PARAMETER,
    Mail,
    Rcpt,
    Refusal,
    extensions_needed,
    mail_line,
    parse_mail,
    parse_rcpt,
    rcpt_line,
)
from smtpproxy.smtp.offer import Offer
from smtpproxy.smtp.paths import parameters, recipient_domain

EVERYTHING = frozenset({b"SIZE", b"8BITMIME", b"SMTPUTF8", b"DSN", b"CHUNKING", b"BINARYMIME"})
REMOTE = Offer((b"SIZE 1000", b"8BITMIME", b"SMTPUTF8", b"DSN", b"CHUNKING", b"BINARYMIME"))
REPLIES = (
    BAD_SENDER, BAD_RECIPIENT, NEEDS_SMTPUTF8, UNKNOWN_PARAMETER, REPEATED_PARAMETER, TOO_BIG, NO_BINARYMIME,
    NO_SMTPUTF8,
)  # fmt: skip


def mail(argument: bytes, offered: frozenset[bytes] = EVERYTHING) -> Mail:
    parsed = parse_mail(argument, offered)
    assert isinstance(parsed, Mail), parsed
    return parsed


def rcpt(argument: bytes, *, smtputf8: bool = False) -> Rcpt:
    parsed = parse_rcpt(argument, EVERYTHING, smtputf8=smtputf8)
    assert isinstance(parsed, Rcpt), parsed
    return parsed


def test_every_reply_is_a_whole_one() -> None:
    assert len(set(REPLIES)) == len(REPLIES)
    for reply in REPLIES:
        assert re.fullmatch(rb"(5)\d\d \1\.\d\.\d+ [ -~]+\r\n", reply)


# --- RFC 5321, 4.1.2: paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "path"),
    [
        (b"FROM:<>", b"<>"),
        (b"from:<a@b.example>", b"<a@b.example>"),
        (b"From: <a@b.example>", b"<a@b.example>"),
        (b"FROM:\t<A.b+c@B.Example>", b"<A.b+c@B.Example>"),
        (b"FROM:<list-return-1-user=b.example@lists.example>", b"<list-return-1-user=b.example@lists.example>"),
        (b"FROM:<a%b!c@b.example>", b"<a%b!c@b.example>"),
        (b'FROM:<"a b"@b.example>', b'<"a b"@b.example>'),
        (b'FROM:<"a\\"@\\\\>"@b.example>', b'<"a\\"@\\\\>"@b.example>'),
        (b'FROM:<""@b.example>', b'<""@b.example>'),
        (b"FROM:<a@[192.0.2.1]>", b"<a@[192.0.2.1]>"),
        (b"FROM:<a@[IPv6:2001:db8::1]>", b"<a@[IPv6:2001:db8::1]>"),
        (b"FROM:<..a..@b_c.example>", b"<..a..@b_c.example>"),
        (b"FROM:<a@localhost>", b"<a@localhost>"),
    ],
)
def test_rfc5321_senders(argument: bytes, path: bytes) -> None:
    assert mail(argument).path == path
    assert mail(argument + b" SIZE=1").path == path
    assert mail_line(mail(argument), REMOTE, None) == b"MAIL FROM:" + path + b"\r\n"


@pytest.mark.parametrize(
    "argument",
    [
        b"", b"FROM:", b"<a@b.example>", b"TO:<a@b.example>", b"FROM <a@b.example>", b"FROM :<a@b.example>",
        b"FROM:a@b.example", b"FROM:<a@b.example", b"FROM:a@b.example>", b"FROM:<<a@b.example>>", b"FROM:< >",
        b"FROM:<a@b.example>>", b"FROM:<a@b.example>SIZE=1", b"FROM:<>SIZE=1", b"FROM:<a>", b"FROM:<postmaster>",
        b"FROM:<a@>", b"FROM:<@b.example>", b"FROM:<a@b@c.example>", b"FROM:<@c.example:a@b.example>",
        b"FROM:<a b@c.example>", b"FROM:<a@b c.example>", b"FROM:<a@b.example.>", b"FROM:<a@.b.example>",
        b"FROM:<a@b..example>", b'FROM:<"a@b.example>', b'FROM:<"a"b"@c.example>', b'FROM:<"a\\"@b.example>',
        b"FROM:<a\\b@c.example>", b"FROM:<a(b)@c.example>", b"FROM:<a,b@c.example>", b"FROM:<a@b,c.example>",
        b"FROM:<a@[]>", b"FROM:<a@[192.0.2.1>", b"FROM:<a@192.0.2.1]>", b"FROM:<a@b.example> \n", b"X FROM:<>",
        b"FROM:<a\0@b.example>", b'FROM:<"a\0"@b.example>', b'FROM:<"a\x7f"@b.example>', b'FROM:<"\\\n"@b.example>',
        b"FROM:<a\r\nRSET@b.example>", b"FROM:<a@b.example\x1b>", b"FROM:<\xff@b.example>", b"FROM:<a@\xc3.example>",
    ],
)  # fmt: skip
def test_rfc5321_bad_senders(argument: bytes) -> None:
    assert parse_mail(argument, EVERYTHING) == BAD_SENDER
    assert parse_mail(argument + b" SMTPUTF8", EVERYTHING) == BAD_SENDER


@pytest.mark.parametrize(
    ("argument", "path", "domain"),
    [
        (b"TO:<a@b.example>", b"<a@b.example>", "b.example"),
        (b"to: <A@B.Example>", b"<A@B.Example>", "b.example"),
        (b"TO:<Postmaster>", b"<Postmaster>", "postmaster"),
        (b"TO:<a@[192.0.2.1]>", b"<a@[192.0.2.1]>", "[192.0.2.1]"),
        (b"TO:<a@[IPv6:2001:DB8::1]>", b"<a@[IPv6:2001:DB8::1]>", "[ipv6:2001:db8::1]"),
        (b'TO:<"a b"@c.example>', b'<"a b"@c.example>', "c.example"),
        (b"TO:<a..b.@c.example>", b"<a..b.@c.example>", "c.example"),
        (b"TO:<a%c.example@b.example>", b"<a%c.example@b.example>", "b.example"),
        (b"TO:<c.example!a@b.example>", b"<c.example!a@b.example>", "b.example"),
        (b'TO:<"a@c.example"@b.example>', b'<"a@c.example"@b.example>', "b.example"),
        (b'TO:<"a\\b"@c.example>', b'<"a\\b"@c.example>', "c.example"),
    ],
)
def test_rfc5321_recipients(argument: bytes, path: bytes, domain: str) -> None:
    recipient = rcpt(argument)
    assert (recipient.path, recipient.domain) == (path, domain)
    assert rcpt_line(recipient, REMOTE) == b"RCPT TO:" + path + b"\r\n"


@pytest.mark.parametrize(
    "argument",
    [
        b"", b"TO:", b"TO:<>", b"FROM:<a@b.example>", b"TO:a@b.example", b"TO:<a>", b"TO:<postmaster@>",
        b"TO:<a@b.example", b"TO:<<a@b.example>>", b"TO:<a@b.example>X", b"TO:<a@b.example> \n", b"TO:<a@b.example.>",
        b"TO:<a@.b.example>", b"TO:<a@b..example>", b"TO:<@c.example:a@b.example>", b"TO:<a@b@c.example>",
        b"TO:<a\0@b.example>", b"TO:<a\r\nDATA@b.example>", b"TO:<\xff@b.example>",
        "TO:<a@\N{KELVIN SIGN}.example>".encode(),
    ],
)  # fmt: skip
def test_s14_recipients_that_servers_read_differently(argument: bytes) -> None:
    for smtputf8 in (False, True):
        assert parse_rcpt(argument, EVERYTHING, smtputf8=smtputf8) == BAD_RECIPIENT


def test_rfc5321_4_5_3_1_a_path_is_bounded() -> None:
    longest = b"<" + b"a" * (MAX_PATH - 12) + b"@b.example>"
    assert len(longest) == MAX_PATH
    for line in (mail_line(mail(b"FROM:" + longest), REMOTE, None), rcpt_line(rcpt(b"TO:" + longest), REMOTE)):
        assert isinstance(line, bytes)
        assert len(line) <= 512
    longer = longest.replace(b"@", b"a@")
    assert parse_mail(b"FROM:" + longer, EVERYTHING) == BAD_SENDER
    assert parse_rcpt(b"TO:" + longer, EVERYTHING, smtputf8=False) == BAD_RECIPIENT


# --- RFC 6531: internationalised addresses ----------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["jörg@b.example", "a@bücher.example", '"ö ä"@b.example'])
def test_rfc6531_an_address_beyond_ascii_needs_smtputf8(address: str) -> None:
    path = f"<{address}>".encode()
    assert parse_mail(b"FROM:" + path, EVERYTHING) == NEEDS_SMTPUTF8
    assert parse_mail(b"FROM:" + path + b" BODY=8BITMIME", EVERYTHING) == NEEDS_SMTPUTF8
    sender = mail(b"FROM:" + path + b" smtputf8")
    assert sender.smtputf8
    assert mail_line(sender, REMOTE, None) == b"MAIL FROM:" + path + b" SMTPUTF8\r\n"
    assert parse_rcpt(b"TO:" + path, EVERYTHING, smtputf8=False) == NEEDS_SMTPUTF8
    assert rcpt_line(rcpt(b"TO:" + path, smtputf8=True), REMOTE) == b"RCPT TO:" + path + b"\r\n"


@pytest.mark.parametrize("path", [b"<>", b"<a@b.example>", "<ö@b.example>".encode()])
def test_rfc6531_3_6_a_remote_without_smtputf8_is_refused(path: bytes) -> None:
    """In ASCII too: the header may need it."""
    sender = mail(b"FROM:" + path + b" SMTPUTF8")
    assert mail_line(sender, Offer((b"8BITMIME", b"DSN")), None) == Refusal(NO_SMTPUTF8)


# --- RFC 5321, 4.1.1.11: parameters -----------------------------------------------------------------------------------

OF_MAIL = {
    b"SIZE=0": b"SIZE",
    b"size=12345678901234567890": b"SIZE",
    b"BODY=7BIT": b"8BITMIME",
    b"BODY=8bitmime": b"8BITMIME",
    b"SMTPUTF8": b"SMTPUTF8",
    b"RET=FULL": b"DSN",
    b"Ret=hdrs": b"DSN",
    b"ENVID=QQ314159+20=x": b"DSN",
    b"ENVID=" + b"e" * 100: b"DSN",
}
OF_RCPT = {
    b"NOTIFY=NEVER": b"DSN",
    b"notify=success": b"DSN",
    b"NOTIFY=SUCCESS,failure,DELAY": b"DSN",
    b"ORCPT=rfc822;a+2Bb@c.example": b"DSN",
    b"ORCPT=rfc822;a=b@c.example": b"DSN",
    b"ORCPT=rfc822;" + b"o" * 436: b"DSN",
}
MALFORMED = [
    b"SIZE", b"SIZE=", b"SIZE=-1", b"SIZE=1k", b"SIZE=123456789012345678901", b"BODY", b"BODY=", b"BODY=9BIT",
    b"BODY=8BITMIME=", b"SMTPUTF8=", b"SMTPUTF8=1", b"RET=", b"RET=ALL", b"RET=FULL,HDRS", b"ENVID=", b"ENVID",
    b"ENVID=" + b"e" * 101, b"ENVID=a+2", b"ENVID=\xc3\xa9", b"ENVID=a\0b", b"AUTH", b"AUTH=", b"AUTH=+zz",
    b"AUTH=" + b"a" * 501, b"REQUIRETLS", b"MT-PRIORITY=3", b"BY=120;R", b"HOLDFOR=60", b"X", b"=", b"=1",
    b"NOTIFY=NEVER", b"ORCPT=rfc822;a@b.example", b"TO:<a@b.example>", b"<a@b.example>",
]  # fmt: skip
MALFORMED_OF_RCPT = [
    b"NOTIFY", b"NOTIFY=", b"NOTIFY=NEVER,SUCCESS", b"NOTIFY=SUCCESS,", b"NOTIFY=,SUCCESS", b"NOTIFY=ALWAYS",
    b"NOTIFY=SUCCESS,FAILURE,DELAY,DELAY", b"ORCPT", b"ORCPT=", b"ORCPT=rfc822", b"ORCPT=rfc822;",
    b"ORCPT=;a@b.example",
    b"ORCPT=rfc822;a\0", b"ORCPT=rfc822;" + b"o" * 437, b"ORCPT=utf-8;\xff", "ORCPT=utf-8;ö@b.example".encode(),
    b"SIZE=1", b"BODY=8BITMIME", b"SMTPUTF8", b"RET=FULL", b"ENVID=1", b"AUTH=<>", b"REQUIRETLS", b"RRVS=2026",
]  # fmt: skip


@pytest.mark.parametrize(("parameter", "extension"), OF_MAIL.items())
def test_a_parameter_of_mail_passes_where_the_extension_was_offered(parameter: bytes, extension: bytes) -> None:
    argument = b"FROM:<a@b.example> " + parameter
    keyword, _, value = parameter.partition(b"=")
    assert mail(argument).parameters == mail(argument, frozenset({extension})).parameters == [(keyword.upper(), value)]
    assert parse_mail(argument, EVERYTHING - {extension}) == UNKNOWN_PARAMETER
    assert parse_mail(argument, frozenset()) == UNKNOWN_PARAMETER


@pytest.mark.parametrize(("parameter", "extension"), OF_RCPT.items())
def test_a_parameter_of_rcpt_passes_where_the_extension_was_offered(parameter: bytes, extension: bytes) -> None:
    argument = b"TO:<a@b.example> " + parameter
    keyword, _, value = parameter.partition(b"=")
    assert rcpt(argument).parameters == [(keyword.upper(), value)]
    assert parse_rcpt(argument, EVERYTHING - {extension}, smtputf8=False) == UNKNOWN_PARAMETER
    assert rcpt_line(rcpt(argument), REMOTE) == b"RCPT TO:<a@b.example> " + keyword.upper() + b"=" + value + b"\r\n"


@pytest.mark.parametrize("parameter", MALFORMED, ids=repr)
def test_rfc5321_unknown_and_malformed_parameters_of_mail(parameter: bytes) -> None:
    for argument in (parameter, b"SIZE=1 " + parameter + b" BODY=7BIT"):
        assert parse_mail(b"FROM:<a@b.example> " + argument, EVERYTHING) == UNKNOWN_PARAMETER


@pytest.mark.parametrize("parameter", MALFORMED_OF_RCPT, ids=repr)
def test_rfc5321_unknown_and_malformed_parameters_of_rcpt(parameter: bytes) -> None:
    assert parse_rcpt(b"TO:<a@b.example> " + parameter, EVERYTHING, smtputf8=False) == UNKNOWN_PARAMETER


@pytest.mark.parametrize("parameter", [*OF_MAIL, b"BODY=BINARYMIME", b"AUTH=<>"])
def test_no_parameter_of_mail_twice(parameter: bytes) -> None:
    keyword = parameter.partition(b"=")[0]
    for again in (parameter, parameter.swapcase().replace(keyword.swapcase(), keyword.lower())):
        argument = b"FROM:<a@b.example> " + parameter + b"  " + again
        assert parse_mail(argument, EVERYTHING) == REPEATED_PARAMETER


@pytest.mark.parametrize("parameter", OF_RCPT)
def test_no_parameter_of_rcpt_twice(parameter: bytes) -> None:
    argument = b"TO:<a@b.example> " + parameter + b"\t" + parameter
    assert parse_rcpt(argument, EVERYTHING, smtputf8=False) == REPEATED_PARAMETER


def test_rfc6533_orcpt_beyond_ascii_needs_smtputf8() -> None:
    recipient = rcpt("TO:<a@b.example> ORCPT=utf-8;ö@b.example".encode(), smtputf8=True)
    assert rcpt_line(recipient, REMOTE) == "RCPT TO:<a@b.example> ORCPT=utf-8;ö@b.example\r\n".encode()
    assert parse_rcpt(b"TO:<a@b.example> ORCPT=utf-8;\xff", EVERYTHING, smtputf8=True) == UNKNOWN_PARAMETER


def test_a_bad_path_is_told_before_a_bad_parameter() -> None:
    assert parse_mail(b"FROM:<a> X", EVERYTHING) == BAD_SENDER
    assert parse_rcpt(b"TO:<a> X", EVERYTHING, smtputf8=False) == BAD_RECIPIENT


def test_what_a_mail_says() -> None:
    sender = mail(b"FROM:<a@b.example> body=8BitMime SIZE=77 SMTPUTF8")
    assert (sender.size, sender.body, sender.smtputf8) == (77, b"8BITMIME", True)
    assert sender.parameters == [(b"BODY", b"8BitMime"), (b"SIZE", b"77"), (b"SMTPUTF8", b"")]
    sender = mail(b"FROM:<>")
    assert (sender.size, sender.body, sender.smtputf8, sender.parameters) == (None, b"", False, [])


# --- RFC 1870: SIZE ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "octets", "offer", "line"),
    [
        (b"", None, b"SIZE 1000", b"MAIL FROM:<>\r\n"),
        (b" SIZE=1000", None, b"SIZE 1000", b"MAIL FROM:<> SIZE=1000\r\n"),
        (b" SIZE=1000", 999, b"SIZE 1000", b"MAIL FROM:<> SIZE=999\r\n"),
        (b" SIZE=9999", 999, b"SIZE 1000", b"MAIL FROM:<> SIZE=999\r\n"),
        (b"", 1000, b"SIZE 1000", b"MAIL FROM:<> SIZE=1000\r\n"),
        (b" SIZE=9999", None, b"SIZE", b"MAIL FROM:<> SIZE=9999\r\n"),
        (b" SIZE=9999", None, b"SIZE 0", b"MAIL FROM:<> SIZE=9999\r\n"),
        (b"", 0, b"SIZE", b"MAIL FROM:<> SIZE=0\r\n"),
        (b" SIZE=9999", None, b"DSN", b"MAIL FROM:<>\r\n"),
        (b" SIZE=9999", 9999, b"DSN", b"MAIL FROM:<>\r\n"),
        (b" SIZE=1001", None, b"SIZE 1000", None),
        (b"", 1001, b"SIZE 1000", None),
        (b" SIZE=1", 1001, b"SIZE 1000", None),
    ],
)
def test_rfc1870_size(declared: bytes, octets: int | None, offer: bytes, line: bytes | None) -> None:
    expected = Refusal(TOO_BIG) if line is None else line
    assert mail_line(mail(b"FROM:<>" + declared), Offer((offer,)), octets) == expected


# --- RFC 6152, RFC 3030: BODY -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"7BIT", b"8BITMIME"])
def test_rfc6152_body_is_left_out_for_a_remote_that_does_not_know_it(body: bytes) -> None:
    sender = mail(b"FROM:<> BODY=" + body)
    assert mail_line(sender, REMOTE, None) == b"MAIL FROM:<> BODY=" + body + b"\r\n"
    assert mail_line(sender, Offer((b"CHUNKING", b"BINARYMIME")), None) == b"MAIL FROM:<>\r\n"


def test_rfc3030_a_binary_message_needs_both_extensions_at_the_remote() -> None:
    sender = mail(b"FROM:<> BODY=binarymime")
    for lines in ((b"8BITMIME",), (b"8BITMIME", b"CHUNKING"), (b"8BITMIME", b"BINARYMIME")):
        assert mail_line(sender, Offer(lines), None) == Refusal(NO_BINARYMIME)
    assert mail_line(sender, Offer((b"CHUNKING", b"BINARYMIME")), None) == b"MAIL FROM:<> BODY=binarymime\r\n"


@pytest.mark.parametrize("missing", [b"CHUNKING", b"BINARYMIME", b"8BITMIME"])
def test_rfc3030_a_binary_message_needs_all_that_the_listener_must_offer(missing: bytes) -> None:
    assert parse_mail(b"FROM:<> BODY=BINARYMIME", EVERYTHING - {missing}) == UNKNOWN_PARAMETER


# --- RFC 3461: DSN; RFC 4954: AUTH= -----------------------------------------------------------------------------------


def test_rfc3461_dsn_is_left_out_for_a_remote_that_does_not_know_it() -> None:
    sender = mail(b"FROM:<a@b.example> RET=HDRS SIZE=5 ENVID=x")
    recipient = rcpt(b"TO:<a@b.example> NOTIFY=DELAY ORCPT=rfc822;c@d.example")
    assert mail_line(sender, REMOTE, None) == b"MAIL FROM:<a@b.example> RET=HDRS SIZE=5 ENVID=x\r\n"
    assert mail_line(sender, Offer((b"SIZE",)), None) == b"MAIL FROM:<a@b.example> SIZE=5\r\n"
    assert rcpt_line(recipient, REMOTE) == b"RCPT TO:<a@b.example> NOTIFY=DELAY ORCPT=rfc822;c@d.example\r\n"
    assert rcpt_line(recipient, Offer((b"SIZE",))) == b"RCPT TO:<a@b.example>\r\n"


@pytest.mark.parametrize("value", [b"<>", b"a+40b@c.example", b"a" * 500])
def test_rfc4954_auth_is_taken_and_never_passed_on(value: bytes) -> None:
    sender = mail(b"FROM:<a@b.example> AUTH=" + value, frozenset())
    assert mail_line(sender, Offer((b"AUTH PLAIN",)), None) == b"MAIL FROM:<a@b.example>\r\n"
    assert extensions_needed(sender, [], Offer((b"AUTH PLAIN",))) == frozenset()


# --- C3: what an assumption was made of -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "octets", "needed"),
    [
        (b"", None, set()),
        (b"", 5, {b"SIZE"}),
        (b" SIZE=5", None, {b"SIZE"}),
        (b" BODY=8BITMIME", None, {b"8BITMIME"}),
        (b" BODY=BINARYMIME", None, {b"BINARYMIME", b"CHUNKING"}),
        (b" SMTPUTF8", None, {b"SMTPUTF8"}),
        (b" RET=FULL ENVID=1", 5, {b"DSN", b"SIZE"}),
    ],
)
def test_c3_extensions_that_a_line_makes_use_of(argument: bytes, octets: int | None, needed: set[bytes]) -> None:
    sender = mail(b"FROM:<>" + argument)
    plain, marked = rcpt(b"TO:<a@b.example>"), rcpt(b"TO:<a@b.example> NOTIFY=NEVER")
    assert extensions_needed(sender, [plain], REMOTE, octets) == needed
    assert extensions_needed(sender, [plain, marked], REMOTE, octets) == needed | {b"DSN"}
    assert extensions_needed(mail(b"FROM:<>"), [marked], Offer((b"SIZE",))) == frozenset()


PARAMETERS = [*OF_MAIL, b"AUTH=<>", b"BODY=BINARYMIME"]
KEYWORDS = (b"SIZE 1000", b"8BITMIME", b"SMTPUTF8", b"DSN", b"CHUNKING", b"BINARYMIME")
offers = st.sets(st.sampled_from(KEYWORDS)).map(lambda lines: Offer(tuple(sorted(lines))))


@given(st.lists(st.sampled_from(PARAMETERS), max_size=4), offers, st.sampled_from((None, 0, 900, 1001)))
def test_c3_a_remote_gets_only_what_it_offers_and_the_same_again_from_a_richer_one(
    given_parameters: list[bytes], offer: Offer, octets: int | None
) -> None:
    sender = parse_mail(b" ".join([b"FROM:<a@b.example>", *given_parameters]), EVERYTHING)
    if isinstance(sender, bytes):
        assert sender == REPEATED_PARAMETER
        return
    line = mail_line(sender, offer, octets)
    if isinstance(line, Refusal):
        assert line.reply in REPLIES
        return
    needed = extensions_needed(sender, [], offer, octets)
    assert needed <= offer.keywords
    # A remote with no more than what is needed gets the very same line.
    assert mail_line(sender, Offer(tuple(sorted(needed))), octets) == line
    # The line is one that our own reading takes, and it comes out of it unchanged.
    again = mail(line[5:-2])
    assert mail_line(again, offer, octets) == line
    assert parameters(line[5:-2]) == again.parameters


# --- no control character, no unbounded line, whatever comes ----------------------------------------------------------

WORDS = (
    b"FROM:", b"TO:", b"<", b">", b"a@b.example", b"@", b'"', b"\\", b" ", b"\t", b"\r\n", b"\n", b"\0", b"\x1b",
    b"SIZE=1", b"SMTPUTF8", b"NOTIFY=NEVER", b"ORCPT=utf-8;", b"ENVID=", b"\xc3\xb6", b"\xff", b"=", b"%", b"[1.2.3.4]",
    b"x" * 300,
)  # fmt: skip
arguments = st.lists(st.sampled_from(WORDS), max_size=12).map(b"".join) | st.binary(max_size=60)
heads = st.sampled_from((b"", b"FROM:<a@b.example>", b"FROM:<a@b.example> ", b"TO:<a@b.example> ", b"TO:<", b"FROM:<"))


@given(heads, arguments)
def test_lines_hold_no_control_character_and_are_bounded(head: bytes, argument: bytes) -> None:
    sender = parse_mail(head + argument, EVERYTHING)
    recipient = parse_rcpt(head + argument, EVERYTHING, smtputf8=True)
    lines = [] if isinstance(sender, bytes) else [mail_line(sender, REMOTE, 7)]
    lines += [] if isinstance(recipient, bytes) else [rcpt_line(recipient, REMOTE)]
    for line in lines:
        assert isinstance(line, bytes)
        assert re.fullmatch(rb"(?:MAIL FROM|RCPT TO):<[^\x00-\x1f\x7f]*\r\n", line)
        assert len(line) <= 512 + 26 + 17 + 10 + 120 + 560
        line.decode("utf-8")
    for parsed in (sender, recipient):
        assert not isinstance(parsed, bytes) or parsed in REPLIES
    if isinstance(recipient, Rcpt):
        assert recipient.domain == recipient_domain(head + argument)


def test_hostile_arguments_take_no_more_than_linear_time() -> None:
    """Nothing here may back up over what it has read: these would take hours."""
    size = 60_000
    for filler in (b"a", b".", b"a.", b'"', b"\\\\", b"@", b"<", b" ", b"a@", b"a=b "):
        for start, end in itertools.product((b"FROM:<", b'FROM:<"', b"FROM:<a@", b"FROM:<a@b> "), (b"", b">", b'"')):
            argument = start + filler * (size // len(filler)) + end + b"\0"
            assert parse_mail(argument, EVERYTHING) in REPLIES
            argument = b"TO:" + argument[5:]
            assert parse_rcpt(argument, EVERYTHING, smtputf8=True) in REPLIES
