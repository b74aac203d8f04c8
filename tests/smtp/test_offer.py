"""What a remote's EHLO reply offers (C1 to C3): read with tolerance, bounded, equal by its lines."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.smtp.offer import MAX_LINE, MAX_LINES, Offer

EXIM = (
    b"250-mx.example.org Hello relay.example [192.0.2.1]\r\n"
    b"250-SIZE 52428800\r\n"
    b"250-LIMITS MAILMAX=1000 RCPTMAX=50000\r\n"
    b"250-8BITMIME\r\n"
    b"250-PIPELINING\r\n"
    b"250-PIPECONNECT\r\n"
    b"250-CHUNKING\r\n"
    b"250-STARTTLS\r\n"
    b"250-PRDR\r\n"
    b"250 HELP\r\n"
)
POSTFIX = (
    b"250-mail.example.org\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n"
    b"250-AUTH PLAIN LOGIN\r\n250-AUTH=PLAIN CRAM-MD5\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n"
    b"250-SMTPUTF8\r\n250-BINARYMIME\r\n250-DELIVERBY 86400\r\n250-REQUIRETLS\r\n250 CHUNKING\r\n"
)
FLAGS = {
    "pipelining": b"PIPELINING",
    "chunking": b"CHUNKING",
    "starttls": b"STARTTLS",
    "smtputf8": b"SMTPUTF8",
    "eightbitmime": b"8BITMIME",
    "dsn": b"DSN",
}


def flags_of(offer: Offer) -> set[str]:
    return {name for name in FLAGS if getattr(offer, name)}


# --- C1: what is learned ---------------------------------------------------------------------------------------------


def test_c1_what_exim_says() -> None:
    offer = Offer.parse(EXIM)
    assert offer.lines == (
        b"SIZE 52428800", b"LIMITS MAILMAX=1000 RCPTMAX=50000", b"8BITMIME", b"PIPELINING", b"PIPECONNECT", b"CHUNKING",
        b"STARTTLS", b"PRDR", b"HELP",
    )  # fmt: skip
    assert flags_of(offer) == {"eightbitmime", "pipelining", "chunking", "starttls"}
    assert offer.early == b"PIPECONNECT"
    assert offer.size == 52428800
    assert offer.mechanisms == frozenset()
    assert not offer.binarymime
    assert {b"PRDR", b"HELP"} < offer.keywords


def test_c1_what_postfix_says() -> None:
    offer = Offer.parse(POSTFIX)
    assert flags_of(offer) == set(FLAGS) - {"starttls"}
    assert offer.binarymime
    assert offer.early == b""
    assert offer.mechanisms == {b"PLAIN", b"LOGIN", b"CRAM-MD5"}


@pytest.mark.parametrize(("name", "keyword"), FLAGS.items())
@pytest.mark.parametrize("write", [bytes.upper, bytes.lower, lambda word: word + b" ", lambda word: word + b" X Y"])
def test_c1_each_keyword_in_any_case_with_anything_behind_it(name: str, keyword: bytes, write: object) -> None:
    assert callable(write)
    assert flags_of(Offer((write(keyword),))) == {name}
    assert not flags_of(Offer((keyword + b"X", b"X" + keyword, b" " + keyword, b"-" + keyword)))


@pytest.mark.parametrize("keyword", [b"PIPECONNECT", b"PIPE_CONNECT", b"X_PIPE_CONNECT"])
def test_c1_every_spelling_of_early_pipelining(keyword: bytes) -> None:
    assert Offer((b"PIPELINING", keyword)).early == keyword
    assert Offer((keyword.lower(), b"pipelining")).early == keyword
    assert Offer((keyword, b"CHUNKING")).early == b""  # of no use without PIPELINING


def test_c1_the_current_spelling_comes_first() -> None:
    assert Offer((b"X_PIPE_CONNECT", b"PIPE_CONNECT", b"PIPECONNECT", b"PIPELINING")).early == b"PIPECONNECT"


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"SIZE 1000", 1000),
        (b"size 1000", 1000),
        (b"SIZE=1000", 1000),
        (b"SIZE", 0),
        (b"SIZE 0", 0),
        (b"SIZE ", 0),
        (b"SIZE many", 0),
        (b"SIZE -1", 0),
        (b"SIZE 10 20", 0),
        (b"SIZE " + b"9" * 20, int("9" * 20)),
        (b"SIZE " + b"9" * 21, 0),
        (b"SIZEX 1000", None),
    ],
)
def test_rfc1870_size(line: bytes, size: int | None) -> None:
    assert Offer((line,)).size == size


@pytest.mark.parametrize(
    ("lines", "most"),
    [
        ((), 0),
        ((b"LIMITS",), 0),
        ((b"LIMITS MAILMAX=20 RCPTMAX=100",), 20),
        ((b"limits rcptmax=100 mailmax=7",), 7),
        ((b"LIMITS MAILMAX=20", b"LIMITS MAILMAX=3"), 3),
        ((b"LIMITS MAILMAX=0",), 0),
        ((b"LIMITS MAILMAX=1000000",), 0),
        ((b"LIMITS MAILMAX=-1 MAILMAX=x MAILMAX",), 0),
    ],
)
def test_rfc9422_how_many_transactions_a_session_may_have(lines: tuple[bytes, ...], most: int) -> None:
    assert Offer(lines).mailmax == most


def test_rfc4954_mechanisms_in_the_old_spelling() -> None:
    assert Offer((b"AUTH=LOGIN plain",)).mechanisms == {b"LOGIN", b"PLAIN"}
    assert Offer((b"AUTH= LOGIN",)).mechanisms == {b"LOGIN"}
    assert Offer((b"AUTH",)).mechanisms == frozenset()


def test_rfc3030_binarymime_needs_chunking() -> None:
    assert not Offer((b"BINARYMIME",)).binarymime
    assert Offer((b"BINARYMIME", b"CHUNKING")).binarymime


# --- C3: what is compared ---------------------------------------------------------------------------------------------


def test_c3_equal_by_lines() -> None:
    assert Offer((b"PIPELINING",)) == Offer((b"PIPELINING",))
    assert hash(Offer((b"PIPELINING",))) == hash(Offer((b"PIPELINING",)))
    assert Offer((b"PIPELINING",)) != Offer((b"pipelining",))
    assert Offer((b"A", b"B")) != Offer((b"B", b"A"))
    assert Offer.parse(EXIM) != Offer.parse(POSTFIX)


def test_c3_the_first_line_is_not_compared() -> None:
    tail = EXIM.partition(b"\r\n")[2]
    assert Offer.parse(b"250-another name\r\n" + tail) is Offer.parse(EXIM)


def test_a_one_line_reply_is_a_server_without_extensions() -> None:
    assert Offer.parse(b"250 mx.example.org PIPELINING\r\n") == Offer.NONE
    assert Offer.parse(b"250\r\n") == Offer.NONE
    assert Offer.NONE.lines == ()
    assert Offer.NONE.size is None
    assert not Offer.NONE.keywords


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\r\n" not in line + b"\n"), max_size=8))
def test_c3_lines_are_kept_as_they_are(lines: list[bytes]) -> None:
    texts = [b"mx.example", *lines]
    raw = b"".join(b"250" + (b" " if n == len(texts) - 1 else b"-") + text + b"\r\n" for n, text in enumerate(texts))
    offer = Offer.parse(raw)
    assert offer.lines == tuple(lines)
    assert offer == Offer(offer.lines) == Offer.of(offer.lines)
    assert repr(offer) == f"Offer(lines={offer.lines!r})"


def test_an_offer_cannot_be_changed() -> None:
    offer = Offer((b"LIMITS MAILMAX=1",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        offer.size = 1  # type: ignore[misc]  # what is tested
    assert not hasattr(offer, "__dict__")


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_absurd_lines_are_left_out() -> None:
    longest = b"X" * MAX_LINE
    assert Offer((b"DSN", longest, b"Y" * (MAX_LINE + 1), b"CHUNKING")).lines == (b"DSN", longest, b"CHUNKING")


def test_absurdly_many_lines_are_left_out() -> None:
    lines = tuple(b"X%d" % number for number in range(MAX_LINES + 50))
    offer = Offer((*lines, b"PIPELINING"))
    assert offer.lines == lines[:MAX_LINES]
    assert not offer.pipelining


def test_equal_replies_give_one_object_unless_they_are_absurdly_long() -> None:
    assert Offer.parse(EXIM) is Offer.parse(bytes(bytearray(EXIM)))
    assert Offer.of((b"DSN", b"SIZE 7")) is Offer.of((b"DSN", bytes(bytearray(b"SIZE 7"))))
    lines = tuple(b"X" * 900 for _ in range(10))
    raw = b"250-mx\r\n" + b"".join(b"250-%s\r\n" % line for line in lines[:-1]) + b"250 %s\r\n" % lines[-1]
    assert Offer.parse(raw) == Offer.of(lines) == Offer(lines)
    assert Offer.parse(raw) is not Offer.parse(raw)
    assert Offer.of(lines) is not Offer.of(lines)
