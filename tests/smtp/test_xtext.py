"""xtext (RFC 3461, 4)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.smtp import xtext


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"", b""),
        (b"mail.example.org", b"mail.example.org"),
        (b"[UNAVAILABLE]", b"[UNAVAILABLE]"),
        (b"a+b=c", b"a+2Bb+3Dc"),
        (b"two words", b"two+20words"),
        (b"x\r\nMAIL", b"x+0D+0AMAIL"),
        (b"\0\x7f\xff!~", b"+00+7F+FF!~"),
        ("jörg".encode(), b"j+C3+B6rg"),
    ],
)
def test_by_example(value: bytes, text: bytes) -> None:
    assert xtext.encode(value) == text
    assert xtext.decode(text) == value


def test_every_octet() -> None:
    for octet in range(256):
        plain = 33 <= octet <= 126 and octet not in b"+="
        assert xtext.encode(bytes([octet])) == (bytes([octet]) if plain else b"+%02X" % octet)


@given(st.binary(max_size=60))
def test_what_is_encoded_is_plain_and_comes_back(value: bytes) -> None:
    text = xtext.encode(value)
    assert re.fullmatch(rb"([!-~](?<![+=])|\+[0-9A-F]{2})*", text)
    assert xtext.decode(text) == value


@pytest.mark.parametrize(("text", "value"), [(b"a+2bb", b"a+b"), (b"+fF", b"\xff"), (b"a=b", b"a=b"), (b"==", b"==")])
def test_what_senders_write_against_the_rfc_is_taken(text: bytes, value: bytes) -> None:
    assert xtext.decode(text) == value


@pytest.mark.parametrize(
    "text",
    [
        b"+", b"+2", b"a+", b"a+2", b"+2G", b"+G2", b"++2B", b"+ 2", b"+-1", b"+0x", b"+2+42", b"a b", b"a\tb", b" a",
        b"a\r", b"a\n", b"\n", b"a\0", b"\x7f", b"\xc3\xb6", b"+2\xc2",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_xtext(text: bytes) -> None:
    assert xtext.decode(text) is None


@given(st.binary(max_size=20))
def test_anything_at_all(text: bytes) -> None:
    value = xtext.decode(text)
    if value is not None:
        assert xtext.decode(xtext.encode(value)) == value
        assert len(value) <= len(text)
