"""Command lines (RFC 5321, 4.1; S5, S9, S16, H1, H5)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.smtp import commands
from smtpproxy.smtp.commands import (
    BDAT,
    UNKNOWN,
    VERBS,
    Wait,
    has_controls,
    is_http,
    is_tls,
    match_command,
    parse_chunk_size,
    parse_command,
)

# --- the table ----------------------------------------------------------------------------------------------------

ALL = b"HELO EHLO LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY EXPN HELP ETRN AUTH STARTTLS XCLIENT QUIT".split()


def test_s16_the_table_has_these_verbs_and_no_other() -> None:
    assert sorted(VERBS) == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_verb_is_found_in_any_case(name: bytes) -> None:
    for letters in itertools.product(*[(chr(c).lower(), chr(c)) for c in name]):
        raw = "".join(letters).encode() + b" x\r\n"
        command = parse_command(raw)
        assert command.verb is VERBS[name]
        assert command.raw == raw
        assert command.argument == b"x"


def test_rfc_2920_what_ends_a_group() -> None:
    """RFC 2920, 3.1: these can only be the last command in a group; MAIL, RCPT, RSET (and BDAT, RFC 3030) need not."""
    enders = {name for name, verb in VERBS.items() if verb.ends_group}
    assert enders >= {b"EHLO", b"DATA", b"VRFY", b"EXPN", b"QUIT", b"NOOP", b"HELO", b"AUTH", b"ETRN", b"HELP"}
    assert enders >= {b"STARTTLS", b"XCLIENT"}
    assert enders.isdisjoint({b"MAIL", b"RCPT", b"RSET", b"BDAT"})
    assert not commands.END_OF_DATA.ends_group
    assert commands.GREETING.ends_group
    assert commands.CHUNKS_AS_DATA.ends_group
    # What changes everything that follows is waited for; XFORWARD goes out with its MAIL.
    assert commands.OWN_STARTTLS.ends_group
    assert commands.OWN_XCLIENT.ends_group
    assert commands.OWN_EHLO.ends_group
    assert not commands.OWN_XFORWARD.ends_group


def test_rfc_5321_which_time_out_waits_for_the_reply() -> None:
    waits = {name: verb.wait for name, verb in VERBS.items()}
    assert waits.pop(b"MAIL") is Wait.MAIL
    assert waits.pop(b"RCPT") is Wait.RCPT
    assert waits.pop(b"DATA") is Wait.DATA
    assert waits.pop(b"BDAT") is Wait.END_OF_DATA
    assert waits.pop(b"EHLO") is waits.pop(b"HELO") is waits.pop(b"LHLO") is Wait.EHLO
    assert set(waits.values()) == {Wait.OTHER}
    assert commands.GREETING.wait is commands.OWN_GREETING.wait is Wait.GREETING
    assert commands.END_OF_DATA.wait is Wait.END_OF_DATA


# --- parsing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "name", "argument"),
    [
        (b"NOOP\r\n", b"NOOP", b""),
        (b"quit \r\n", b"QUIT", b""),
        (b"EHLO client.example\r\n", b"EHLO", b"client.example"),
        (b"MAIL FROM:<a@b> SIZE=1\r\n", b"MAIL", b"FROM:<a@b> SIZE=1"),
        (b"RCPT  TO:<a@b>  \r\n", b"RCPT", b"TO:<a@b>"),
        (b"RCPT TO:<\xc3\xa9@b>\r\n", b"RCPT", b"TO:<\xc3\xa9@b>"),
        (b"VRFY \ta b\t\r\n", b"VRFY", b"a b"),
    ],
)
def test_verb_and_argument(raw: bytes, name: bytes, argument: bytes) -> None:
    command = parse_command(raw)
    assert (command.verb, command.argument, command.raw) == (VERBS[name], argument, raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n", b" \r\n", b" NOOP\r\n", b"NOOP\tx\r\n", b"MAIL\tFROM:<a@b>\r\n", b"MAILFROM:<a@b>\r\n",
        b"MAIL:\r\n", b"DAT\r\n",
        b"DATAX\r\n", b"STARTTL\r\n", b"XCLIENTS ADDR=1.2.3.4\r\n", b"XFORWARD\r\n", b"X-EXPS GSSAPI\r\n",
        b"XEXCH50 1 2\r\n", b"TURN\r\n",
        b"ATRN\r\n", b"SEND FROM:<a@b>\r\n", b"BURL imap://x LAST\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"\xc5\xbfMAIL\r\n",
        b"EH\xc4\xb1O\r\n", b"ma\xc4\xb1l FROM:<a@b>\r\n",
    ],
)  # fmt: skip
def test_s16_what_is_not_in_the_table_is_unknown(raw: bytes) -> None:
    assert parse_command(raw).verb is UNKNOWN


@given(st.binary(max_size=60).filter(lambda text: b"\n" not in text and b"\r" not in text))
def test_any_line_is_a_command_or_unknown(text: bytes) -> None:
    command = parse_command(text + b"\r\n")
    assert command.raw == text + b"\r\n"
    word = text.split(b" ")[0]
    assert command.verb is VERBS.get(word.upper(), UNKNOWN)
    assert command.argument == text[len(word) :].strip()


@pytest.mark.parametrize(
    "buffer",
    [
        b"",
        b"NOOP",
        b"NOOP\r",
        b"NOOP\n",
        b"NOOP x\ry\r\n",
        b"NOOP x\ny\r\n",
        b"NOOP\0\r\n",
        b"NOOPX\r\n",
        b" NOOP\r\n",
        b"NOO\r\nNOOP\r\n",
    ],
    ids=repr,
)
def test_h1_the_short_way_takes_no_line_that_needs_a_closer_look(buffer: bytes) -> None:
    assert match_command(buffer, 0) is None


@given(
    st.lists(
        st.sampled_from([b"NOOP", b"mail", b"XYZW", b" ", b"x", b"\t", b"\r", b"\n", b"\r\n", b"\0", b"\xff"]),
        max_size=9,
    )
)
def test_h1_the_short_way_gives_what_the_long_one_does(fragments: list[bytes]) -> None:
    for start, buffer in (
        (0, b"".join(fragments)),
        (6, b"DATA\r\n" + b"".join(fragments)),
        (0, b"NOOP" + b"".join(fragments)),
    ):
        command = match_command(buffer, start)
        end = buffer.find(b"\r\n", start)
        line = buffer[start : end + 2]
        if command is not None:
            expected = parse_command(line)
            assert (command.verb, command.argument, command.raw) == (expected.verb, expected.argument, line)
            assert command.verb is not UNKNOWN
        if command is None and end >= 0:
            assert has_controls(line[:-2]) or parse_command(line).verb is UNKNOWN


# --- BDAT ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"0", (0, False)),
        (b"0 LAST", (0, True)),
        (b"1", (1, False)),
        (b"86 LAST", (86, True)),
        (b"86 last", (86, True)),
        (b"86 LaSt", (86, True)),
        (b"2147483647", (2**31 - 1, False)),
    ],
)
def test_s9_the_size_of_a_chunk(argument: bytes, expected: tuple[int, bool]) -> None:
    assert parse_chunk_size(argument) == expected


@pytest.mark.parametrize(
    "argument",
    [
        b"", b"LAST", b"x", b"-1", b"+1", b"1.0", b"1e3", b"0x10", b"1 2", b"1 LASTX", b"1 LAST LAST", b"1LAST",
        b"1,LAST", b"\xb2",
        b"\xd9\xa3", b"1_000", b"1 \xc2\xa0LAST", b"9" * 19, b"9" * 4000, b"1 FIRST", b"--1",
    ],
)  # fmt: skip
def test_s9_a_malformed_count_is_none(argument: bytes) -> None:
    assert parse_chunk_size(argument) is None


@pytest.mark.parametrize("count", [2**31, 2**32, 2**32 + 5, 2**63, 2**64 + 1])
def test_s9_a_count_that_overflows_at_some_server_is_absurd(count: int) -> None:
    """Where the backend keeps it in 32 bits, the rest of the chunk would run there as commands (S14)."""
    assert parse_chunk_size(b"%d LAST" % count) is None
    assert parse_chunk_size(b"%d" % count) is None


def test_s9_bdat_keeps_its_argument() -> None:
    command = parse_command(b"bdat 12 LAST\r\n")
    assert command.verb is BDAT
    assert parse_chunk_size(command.argument) == (12, True)


# --- what no command may hold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("octet", range(256))
def test_h1_h5_control_characters(octet: int) -> None:
    expected = (octet < 32 and octet != 9) or octet == 127
    for text in (bytes([octet]), b"MAIL" + bytes([octet]), bytes([octet]) + b"MAIL", b"MA" + bytes([octet]) + b"IL"):
        assert has_controls(text) == expected


def test_h1_clean_text_has_none() -> None:
    assert not has_controls(b"")
    assert not has_controls(bytes(range(32, 127)) + b"\t" + bytes(range(128, 256)))


@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"]
)
def test_h5_http(method: bytes) -> None:
    line = method + b" / HTTP/1.1\r\n"
    assert parse_command(line).verb is UNKNOWN
    assert is_http(line)
    assert not is_http(method + b"X / HTTP/1.1\r\n")


def test_h5_no_verb_of_ours_is_taken_for_http() -> None:
    assert not any(is_http(name + b" x\r\n") for name in ALL)


def test_h5_tls() -> None:
    assert is_tls(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert not is_tls(b"EHLO x\r\n")
    assert not is_tls(b"")
