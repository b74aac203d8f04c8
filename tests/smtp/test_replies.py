"""Replies of a server that we do not trust (H8; RFC 5321, 4.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.smtp.replies import MAX_LINE, MAX_REPLY, ReplyReader

from .pieces import cut, every_cut, every_partition, pieces_of, streams_of


def read(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], str]:
    reader = ReplyReader()
    replies = [(reply.code, reply.raw) for piece in pieces for reply in reader.receive(piece)]
    return replies, reader.fault


GOOD = [
    (b"220 mx.example.org ESMTP\r\n", 220),
    (b"250\r\n", 250),
    (b"250 \r\n", 250),
    (b"250-mx.example.org\r\n250-PIPELINING\r\n250 SIZE 1000\r\n", 250),
    (b"250-\r\n250-\r\n250\r\n", 250),
    (b"354 End data with <CR><LF>.<CR><LF>\r\n", 354),
    (b"421-4.3.2 first\r\n421 4.3.2 last\r\n", 421),
    (b"599 8-bit \xff\xfe and\ttab\r\n", 599),
]


@pytest.mark.parametrize(("raw", "code"), GOOD)
def test_a_reply_in_any_pieces(raw: bytes, code: int) -> None:
    for pieces in every_cut(raw):
        assert read(pieces) == ([(code, raw)], "")


def test_the_text_of_the_lines() -> None:
    (reply,) = ReplyReader().receive(b"250-mx.example.org hello\r\n250-\r\n250-SIZE\r\n250\r\n")
    assert reply.lines == [b"mx.example.org hello", b"", b"SIZE", b""]


def test_several_replies_in_any_two_pieces_come_in_order() -> None:
    stream = b"".join(raw for raw, _ in GOOD)
    for pieces in every_cut(stream):
        assert read(pieces) == ([(code, raw) for raw, code in GOOD], "")


def test_a_short_stream_in_every_partition() -> None:
    stream = b"250-a\r\n250\r\n"
    for pieces in every_partition(stream + b"5"):
        assert read(pieces) == ([(250, stream)], "")


def test_a_reply_is_given_as_soon_as_it_is_complete() -> None:
    reader = ReplyReader()
    assert reader.receive(b"250-a\r\n250 b\r") == []
    assert reader.pending
    assert [reply.code for reply in reader.receive(b"\n")] == [250]
    assert not reader.pending
    assert len(reader.receive(b"221 bye\r\n354 x\r\n4")) == 2
    assert reader.pending


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n", b"2\r\n", b"25\r\n", b"hello\r\n", b"199 too low\r\n", b"099 x\r\n", b"600 too high\r\n",
        b"25x no\r\n",
        b" 250 no\r\n", b"250ok\r\n", b"250\tok\r\n", b"250_ok\r\n", b"2500 ok\r\n", b"\xb2\xb5\xb0 ok\r\n",
        b"-25 x\r\n",
        b"+25 x\r\n", b"250=x\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"\x15\x03\x01\x00\x02\x02\x0a\r\n",
        b"250\0ok\r\n", b"EHLO x\r\n", b"\xef\xbb\xbf220 bom\r\n",
    ],
)  # fmt: skip
def test_h8_garbage_is_a_fault(garbage: bytes) -> None:
    for pieces in every_cut(garbage):
        replies, fault = read(pieces)
        assert replies == []
        assert fault
    for pieces in every_cut(b"220 fine\r\n" + garbage + b"250 never seen\r\n"):
        replies, fault = read(pieces)
        assert replies == [(220, b"220 fine\r\n")]
        assert fault


@pytest.mark.parametrize(
    "mixed",
    [b"250-a\r\n251 b\r\n", b"250-a\r\n550 b\r\n", b"250-a\r\n250-b\r\n350-c\r\n250 d\r\n", b"550-no\r\n250 yes\r\n"],
)
def test_h8_lines_with_different_codes_are_a_fault(mixed: bytes) -> None:
    for pieces in every_cut(mixed):
        replies, fault = read(pieces)
        assert replies == []
        assert fault


def test_h8_nothing_is_read_after_a_fault() -> None:
    reader = ReplyReader()
    reader.receive(b"garbage\r\n")
    fault = reader.fault
    assert reader.receive(b"250 ok\r\n") == []
    assert reader.fault == fault


# --- bounds -------------------------------------------------------------------------------------------------------


def line_of(octets: int, start: bytes = b"250 ") -> bytes:
    """A reply line of that many octets, CR LF not counted."""
    return start + b"x" * (octets - len(start)) + b"\r\n"


@pytest.mark.parametrize("place", [1, 3, 4, 1000, -3, -2, -1])
def test_h8_the_longest_line_is_a_reply_wherever_it_is_cut(place: int) -> None:
    raw = line_of(MAX_LINE)
    assert read(cut(raw, [place % len(raw)])) == ([(250, raw)], "")


@pytest.mark.parametrize("place", [1, 3, 4, 1000, -3, -2, -1])
def test_h8_a_line_that_is_longer_is_a_fault_wherever_it_is_cut(place: int) -> None:
    raw = line_of(MAX_LINE + 1)
    replies, fault = read(cut(raw, [place % len(raw)]))
    assert replies == []
    assert fault


def test_h8_a_line_without_end_is_a_fault_before_it_ends() -> None:
    reader = ReplyReader()
    for _ in range(3 * MAX_LINE // 100):
        reader.receive(b"2" * 100)
    assert reader.fault


def largest_reply() -> bytes:
    """A reply of exactly the octets allowed, the last CR LF not counted."""
    line = line_of(1022, b"250-")
    lines = line * (MAX_REPLY // len(line) - 1)
    return lines + line_of(MAX_REPLY - len(lines))


@pytest.mark.parametrize("place", [1, 1024, 1025, 30_000, -1025, -3, -2, -1])
def test_h8_the_largest_reply_is_one_wherever_it_is_cut(place: int) -> None:
    raw = largest_reply()
    assert read(cut(raw, [place % len(raw)])) == ([(250, raw)], "")


@pytest.mark.parametrize("place", [1, 1024, 1025, 30_000, -1025, -3, -2, -1])
def test_h8_a_reply_that_is_larger_is_a_fault_wherever_it_is_cut(place: int) -> None:
    raw = largest_reply()[:-2] + b"x\r\n"
    replies, fault = read(cut(raw, [place % len(raw)]))
    assert replies == []
    assert fault


def test_h8_a_reply_without_end_is_a_fault() -> None:
    reader = ReplyReader()
    sent = 0
    while not reader.fault:
        assert reader.receive(b"250-and so on\r\n") == []
        sent += 15
        assert sent < 2 * MAX_REPLY
    assert sent >= MAX_REPLY


# --- control characters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("octet", [c for c in range(32) if c not in (9, 10, 13)] + [127])
def test_h8_control_characters_never_reach_the_client(octet: int) -> None:
    raw = b"550-a%c[31mb\r\n550 c%cd\r\n" % (octet, octet)
    for pieces in every_cut(raw):
        assert read(pieces) == ([(550, b"550-a?[31mb\r\n550 c?d\r\n")], "")


@pytest.mark.parametrize("bare", [b"\r", b"\n", b"\n\r", b"\r\r", b"\n250 injected", b"\r550-x"])
def test_h8_bare_cr_and_lf_make_no_line_of_their_own(bare: bytes) -> None:
    raw = b"250-one" + bare + b"two\r\n250 three" + bare + b"\r\n"
    safe = bare.replace(b"\r", b"?").replace(b"\n", b"?")
    for pieces in every_cut(raw + b"221 bye\r\n"):
        assert read(pieces) == (
            [(250, b"250-one" + safe + b"two\r\n250 three" + safe + b"\r\n"), (221, b"221 bye\r\n")],
            "",
        )


def test_h8_the_next_reply_is_not_touched() -> None:
    reader = ReplyReader()
    dirty, clean = reader.receive(b"250 \x1b]0;title\x07\r\n250 a\ttab \xc3\xa9\r\n")
    assert dirty.raw == b"250 ?]0;title?\r\n"
    assert clean.raw == b"250 a\ttab \xc3\xa9\r\n"


def test_tab_stays() -> None:
    assert read([b"214 a\tb\r\n"]) == ([(214, b"214 a\tb\r\n")], "")


# --- random -------------------------------------------------------------------------------------------------------

FRAGMENTS = (b"250 ", b"250-", b"250", b"550 ", b"\r\n", b"\r", b"\n", b"text", b"\x1b", b"\xff", b"2", b" ", b"-", b"")


def model(stream: bytes) -> tuple[list[tuple[int, bytes]], bool]:
    """Line by line, with everything at hand."""
    replies: list[tuple[int, bytes]] = []
    lines: list[bytes] = []
    *whole, _ = stream.split(b"\r\n")
    for line in whole:
        code, mark = line[:3], line[3:4]
        good = (
            len(code) == 3
            and all(48 <= octet <= 57 for octet in code)
            and 50 <= code[0] <= 53
            and mark in (b"", b" ", b"-")
        )
        if not good or (lines and lines[0][:3] != code):
            return replies, True
        lines.append(bytes(63 if (octet < 32 and octet != 9) or octet == 127 else octet for octet in line))
        if mark != b"-":
            replies.append((int(code), b"\r\n".join(lines) + b"\r\n"))
            lines = []
    return replies, False


@given(pieces_of(streams_of(FRAGMENTS)))
def test_h8_random_streams_against_the_model(pieces: list[bytes]) -> None:
    replies, fault = read(pieces)
    assert (replies, bool(fault)) == model(b"".join(pieces))


@given(pieces_of(st.binary(max_size=200)))
def test_h8_any_octets_at_all(pieces: list[bytes]) -> None:
    replies, fault = read(pieces)
    assert (replies, bool(fault)) == model(b"".join(pieces))
