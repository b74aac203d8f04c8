"""Bare CR and bare LF are found in every place (S11)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from smtpproxy.smtp.lineendings import has_bare

from .pieces import streams_of, words_over


def model(text: bytes) -> bool:
    left = text.replace(b"\r\n", b"")
    return b"\r" in left or b"\n" in left


def test_s11_every_short_text() -> None:
    for text in words_over((b"\r", b"\n", b"a"), 8):
        if not text.endswith(b"\r"):
            assert has_bare(text) == model(text), text


def test_s11_what_was_asked_before_does_not_matter() -> None:
    texts = [b"", b"a", b"\r\n", b"a\r\nb", b"\n", b"\r\r\n", b"\ra", b"a\n"]
    for before in texts:
        for text in texts:
            has_bare(before)
            assert has_bare(text) == model(text), (before, text)


@given(streams_of((b"\r\n", b"line of text\r\n", b"\x85", b"\x0b\x0c", b"\x1c\x1d\x1e", b"\xe2\x80\xa8")))
def test_s11_other_line_separators_are_none(text: bytes) -> None:
    """What Unicode or Python call the end of a line (NEL, VT, FF, U+2028) is text to SMTP."""
    assert not has_bare(text)


@given(st.binary(max_size=2000).filter(lambda text: not text.endswith(b"\r")))
def test_s11_random_octets(text: bytes) -> None:
    assert has_bare(text) == model(text)


def test_s11_a_bare_one_is_found_behind_a_megabyte() -> None:
    clean = b"0123456789\r\n" * 100_000
    assert not has_bare(clean)
    assert has_bare(clean + b"\n")
    assert has_bare(b"\r" + clean)
    assert has_bare(clean[:500_000].rstrip(b"\r\n") + b"\r" + clean)
