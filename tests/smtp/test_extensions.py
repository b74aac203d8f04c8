"""The EHLO reply: the backend's own, adapted (S1, S7, S9, S11)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.smtp.extensions import ExtensionPolicy, Extensions, extensions_used
from smtpproxy.smtp.paths import parameters

ALLOWED = ("SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "LIMITS", "AUTH", "BINARYMIME", "VRFY")
EARLY = ("PIPECONNECT", "PIPE_CONNECT")


def policy(
    *,
    allowed: tuple[str, ...] = ALLOWED,
    chunking: bool = True,
    message_size: int | None = None,
    recipients: int = 1000,
    auth: bool = True,
    also: tuple[bytes, ...] = (),
) -> ExtensionPolicy:
    return ExtensionPolicy(
        allowed, EARLY, chunking=chunking, message_size=message_size, recipients=recipients, auth=auth, also=also
    )


def reply(*lines: bytes) -> bytes:
    """An EHLO reply with these lines."""
    return b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1] + b"\r\n"


def lines_of(raw: bytes) -> list[bytes]:
    """The texts of the lines of a well-formed reply with code 250."""
    *lines, empty = raw.split(b"\r\n")
    assert empty == b""
    assert [line[:4] for line in lines] == [b"250-"] * (len(lines) - 1) + [b"250 "]
    return [line[4:] for line in lines]


def offered(maker: ExtensionPolicy, *lines: bytes, early: bool = False) -> list[bytes]:
    """What a client is offered where the backend sent these lines."""
    head, extensions = maker.adapt(reply(b"mx.example", *lines))
    first, *rest = lines_of(extensions.reply(head, early=early))
    assert first == b"mx.example"
    return rest


OURS = [b"PIPELINING", b"CHUNKING"]


def test_s7_a_backend_that_can_nothing() -> None:
    assert offered(policy()) == OURS
    assert lines_of(policy().nothing.reply(b"mx", early=False)) == [b"mx", *OURS]
    assert lines_of(policy().nothing.reply(b"mx", early=True)) == [b"mx", *OURS, b"PIPECONNECT", b"PIPE_CONNECT"]
    assert policy().nothing.keywords == frozenset()


def test_s7_the_first_line_is_the_backends_own() -> None:
    head, extensions = policy().adapt(b"250-mx.example Hello [192.0.2.1], pleased\r\n250 DSN\r\n")
    assert head == b"mx.example Hello [192.0.2.1], pleased"
    assert lines_of(extensions.reply(head, early=False))[0] == head
    head, _ = policy().adapt(b"250 mx.example\r\n")
    assert head == b"mx.example"


def test_s7_allowed_keywords_pass_with_their_parameters_in_order() -> None:
    assert offered(policy(), b"DSN", b"AUTH PLAIN LOGIN", b"8BITMIME") == [
        *OURS,
        b"DSN",
        b"AUTH PLAIN LOGIN",
        b"8BITMIME",
    ]


def test_s7_keywords_in_any_case() -> None:
    assert offered(policy(), b"dsn", b"Auth plain") == [*OURS, b"DSN", b"AUTH plain"]
    assert policy(allowed=("dsn",)).adapt(reply(b"mx", b"DSN"))[1].dropped == []


@pytest.mark.parametrize(
    "keyword",
    [
        b"STARTTLS", b"XCLIENT NAME ADDR", b"XFORWARD NAME", b"AUTH=LOGIN PLAIN", b"AUTH=PLAIN", b"X-EXPS GSSAPI",
        b"XEXCH50", b"TURN",
        b"ATRN", b"FUTURERELEASE 60", b"REQUIRETLS", b"BURL imap", b"X_PIPE_CONNECT", b"PIPECONNECT",
        b"PIPE_CONNECT", b"AUTH\tPLAIN",
    ],
)  # fmt: skip
def test_s7_everything_else_is_dropped(keyword: bytes) -> None:
    assert offered(policy(), b"DSN", keyword) == [*OURS, b"DSN"]
    _, extensions = policy().adapt(reply(b"mx", b"DSN", keyword))
    assert extensions.dropped == [keyword.split(b" ")[0]]


def test_s7_what_only_the_backend_can_promise_is_never_added() -> None:
    assert offered(policy(), b"PIPELINING", b"CHUNKING") == OURS
    assert offered(policy(), b"VRFY") == [*OURS, b"VRFY"]


def test_s7_a_keyword_twice_counts_once() -> None:
    assert offered(policy(), b"SIZE 10", b"size 20", b"DSN", b"DSN") == [*OURS, b"SIZE 10", b"DSN"]


def test_s7_empty_lines_are_no_keywords() -> None:
    assert offered(policy(), b"", b"  ", b"DSN ") == [*OURS, b"DSN"]


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        (b"SIZE 1000", None, b"SIZE 1000"),
        (b"SIZE 1000", 500, b"SIZE 500"),
        (b"SIZE 1000", 2000, b"SIZE 1000"),
        (b"SIZE 0", 500, b"SIZE 500"),
        (b"SIZE", 500, b"SIZE 500"),
        (b"SIZE 0", None, b"SIZE 0"),
        (b"SIZE", None, b"SIZE"),
        (b"SIZE nonsense", 500, b"SIZE 500"),
        (b"SIZE 99999999999999999999999999", 500, b"SIZE 500"),
    ],
)
def test_s7_size_is_the_smaller_of_two(theirs: bytes, ours: int | None, expected: bytes) -> None:
    assert offered(policy(message_size=ours), theirs) == [*OURS, expected]


def test_s7_size_is_not_offered_where_the_backend_does_not() -> None:
    assert offered(policy(message_size=500), b"DSN") == [*OURS, b"DSN"]


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        (b"LIMITS RCPTMAX=100", 1000, b"LIMITS RCPTMAX=100"),
        (b"LIMITS RCPTMAX=5000", 1000, b"LIMITS RCPTMAX=1000"),
        (b"LIMITS MAILMAX=5 RCPTMAX=5000 RCPTDOMAINMAX=1", 10, b"LIMITS MAILMAX=5 RCPTMAX=10 RCPTDOMAINMAX=1"),
        (b"LIMITS rcptmax=50", 10, b"LIMITS rcptmax=10"),
        (b"LIMITS RCPTMAX=x OTHER", 10, b"LIMITS RCPTMAX=x OTHER"),
    ],
)
def test_s7_limits_hold_the_smaller_number_of_recipients(theirs: bytes, ours: int, expected: bytes) -> None:
    assert offered(policy(recipients=ours), theirs) == [*OURS, expected]


def test_s7_limits_are_not_offered_where_the_backend_does_not() -> None:
    assert offered(policy(recipients=10), b"DSN") == [*OURS, b"DSN"]


def test_s9_chunking_is_offered_whatever_the_backend_can() -> None:
    assert b"CHUNKING" in offered(policy(), b"DSN")
    assert b"CHUNKING" in offered(policy(), b"CHUNKING")
    assert b"CHUNKING" not in offered(policy(chunking=False), b"CHUNKING", b"DSN")
    assert policy().adapt(reply(b"mx", b"CHUNKING"))[1].chunking
    assert not policy().adapt(reply(b"mx", b"DSN"))[1].chunking


def test_s11_binarymime_only_where_the_backend_has_both() -> None:
    assert b"BINARYMIME" in offered(policy(), b"BINARYMIME", b"CHUNKING")
    assert b"BINARYMIME" not in offered(policy(), b"BINARYMIME")
    assert b"BINARYMIME" not in offered(policy(chunking=False), b"BINARYMIME", b"CHUNKING")
    assert b"BINARYMIME" in policy().adapt(reply(b"mx", b"BINARYMIME"))[1].dropped


def test_s1_early_pipelining_only_where_asked_for_and_only_with_pipelining() -> None:
    assert offered(policy(), b"DSN", early=True) == [*OURS, b"DSN", b"PIPECONNECT", b"PIPE_CONNECT"]
    assert offered(policy(), b"DSN", early=False) == [*OURS, b"DSN"]
    bare = policy(chunking=False, allowed=())
    assert offered(bare, b"DSN", early=True) == [b"PIPELINING", b"PIPECONNECT", b"PIPE_CONNECT"]


def test_s8_whether_the_backend_takes_groups() -> None:
    assert policy().adapt(reply(b"mx", b"pipelining"))[1].pipelining
    assert not policy().adapt(reply(b"mx", b"DSN"))[1].pipelining


# --- what is ours, and what is for us ------------------------------------------------------------------------------


def test_s7_our_own_lines_come_first_and_the_backends_never_in_their_place() -> None:
    maker = policy(also=(b"STARTTLS", b"XCLIENT NAME ADDR"))
    expected = [*OURS, b"STARTTLS", b"XCLIENT NAME ADDR", b"DSN"]
    assert offered(maker, b"DSN") == expected
    assert offered(maker, b"STARTTLS", b"XCLIENT HELO", b"XFORWARD NAME", b"DSN") == expected
    assert lines_of(maker.nothing.reply(b"mx", early=False)) == [b"mx", *expected[:-1]]


def test_auth_is_passed_on_or_not() -> None:
    """RFC 4954, 4: not where it would not be taken; and never in its old spelling."""
    lines = (b"AUTH PLAIN LOGIN", b"AUTH=PLAIN", b"auth login", b"DSN")
    assert offered(policy(auth=True), *lines) == [*OURS, b"AUTH PLAIN LOGIN", b"DSN"]
    assert offered(policy(auth=False), *lines) == [*OURS, b"DSN"]
    assert policy(auth=False).adapt(reply(b"mx", b"AUTH PLAIN"))[1].dropped == [b"AUTH"]
    assert offered(policy(allowed=("DSN",), auth=True), *lines) == [*OURS, b"DSN"]


def test_whether_the_backend_offers_starttls() -> None:
    assert policy().adapt(reply(b"mx", b"StartTLS"))[1].starttls
    assert not policy().adapt(reply(b"mx", b"STARTTLSX", b"DSN"))[1].starttls
    assert not policy(also=(b"STARTTLS",)).adapt(reply(b"mx", b"DSN"))[1].starttls


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"XCLIENT NAME ADDR", {b"NAME", b"ADDR"}),
        (b"xclient Name  addr ", {b"NAME", b"ADDR"}),
        (b"XCLIENT", set()),
        (b"XCLIENTS NAME ADDR", set()),
    ],
)
def test_what_the_backend_takes_with_xclient(line: bytes, expected: set[bytes]) -> None:
    _, extensions = policy(also=(b"XCLIENT HELO",)).adapt(reply(b"mx", b"XFORWARD PORT", line))
    assert extensions.xclient == expected
    assert extensions.xforward == {b"PORT"}


def test_what_is_for_us_is_no_promise_to_the_client() -> None:
    """S18: a server without it keeps all promises that clients were made."""
    _, rich = policy().adapt(reply(b"mx", b"STARTTLS", b"XCLIENT ADDR", b"XFORWARD ADDR", b"DSN"))
    _, poor = policy().adapt(reply(b"mx", b"DSN"))
    assert rich.keywords == {b"DSN"}
    assert poor.missing(rich.keywords) == frozenset()
    assert policy().nothing.xclient == policy().nothing.xforward == frozenset()
    assert not policy().nothing.starttls


# --- the memo -----------------------------------------------------------------------------------------------------


def test_the_same_keywords_are_worked_out_once_whatever_the_first_line() -> None:
    maker = policy()
    first_head, first = maker.adapt(b"250-mx Hello one\r\n250 DSN\r\n")
    second_head, second = maker.adapt(b"250-mx Hello two\r\n250 DSN\r\n")
    assert first is second
    assert (first_head, second_head) == (b"mx Hello one", b"mx Hello two")


def test_a_backend_that_always_says_something_else_does_not_fill_the_memory() -> None:
    maker = policy(allowed=("SIZE",))
    kept: list[Extensions] = []
    for number in range(1000):
        _, extensions = maker.adapt(reply(b"mx", b"SIZE %d" % (number + 1)))
        assert lines_of(extensions.reply(b"mx", early=False))[-1] == b"SIZE %d" % (number + 1)
        kept.append(extensions)
    remembered = sum(
        maker.adapt(reply(b"mx", b"SIZE %d" % (number + 1)))[1] is kept[number] for number in range(999, 0, -1)
    )
    assert 1 <= remembered <= 200


@given(
    st.lists(st.from_regex(rb"[A-Za-z0-9][A-Za-z0-9-]{0,10}( [!-~]{1,10}){0,3}", fullmatch=True), max_size=10),
    st.booleans(),
    st.booleans(),
)
def test_s7_random_replies(lines: list[bytes], early: bool, chunking: bool) -> None:  # noqa: FBT001  # hypothesis passes them by name
    maker = policy(chunking=chunking)
    got = offered(maker, *lines, early=early)
    names = [line.split(b" ")[0] for line in got]
    assert len(names) == len(set(names))
    assert b"PIPELINING" in names
    sent = {line.split(b" ")[0].upper() for line in lines}
    of_ours = (
        {b"PIPELINING"}
        | ({b"CHUNKING"} if chunking else set())
        | ({b"PIPECONNECT", b"PIPE_CONNECT"} if early else set())
    )
    assert set(names) - of_ours == (sent & {word.encode() for word in ALLOWED}) - (
        set() if chunking and b"CHUNKING" in sent else {b"BINARYMIME"}
    )


# --- S18: what was promised and what is there ---------------------------------------------------------------------


def test_s18_what_is_missing() -> None:
    maker = policy()
    _, rich = maker.adapt(reply(b"mx", b"SIZE 10", b"DSN", b"PIPELINING"))
    _, poor = maker.adapt(reply(b"mx", b"DSN"))
    assert poor.missing(rich.keywords) >= {b"SIZE"}
    assert b"DSN" not in poor.missing(rich.keywords)
    assert rich.missing(poor.keywords) == frozenset()


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"FROM:<a@b>", set()),
        (b"FROM:<a@b> SIZE=100", {b"SIZE"}),
        (b"FROM:<a@b> BODY=8BITMIME", {b"8BITMIME"}),
        (b"FROM:<a@b> body=binarymime", {b"8BITMIME", b"BINARYMIME"}),
        (b"FROM:<a@b> SMTPUTF8 RET=HDRS ENVID=x", {b"SMTPUTF8", b"DSN"}),
        (b"TO:<a@b> NOTIFY=NEVER ORCPT=rfc822;a@b", {b"DSN"}),
        (b"FROM:<a@b> BY=120;R MT-PRIORITY=3 AUTH=<>", {b"DELIVERBY", b"MT-PRIORITY", b"AUTH"}),
        (b"FROM:<a@b> XUNKNOWN=1", set()),
    ],
)
def test_s18_the_extensions_that_parameters_use(argument: bytes, expected: set[bytes]) -> None:
    assert extensions_used(parameters(argument)) == expected
